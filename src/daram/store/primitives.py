"""What an engine fills in, and the clean values that it gets: the inner side of ``daram.store.template``."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from datetime import datetime

import msgspec

from daram.model import UNSET, Answer, Appended, Conversation, Hit, Message, Turn, Unset
from daram.store.base import Order

TOMBSTONE_SECONDS = 24 * 3600


class Ref(msgspec.Struct, frozen=True):
    """A conversation by its owner, its public id and the key that both give."""

    owner: str
    id: str
    key: bytes


class AppendSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A validated append; ``parent`` is None for the head and ROOT for none."""

    messages: list[Message]
    parent: str | None
    expect: int | str | None
    create: bool
    window: int


class AnswerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The answer row to open: ``id`` of the answer, lease in seconds, model's name."""

    id: str
    lease: float
    model: str | None


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """A validated update; UNSET leaves a field alone."""

    title: str | Unset | None = UNSET
    metadata: dict[str, str] | Unset = UNSET
    pinned: bool | Unset = UNSET
    archived: bool | Unset = UNSET
    expires_at: datetime | Unset | None = UNSET


class Primitives(ABC):
    """The underscored methods of an engine. Names are checked, numbers in range, messages fit to be stored."""

    @abstractmethod
    async def _set_up(self) -> None:
        """Open and migrate; called before the first operation, once by each event loop that begins with it."""

    @abstractmethod
    async def _tear_down(self) -> None:
        """Close; called once."""

    @abstractmethod
    async def _create(
        self, ref: Ref, title: str | None, metadata: dict[str, str], expires_at: datetime | None
    ) -> Conversation: ...

    @abstractmethod
    async def _get(self, ref: Ref) -> Conversation: ...

    @abstractmethod
    async def _list(self, owner: str, limit: int, before: tuple[int, bytes] | None) -> builtins.list[Conversation]:
        """By (updated_at in µs, conversation key) descending, those below ``before``."""

    @abstractmethod
    async def _update(self, ref: Ref, changes: Changes) -> Conversation: ...

    @abstractmethod
    async def _delete(self, ref: Ref) -> None: ...

    @abstractmethod
    async def _delete_owner(self, owner: str) -> int: ...

    @abstractmethod
    async def _purge(self, limit: int) -> int: ...

    @abstractmethod
    async def _append(self, ref: Ref, spec: AppendSpec) -> Appended: ...

    @abstractmethod
    async def _tail(self, ref: Ref, limit: int) -> builtins.list[Message]: ...

    @abstractmethod
    async def _messages(
        self, ref: Ref, limit: int, order: Order, after: tuple[int, int] | None
    ) -> tuple[builtins.list[Message], int]:
        """At most ``limit`` messages of the branch in use behind ``after`` = (seq, leaf), and the leaf of that branch.

        ``asc``: where ``seq`` is on the path to the present head, that path; else the path to the cursor's leaf.
        ``desc``: from the parent of ``seq`` towards the root.
        """

    @abstractmethod
    async def _message(self, ref: Ref, message_id: str) -> Message: ...

    @abstractmethod
    async def _delete_message(self, ref: Ref, message_id: str) -> Conversation: ...

    @abstractmethod
    async def _branches(self, ref: Ref, message_id: str) -> builtins.list[Message]: ...

    @abstractmethod
    async def _use_branch(self, ref: Ref, message_id: str) -> Conversation: ...

    @abstractmethod
    async def _begin_turn(self, ref: Ref, spec: AppendSpec, answer: AnswerSpec) -> Turn: ...

    @abstractmethod
    async def _checkpoint(self, ref: Ref, answer_id: str, token: str, text: str, lease: float) -> bool: ...

    @abstractmethod
    async def _finish_turn(self, ref: Ref, token: str, message: Message) -> Appended: ...

    @abstractmethod
    async def _cancel_turn(self, ref: Ref, answer_id: str | None) -> int: ...

    @abstractmethod
    async def _answers(self, ref: Ref) -> builtins.list[Answer]: ...

    @abstractmethod
    async def _claim_dead(self, ref: Ref | None, limit: int, lease: float) -> builtins.list[Answer]:
        """Take over answers whose maker is dead or late: a new token (returned) and a lease of ``lease`` seconds."""

    @abstractmethod
    async def _search(
        self, owner: str, query: str, conversation: Ref | None, limit: int, any_word: bool
    ) -> builtins.list[Hit]: ...
