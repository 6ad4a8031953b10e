"""The Store protocol and its capability protocols: all that a third party's engine needs to know.

An engine subclasses ``daram.store.template.Engine`` (which validates and keeps the habits common to all) or implements
``Store`` from nothing; either way it proves itself with ``daram.testing.StoreTests``.

What every operation promises:

* each names the owner; another owner's id behaves exactly like an id that does not exist;
* a change happens as a whole or not at all, is durable when the call returns, raises ``version`` by one and draws a new
  ``etag``; concurrent changes of one conversation are put in an order, never merged or lost;
* a call whose caller is cancelled may still take effect; repeating it with the same ids is harmless.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable

from daram.model import (
    UNSET,
    Answer,
    Appended,
    Conversation,
    Hit,
    LogEntry,
    Message,
    OwnedRecord,
    Page,
    Part,
    Problem,
    Record,
    Status,
    Turn,
    Unset,
)

Order = Literal["asc", "desc"]
PartialText = Callable[[Answer], Awaitable[str | None]]
"""Gives the text that an event log still holds of an answer whose maker died (None: nothing)."""


class Store(ABC):
    """Durable conversations of many owners."""

    # --- conversations ---

    @abstractmethod
    async def create(
        self,
        owner: str,
        *,
        id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
    ) -> Conversation:
        """Make an empty conversation (version 0). Without ``id`` one is drawn.

        Raises ``Conflict`` if it exists. A deleted one may be made again on purpose: it starts empty.
        """

    @abstractmethod
    async def get(self, owner: str, id: str) -> Conversation:
        """The conversation; raises ``NotFound`` (also once it has expired)."""

    @abstractmethod
    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Page[Conversation]:
        """The owner's conversations, the one changed last first, by keyset paging."""

    @abstractmethod
    async def update(
        self,
        owner: str,
        id: str,
        *,
        title: str | Unset | None = UNSET,
        metadata: Mapping[str, str] | Unset = UNSET,
        pinned: bool | Unset = UNSET,
        archived: bool | Unset = UNSET,
        expires_at: datetime | Unset | None = UNSET,
    ) -> Conversation:
        """Change what is given and leave the rest; ``metadata`` is replaced as a whole. Raises ``NotFound``.

        It does not move the conversation in the list: ``updated_at`` is about messages.
        """

    @abstractmethod
    async def delete(self, owner: str, id: str) -> None:
        """Delete the conversation with everything in it, running answers included; raises ``NotFound``.

        For 24 h a tombstone makes ``append(create=True)`` raise ``Gone``; ``create`` with that id still works.
        """

    @abstractmethod
    async def delete_owner(self, owner: str) -> int:
        """Delete everything of one owner, records included; returns the number of conversations deleted."""

    @abstractmethod
    async def purge(self, *, limit: int = 1000) -> int:
        """Delete at most ``limit`` expired conversations and forget old tombstones; returns how many conversations."""

    # --- messages ---

    @abstractmethod
    async def append(
        self,
        owner: str,
        id: str,
        messages: Sequence[Message],
        *,
        parent: str | None = None,
        expect: int | str | None = None,
        create: bool = False,
        window: int = 0,
    ) -> Appended:
        """Append a batch: contiguous, in order, each message the parent of the next.

        ``parent``: the message to follow (default: the head); an earlier one opens a sibling branch, which becomes the
        one in use; ``daram.ROOT`` ("") is in front of the first message (an edit of the first message). ``expect``: the
        version (int) or etag (str) that the conversation must have. ``create``: make the conversation if there is none.
        ``window``: how many messages to return in ``tail``.

        P3: a batch whose ids are all stored, contiguous and equal changes nothing and returns the present version, and
        the tail that ends at the batch (``expect`` is then not looked at: it was met the first time).

        Raises ``NotFound``; ``Gone`` (deleted conversation or message id); ``Conflict`` (``expect`` differs, or an id
        is stored with other content or place); ``InvalidInput``.
        """

    @abstractmethod
    async def tail(self, owner: str, id: str, limit: int = 20) -> builtins.list[Message]:
        """The last ``limit`` messages of the branch in use, oldest first."""

    @abstractmethod
    async def messages(
        self, owner: str, id: str, *, limit: int = 100, cursor: str | None = None, order: Order = "asc"
    ) -> Page[Message]:
        """The messages of the branch in use, paged. A cursor goes on along the branch that it was made on."""

    @abstractmethod
    async def message(self, owner: str, id: str, message_id: str) -> Message:
        """One message of any branch; raises ``NotFound``."""

    @abstractmethod
    async def delete_message(self, owner: str, id: str, message_id: str) -> Conversation:
        """Delete one message; what follows it stays. Raises ``NotFound``. Appending its id again raises ``Gone``.

        Reads step over it: its children keep its id as their ``parent``.
        """

    @abstractmethod
    async def branches(self, owner: str, id: str, message_id: str) -> builtins.list[Message]:
        """The message and its siblings (other messages with the same parent), oldest first."""

    @abstractmethod
    async def use_branch(self, owner: str, id: str, message_id: str) -> Conversation:
        """Make the branch through that message the one in use: the head becomes the leaf last used under it."""

    # --- the answer row ---

    @abstractmethod
    async def begin_turn(
        self,
        owner: str,
        id: str,
        messages: Sequence[Message],
        *,
        answer_id: str | None = None,
        parent: str | None = None,
        expect: int | str | None = None,
        create: bool = False,
        window: int = 0,
        model: str | None = None,
        lease: float = 30.0,
        partial: PartialText | None = None,
    ) -> Turn:
        """Append the user's messages and open the answer row, in one transaction.

        The last message of the batch is the question. With an empty batch ``parent`` names a stored question (default:
        the head), which is answered anew: the answer becomes a sibling of the earlier ones.

        A batch that is stored already is the same turn again: ``running`` if it is being answered, ``finished`` if it
        was (``complete`` or ``cancelled``), else (``failed``, ``incomplete``, or never begun) it is answered anew.
        Repeated with the ``answer_id`` of the running answer (after ``OutcomeUnknown``) it is ``started`` once more:
        the caller who drew that id, before its first try, is the maker.

        Raises ``ConversationBusy`` while another answer is being made on the branch that the batch would follow. An
        answer there whose maker is dead is recovered first (``partial``: see ``recover``). ``lease`` is in seconds.
        """

    @abstractmethod
    async def checkpoint(
        self, owner: str, id: str, answer_id: str, token: str, text: str, *, lease: float = 30.0
    ) -> bool:
        """Store the partial text and renew the lease; returns whether to cancel was asked. Raises ``LeaseLost``."""

    @abstractmethod
    async def finish_turn(
        self,
        owner: str,
        id: str,
        answer_id: str,
        token: str,
        *,
        text: str,
        status: Status = "complete",
        parts: Sequence[Part] = (),
        model: str | None = None,
        tokens: int | None = None,
        usage: Mapping[str, int] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Appended:
        """Append the answer as an assistant message with the id ``answer_id`` and remove the row, in one transaction.

        It goes to the end of the branch on which its question stands (an answer made anew: beside its siblings), and
        becomes the head unless another branch came into use meanwhile. Repeated after an unknown outcome with the same
        content it changes nothing. Raises ``LeaseLost``: nothing was written.
        """

    @abstractmethod
    async def cancel_turn(self, owner: str, id: str, answer_id: str | None = None) -> int:
        """Ask the makers of one or all running answers to stop; returns how many were asked (0: none is running)."""

    @abstractmethod
    async def answers(self, owner: str, id: str) -> builtins.list[Answer]:
        """The running answers of a conversation with their partial texts (no tokens), oldest first."""

    @abstractmethod
    async def recover(
        self,
        *,
        owner: str | None = None,
        id: str | None = None,
        limit: int = 100,
        partial: PartialText | None = None,
    ) -> builtins.list[Message]:
        """Close answers whose maker is dead or whose lease ran out: each becomes a message with status ``incomplete``
        that holds the longer of the last checkpoint and ``partial``; returns those messages.

        Without ``owner`` and ``id`` it sweeps the store. Answers that are alive are left alone; two sweeps at
        once close each answer once.
        """

    # --- search ---

    @abstractmethod
    async def search(
        self,
        owner: str,
        query: str,
        *,
        conversation: str | None = None,
        limit: int = 20,
        any_word: bool = False,
    ) -> builtins.list[Hit]:
        """Lexical search in the owner's messages, or in one conversation; best first. It sees every finished append.

        Messages that have every word of the query; where there is none, those that have any. ``any_word``: those that
        have any in the first place, ranked by how much they have (for a question in natural language). A conversation
        that is not there has no messages: nothing is found, and nothing raised.
        """

    # --- life ---

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted and let go of everything. A second call is harmless."""

    @abstractmethod
    async def describe(self) -> dict[str, str]:
        """What ``daram doctor`` prints: ``engine``, ``location``, ``durability``, ``schema`` and the like."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


@runtime_checkable
class SupportsRecords(Protocol):
    """Small documents beside the messages: what adapters and pages keep (users, feedback, settings).

    Writes are atomic per record and durable on return. ``expect``: the etag that must be stored now, or None for "must
    not exist"; not given: whatever is there. A mismatch raises ``Conflict``.
    """

    async def get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        """The record, or None (also once it has expired)."""

    async def put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        *,
        expect: str | Unset | None = UNSET,
        expires_at: datetime | None = None,
    ) -> Record:
        """Store the record as a whole and return it with its new etag."""

    async def delete_record(self, owner: str, namespace: str, key: str, *, expect: str | Unset = UNSET) -> bool:
        """Delete the record; returns whether it was there."""

    async def scan_records(
        self, owner: str, namespace: str, prefix: str = "", *, limit: int = 100, cursor: str | None = None
    ) -> Page[Record]:
        """The records whose key begins with ``prefix``, by key (code points), paged."""


@runtime_checkable
class SupportsTransfer(Protocol):
    """For administration: reading everything of everybody, and writing conversations exactly as they were elsewhere.

    Nothing here asks whose something is; no door that a user can reach may offer it. What has expired is not there;
    answers that are being made are not part of it.
    """

    async def scan(self, *, limit: int = 100, cursor: str | None = None) -> Page[Conversation]:
        """The conversations of all owners. A page may hold fewer than ``limit``; only the last has no cursor.

        One that is there from the first page to the last is found at least once; the order is the engine's own.
        """

    async def log(self, owner: str, id: str, *, after: int = 0, limit: int = 100) -> list[LogEntry]:
        """The messages with a ``seq`` above ``after`` in the order of their making: all branches, tombstones included.

        At most ``limit``; fewer where they are large, none only at the end. Raises ``NotFound``.
        """

    async def leaves(self, owner: str, id: str) -> list[int]:
        """The ends of all branches by ``seq``, the one last used first: that is the head. Raises ``NotFound``."""

    async def load(
        self,
        conversation: Conversation,
        entries: Sequence[LogEntry],
        *,
        leaves: Sequence[int] = (),
        expect: str | None = None,
        more: bool = False,
    ) -> Conversation:
        """Write a conversation as it was elsewhere, but with a new etag; returns it.

        A long one comes in several calls, all but the last with ``more``: it is invisible until then, and what was
        begun and never ended goes with the next ``load`` or ``purge``. The first call (no entries, or from ``seq`` 1)
        replaces the conversation that has the etag ``expect`` (None: there must be none); the following ones name the
        etag that the one before returned. ``leaves``, for the last call: as ``leaves`` gave them (``head`` is then the
        first of them). Parents go by ``LogEntry.parent``.

        Raises ``Conflict`` where ``expect`` is not what is there; ``InvalidInput``.
        """

    async def scan_all_records(self, *, limit: int = 100, cursor: str | None = None) -> Page[OwnedRecord]:
        """The records of all owners, like ``scan``."""


@runtime_checkable
class SupportsCheck(Protocol):
    """An engine that can look through its own tables and indexes (``daram check``)."""

    async def check(self, *, repair: bool = False) -> list[Problem]:
        """What is wrong beneath the conversations: damage, rows that belong to nothing, an index that differs.

        ``repair``: put right what can be without a guess (``Problem.repaired``).
        """


@runtime_checkable
class SupportsMigrations(Protocol):
    """An engine whose schema is numbered (``daram migrate``)."""

    async def schema_versions(self) -> tuple[int, int]:
        """The number that the data has (0: nothing there yet) and the newest that this Daram knows; changes nothing.

        Opening the store migrates it. Raises ``SchemaTooNew``, ``StoreCorrupt``, ``StoreUnavailable``.
        """


@runtime_checkable
class SupportsPostSteps(Protocol):
    """An engine that several releases use at once while one takes the place of the other (``daram migrate --post``).

    Opening the store applies the steps that only add; those that take away what an older release needs wait for this.
    """

    async def post_steps(self) -> list[int]:
        """The numbers of the steps that opening the store leaves out; changes nothing.

        Raises as ``schema_versions`` does.
        """

    async def migrate(self) -> list[int]:
        """Apply all steps that are missing, those too; returns their numbers. Older releases cannot go on after it.

        Raises as ``schema_versions`` does, and ``StoreReadOnly`` where the user may not.
        """


@runtime_checkable
class SupportsBackup(Protocol):
    """An engine that keeps its data in one file of its own (``daram backup``, ``daram restore``)."""

    async def backup(self, path: str) -> None:
        """Write what is stored at this moment into a new file, readable by its owner only, while others write.

        Raises ``StoreUnavailable`` where ``path`` exists or cannot be written.
        """

    async def restore(self, path: str) -> int:
        """Replace all that is stored by a backup, in one transaction, with a new etag for every conversation.

        Returns how many conversations it holds. Raises ``StoreCorrupt``, ``SchemaTooNew``: nothing was changed then.
        """
