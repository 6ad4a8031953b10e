"""Everything that Daram raises on purpose: one class per thing that a caller can act on.

Every message says what was wrong, where, and what to do. ``code`` is a stable machine name (the HTTP doors use it as
it is).
"""

from __future__ import annotations

from typing import ClassVar


class DaramError(Exception):
    """The root of all errors of Daram. ``retryable`` tells whether the same call may succeed later, unchanged."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


# --- what the caller gave -------------------------------------------------------------------------------------------


class InvalidInput(DaramError, ValueError):
    """An argument is not acceptable. ``field`` names it (``messages[2].text``); nothing was stored."""

    code = "invalid_input"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class TooLarge(InvalidInput):
    """An argument is over its limit; ``actual`` and ``limit`` are in ``unit`` (bytes, characters, messages, pairs)."""

    code = "too_large"

    def __init__(self, field: str, actual: int, limit: int, unit: str) -> None:
        super().__init__(field, f"{actual:,} {unit}, but at most {limit:,} are allowed")
        self.actual = actual
        self.limit = limit
        self.unit = unit


class ConfigError(DaramError):
    """A setting (environment variable, flag, URL) has a value that cannot be used; the text names the setting."""

    code = "config"


class MissingExtra(DaramError, ImportError):
    """A part that is not installed is needed; the text holds the line that installs it."""

    code = "missing_extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs the extra "{extra}". Install it with: pip install "daram[{extra}]"')
        self.extra = extra


class UnsupportedVersion(DaramError, ImportError):
    """A framework is installed in a release that the adapter was not tried with; the text holds the line that helps."""

    code = "unsupported_version"

    def __init__(self, what: str, package: str, found: str, wanted: str, extra: str) -> None:
        super().__init__(f'{what} needs {package}{wanted}, but {found} is installed; pip install -U "daram[{extra}]"')


class Unsupported(DaramError):
    """This engine does not have that capability; the text says which engine has."""

    code = "unsupported"


class SyncInAsync(DaramError, RuntimeError):
    """A synchronous call was made on a running event loop, which it would block. Use the async face there."""

    code = "sync_in_async"


# --- what is in the store -------------------------------------------------------------------------------------------


class NotFound(DaramError, LookupError):
    """No such conversation, message or answer for this owner (another owner's looks exactly the same)."""

    code = "not_found"

    def __init__(self, what: str, id: str) -> None:
        super().__init__(f"no {what} {id!r} for this owner")
        self.what = what
        self.id = id


class Gone(NotFound):
    """It was here and the owner deleted it: a late retry or write must not bring it back."""

    code = "gone"

    def __init__(self, what: str, id: str) -> None:
        super().__init__(what, id)
        way = "create it again on purpose, or use a new id" if what == "conversation" else "use a new id"
        self.args = (f"{what} {id!r} was deleted; {way}",)


class NotAllowed(DaramError):
    """It may be read but not changed by whoever asks; the text says by whom it may."""

    code = "not_allowed"


class Conflict(DaramError):
    """What is stored is not what the caller believed (``expect``), or the id stands for something else already."""

    code = "conflict"


class ConversationBusy(DaramError):
    """An answer is being made on this branch. ``retry_after`` is in seconds; ``answer_id`` names the running answer
    (empty where other turns that wait stand before this one, and who answers them is not known here).

    ``dead`` says that its maker is known to be gone, so that recovery can close it at once.
    """

    code = "conversation_busy"
    retryable = True

    def __init__(self, answer_id: str, retry_after: float = 1.0, *, dead: bool = False) -> None:
        super().__init__(
            f"answer {answer_id!r} is still being made in this conversation; "
            f"try again in {retry_after:g} s, or cancel it"
            if answer_id
            else f"other turns are still waiting in this conversation; try again in {retry_after:g} s"
        )
        self.answer_id = answer_id
        self.retry_after = retry_after
        self.dead = dead


class LeaseLost(DaramError):
    """The answer is no longer this process's to write: its lease ran out and it was closed, or it was deleted."""

    code = "lease_lost"

    def __init__(self, answer_id: str) -> None:
        super().__init__(
            f"answer {answer_id!r} was closed or taken over meanwhile; nothing was written. "
            "Read the conversation again to see what was kept"
        )
        self.answer_id = answer_id


# --- the engine -----------------------------------------------------------------------------------------------------


class StoreError(DaramError):
    """The engine could not do it. Nothing was stored unless the class says otherwise."""

    code = "store"


class StoreClosed(StoreError):
    """The store was closed; open it again."""

    code = "store_closed"


class StoreBusy(StoreError):
    """Somebody else held the store for longer than the time-out. Nothing was stored; try again."""

    code = "store_busy"
    retryable = True


class StoreFull(StoreError):
    """No space left. Nothing of this call was stored; make room and try again."""

    code = "store_full"
    retryable = True


class StoreReadOnly(StoreError):
    """The store cannot be written (file permissions, a read-only disk or replica)."""

    code = "store_read_only"


class StoreUnavailable(StoreError):
    """The engine cannot be reached or read (missing directory, server down, I/O error). Nothing was stored."""

    code = "store_unavailable"
    retryable = True


class OutcomeUnknown(StoreError):
    """The engine failed while it was committing: the write may or may not be there.

    Repeat the call with the same message ids: what is stored already is not stored again.
    """

    code = "outcome_unknown"
    retryable = True


class StoreCorrupt(StoreError):
    """What is on disk is not a Daram store, or is damaged. Restore a backup, or run ``daram check``."""

    code = "store_corrupt"


class SchemaTooNew(StoreError):
    """The store was written by a newer Daram. Update Daram; this one has changed nothing."""

    code = "schema_too_new"


# --- the model ------------------------------------------------------------------------------------------------------


class ModelError(DaramError):
    """The language model gave no usable answer. The user's message is kept; the turn can be retried."""

    code = "model"
    retryable = True


class ModelUnavailable(ModelError):
    """No model is set up or reachable; the text says what to set or install."""

    code = "model_unavailable"


class ModelRefused(ModelError):
    """The endpoint refused the key or the permission (401, 403), or has no such model (404)."""

    code = "model_refused"
    retryable = False


class ModelRateLimited(ModelError):
    """The endpoint asks to slow down (429). ``retry_after`` is in seconds, None where it did not say."""

    code = "model_rate_limited"

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class ModelTimeout(ModelError):
    """The model did not answer, or stopped talking, for longer than the time-out."""

    code = "model_timeout"


class AnswerLate(ModelTimeout):
    """Whoever asked was kept waiting for too long, so the answer was stopped. What it had said is kept too."""

    code = "answer_failed"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"There was no answer in {seconds:g} seconds; what was asked is kept. Ask again, or as a stream."
        )


class ModelBroken(ModelError):
    """The connection was cut in mid-answer, or what came was not the protocol."""

    code = "model_broken"


class ContextOverflow(ModelError):
    """The model says that the context is too long for it (its own words are in the text)."""

    code = "context_overflow"


class MessageTooLong(InvalidInput):
    """One message alone does not fit the model's context. Sizes are in tokens; nothing was stored."""

    code = "message_too_long"

    def __init__(self, tokens: int, budget: int) -> None:
        super().__init__(
            "message",
            f"about {tokens:,} tokens, but the model's context leaves room for {budget:,}; "
            "shorten it, split it, or use a model with a larger context",
        )
        self.tokens = tokens
        self.budget = budget


# --- the chatbot ----------------------------------------------------------------------------------------------------


class ChatbotClosed(DaramError):
    """The chatbot was closed before the turn began. Make another one; the same message id is safe to send again."""

    code = "chatbot_closed"


class WrongLoop(DaramError, RuntimeError):
    """A chatbot belongs to the event loop of its first call for as long as that loop lives."""

    code = "wrong_loop"


# --- documents ------------------------------------------------------------------------------------------------------


class DocumentError(DaramError):
    """A document cannot be taken in. ``name`` is its file's; nothing of it was stored."""

    code = "document"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class UnsupportedDocument(DocumentError):
    """No loader reads this kind of document; the text names those that can be read."""

    code = "unsupported_document"


class DocumentTooLarge(DocumentError):
    """A document, or what it unpacks to, is over a bound (bytes, pages, seconds); the text names it."""

    code = "document_too_large"
