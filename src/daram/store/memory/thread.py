"""One conversation in plain dictionaries: what the in-memory engine keeps of it, the rules of branches and turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice, pairwise
from typing import TypeVar

import msgspec

from daram import ids
from daram.errors import ConversationBusy, Gone, NotFound
from daram.model import ROOT, Answer, Appended, Conversation, Message
from daram.store import conflicts
from daram.store.primitives import AppendSpec

_Value = TypeVar("_Value", bound=msgspec.Struct)


def own(value: _Value) -> _Value:
    """A deep copy: nobody outside holds a dictionary that is stored here."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))


class Row(msgspec.Struct, kw_only=True):
    """An answer row. ``anew``: its question had children when it began, so it is to stand beside them."""

    answer: Answer
    anew: bool

    def public(self) -> Answer:
        return msgspec.structs.replace(self.answer, token="")  # for whoever does not hold it

    def late(self, now: datetime) -> bool:
        return self.answer.lease_until <= now


class Thread:
    """A tree of messages of which one branch is in use, and the answers that are being made in it."""

    def __init__(self, value: Conversation) -> None:
        self.value = value
        self.messages: dict[str, Message] = {}  # in commit order; a deleted one is there without content
        self.deleted: set[str] = set()
        self.used: dict[str, int] = {}  # when a message was last the head (or grew from one that was): a counter
        self.rows: dict[str, Row] = {}
        self.question_of: dict[str, str] = {}  # of each answer that a turn made

    # --- the tree ---

    def up(self, start: str | None) -> Iterator[Message]:
        """From ``start`` to the root, the deleted included."""
        while start is not None:
            yield self.messages[start]
            start = self.messages[start].parent

    def living(self, found: Iterable[Message]) -> Iterator[Message]:
        return (m for m in found if m.id not in self.deleted)

    def last(self, limit: int, leaf: str | None) -> list[Message]:
        """The last ``limit`` living messages of the branch that ends at ``leaf``, oldest first."""
        return [own(m) for m in islice(self.living(self.up(leaf)), limit)][::-1]

    def on_branch(self, message_id: str, leaf: str | None) -> bool:
        """Whether the message is ``leaf`` or stands above it."""
        return any(m.id == message_id for m in self.up(leaf))

    def children(self, message_id: str | None) -> list[Message]:
        return [m for m in self.messages.values() if m.parent == message_id]

    def leaf_under(self, message_id: str) -> str:
        """The leaf last used at or under that message."""
        inner = {m.parent for m in self.messages.values()}
        leaves = [m for m in self.messages.values() if m.id not in inner and self.on_branch(message_id, m.id)]
        return max(leaves, key=lambda m: (self.used[m.id], m.seq)).id

    def find(self, message_id: str) -> Message:
        if message_id not in self.messages or message_id in self.deleted:
            raise NotFound("message", message_id)
        return self.messages[message_id]

    def answer_to(self, question: str) -> Message | None:
        """The newest answer to the question that came to its end, be it that a turn made it or that it was appended."""
        for m in reversed(self.messages.values()):
            answers = self.question_of.get(m.id, m.parent if m.role == "assistant" else None) == question
            if answers and m.status in ("complete", "cancelled") and m.id not in self.deleted:
                return m
        return None

    # --- what must hold before a change ---

    def repeated(self, spec: AppendSpec) -> list[Message] | None:
        """P3: the batch as stored if it is a repetition, None if it is new; raises where an id means something else."""
        for m in spec.messages:
            if m.id in self.deleted:
                raise Gone("message", m.id)
        taken = [m.id for m in spec.messages if m.id in self.messages or m.id in self.rows]
        if not taken:
            return None
        stored = [self.messages[m.id] for m in spec.messages if m.id in self.messages]
        if (
            len(stored) == len(spec.messages)
            and all(
                old.same_content(new) and new.created_at in (None, old.created_at)
                for old, new in zip(stored, spec.messages, strict=True)
            )
            and all(b.seq == a.seq + 1 and b.parent == a.id for a, b in pairwise(stored))
            and (spec.parent is None or (spec.parent or None) == stored[0].parent)
        ):
            return stored
        raise conflicts.id_is_taken(taken[0])

    def place(self, spec: AppendSpec) -> str | None:
        """The id of the message that a new batch follows; raises unless everything is as the caller believes."""
        have = self.value.version if isinstance(spec.expect, int) else self.value.etag
        if spec.expect not in (None, have):
            raise conflicts.not_as_expected(self.value.id, have, spec.expect)
        if spec.parent is None:
            return self.value.head
        if spec.parent == ROOT:
            return None
        if spec.parent in self.deleted:
            raise Gone("message", spec.parent)
        return self.find(spec.parent).id

    def refuse_while_busy(self, place: str | None, now: datetime) -> None:
        """One running answer per branch: none may be under way on the way from the root to ``place``."""
        above = {m.id for m in self.up(place)}
        for row in self.rows.values():
            if row.answer.question in above:
                raise ConversationBusy(row.answer.id, dead=row.late(now))

    def refuse_answer_id(self, answer_id: str) -> None:
        if answer_id in self.deleted:
            raise Gone("message", answer_id)
        if answer_id in self.messages or answer_id in self.rows:
            raise conflicts.answer_id_is_taken(answer_id)

    # --- changes ---

    def change(self, **fields: object) -> Conversation:
        """Every change raises the version by one and draws a new etag."""
        fields |= {"version": self.value.version + 1, "etag": ids.etag()}
        self.value = msgspec.structs.replace(self.value, **fields)
        return own(self.value)

    def use(self, leaf: str) -> None:
        self.used[leaf] = max(self.used.values(), default=0) + 1

    def add(self, batch: list[Message], parent: str | None, now: datetime, *, head: bool, window: int) -> Appended:
        """Add the batch behind ``parent``; ``head``: this branch is the one in use from now on."""
        previous, first = self.value.etag, parent
        # A leaf that grows stays as recently used as it was.
        used = self.used[parent] if parent is not None and not self.children(parent) else 0
        stored = []
        for m in batch:
            seq = len(self.messages) + 1
            self.messages[m.id] = own(
                msgspec.structs.replace(m, seq=seq, parent=parent, created_at=m.created_at or now)
            )
            self.used[m.id] = used
            stored.append(self.messages[m.id])
            parent = m.id
        if head:
            self.use(batch[-1].id)
            self.change(last_seq=len(self.messages), updated_at=now, head=batch[-1].id)
        else:
            self.change(last_seq=len(self.messages), updated_at=now)
        return self._appended(stored, first, batch[-1].id, window, previous)

    def unchanged(self, stored: list[Message], parent: str | None, leaf: str, window: int) -> Appended:
        """What a repetition finds."""
        return self._appended(stored, parent, leaf, window, self.value.etag)

    def _appended(self, stored: list[Message], parent: str | None, leaf: str, window: int, previous: str) -> Appended:
        return Appended(
            conversation=self.value.id,
            version=self.value.version,
            etag=self.value.etag,
            previous_etag=previous,
            parent=parent,
            messages=[own(m) for m in stored],
            tail=self.last(window, leaf),
        )
