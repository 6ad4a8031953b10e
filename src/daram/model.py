"""The values: frozen, typed, without I/O. Everything that crosses a room's wall is one of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from daram import ids

Role = Literal["system", "user", "assistant", "tool"]
Status = Literal["complete", "incomplete", "cancelled", "failed"]
"""``incomplete``: a crash or a cut ended it; ``cancelled``: the user stopped it; ``failed``: the model gave an
error."""

T = TypeVar("T")


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the text of a message does not say: an image, a file, a tool call or its result, a citation, an output item.

    ``type`` is one of ``image``, ``file``, ``tool_call``, ``tool_result``, ``citation``, ``reasoning`` or a door's own;
    ``data`` is JSON. A ``tool_call`` holds ``call_id``, ``name``, ``arguments`` (a JSON string);
    a ``tool_result`` holds ``call_id`` and ``output``.
    """

    type: str
    id: str | None = None
    data: dict[str, Any] = {}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message. ``seq``, ``parent`` and ``created_at`` are given by the store; until then 0, None, None.

    ``parent`` is the id of the message that this one follows (None for a first one); ``tokens`` is the length of this
    message alone; ``usage`` is what the endpoint reported for the whole call (``input_tokens``, ``output_tokens``).
    """

    id: str = msgspec.field(default_factory=ids.message_id)
    role: Role
    text: str = ""
    parts: tuple[Part, ...] = ()
    status: Status = "complete"
    model: str | None = None
    tokens: int | None = None
    usage: dict[str, int] | None = None
    metadata: dict[str, str] = {}
    created_at: datetime | None = None
    seq: int = 0
    parent: str | None = None

    def same_content(self, other: Message) -> bool:
        """Whether two messages say the same (P3): all but what the store gives (``seq``, ``parent``,
        ``created_at``)."""
        return (
            self.id == other.id
            and self.role == other.role
            and self.text == other.text
            and self.status == other.status
            and self.parts == other.parts
            and self.metadata == other.metadata
            and self.model == other.model
            and self.tokens == other.tokens
            and self.usage == other.usage
        )


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as its owner sees it.

    ``version`` counts changes from 0; ``etag`` is random and drawn anew by every change; ``head`` is the id of the last
    message of the branch in use (None while empty); ``updated_at`` is the last change, by which lists are sorted.
    """

    id: str
    owner: str
    title: str | None = None
    metadata: dict[str, str] = {}
    pinned: bool = False
    archived: bool = False
    version: int = 0
    etag: str = ""
    last_seq: int = 0
    head: str | None = None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list. ``next_cursor`` is None at the end, else an opaque string for the next call."""

    items: list[T]
    next_cursor: str | None = None


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """What an append did and found.

    ``messages``: the batch as stored; ``tail``: the last ``window`` messages of the branch, the batch included, oldest
    first; ``parent``: the id of the message that the batch follows; ``previous_etag`` equals ``etag`` where the batch
    was stored already and nothing changed.
    """

    conversation: str
    version: int
    etag: str
    previous_etag: str
    parent: str | None
    messages: list[Message]
    tail: list[Message]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is being made: its partial text and its lease. ``token`` is empty for whoever does not hold it."""

    id: str
    owner: str
    conversation: str
    question: str
    text: str = ""
    model: str | None = None
    token: str = ""
    cancel: bool = False
    created_at: datetime
    lease_until: datetime


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What ``begin_turn`` found.

    ``started``: ``answer`` is the caller's to make. ``running``: the same turn is being answered by somebody,
    ``answer`` is theirs. ``finished``: it was answered already, ``message`` is the answer.
    """

    state: Literal["started", "running", "finished"]
    appended: Appended
    answer: Answer | None = None
    message: Message | None = None


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One result of a search: the message, the conversation it is in, and a score (higher is better)."""

    message: Message
    conversation: str
    title: str | None = None
    score: float = 0.0

    @property
    def id(self) -> str:
        """The message's id."""
        return self.message.id

    @property
    def text(self) -> str:
        """The message's text."""
        return self.message.text


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter keeps beside messages: bytes under (owner, namespace, key), with an etag of their own."""

    namespace: str
    key: str
    value: bytes
    etag: str
    expires_at: datetime | None = None


class OwnedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record and whose it is: what a scan over all owners gives."""

    owner: str
    record: Record


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A message as the log of its conversation holds it, whatever branch it is on.

    ``parent``: the ``seq`` of the message that it follows (0: none). ``question``: of an answer that does not stand
    directly behind its question, the ``seq`` of that. ``deleted``: a tombstone; its message has nothing but ``id``,
    ``role``, ``seq``, ``parent`` and ``created_at``.
    """

    message: Message
    parent: int
    question: int | None = None
    deleted: bool = False


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that ``daram check`` found: ``where`` (a conversation, a table), ``what``; whether it was put right."""

    where: str
    what: str
    repaired: bool = False


class Unset(msgspec.Struct, frozen=True):
    """The type of ``UNSET``: an argument that was not given, where None is a value."""

    def __bool__(self) -> bool:
        return False


UNSET: Final = Unset()

ROOT: Final = ""
"""As ``parent``: in front of the first message, to begin the conversation anew beside it (an edit of the first one)."""


def user(
    text: str = "", *, id: str | None = None, metadata: Mapping[str, str] | None = None, parts: Sequence[Part] = ()
) -> Message:
    """A message of the user."""
    return _make("user", text, id, metadata, parts)


def assistant(
    text: str = "", *, id: str | None = None, metadata: Mapping[str, str] | None = None, parts: Sequence[Part] = ()
) -> Message:
    """A message of the assistant (with ``tool_call`` parts where it asks for tools)."""
    return _make("assistant", text, id, metadata, parts)


def system(
    text: str = "", *, id: str | None = None, metadata: Mapping[str, str] | None = None, parts: Sequence[Part] = ()
) -> Message:
    """A message of the system: instructions."""
    return _make("system", text, id, metadata, parts)


def tool(
    text: str = "",
    *,
    call_id: str | None = None,
    id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    parts: Sequence[Part] = (),
) -> Message:
    """The result of a tool call; ``call_id`` names the call that it answers."""
    if call_id is not None:
        parts = (*parts, Part(type="tool_result", data={"call_id": call_id, "output": text}))
    return _make("tool", text, id, metadata, parts)


def _make(role: Role, text: str, id: str | None, metadata: Mapping[str, str] | None, parts: Sequence[Part]) -> Message:
    # Values are checked where they are stored (store/validate.py), so that all engines and doors say the same.
    return Message(
        id=ids.message_id() if id is None else id,
        role=role,
        text=text,
        parts=tuple(parts),
        metadata={} if metadata is None else dict(metadata),
    )
