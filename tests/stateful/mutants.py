"""Engines that are wrong in one place each: what the tests of stores must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from daram.model import Message
from daram.store.memory import MemoryStore
from daram.store.memory.thread import Row, Thread
from daram.store.primitives import AppendSpec

Mutant = Callable[[pytest.MonkeyPatch], None]


def newest_leaf(patch: pytest.MonkeyPatch) -> None:
    """use_branch goes to the newest leaf, not to the one last used."""

    def leaf_under(self: Thread, message_id: str) -> str:
        inner = {m.parent for m in self.messages.values()}
        return [m.id for m in self.messages.values() if m.id not in inner and self.on_branch(message_id, m.id)][-1]

    patch.setattr(Thread, "leaf_under", leaf_under)


def repetition_anywhere(patch: pytest.MonkeyPatch) -> None:
    """A batch is taken for a repetition wherever its messages stand."""

    def repeated(self: Thread, spec: AppendSpec) -> list[Message] | None:
        stored = [self.messages[m.id] for m in spec.messages if m.id in self.messages and m.id not in self.deleted]
        return stored if len(stored) == len(spec.messages) else None if not stored else real(self, spec)

    real = Thread.repeated
    patch.setattr(Thread, "repeated", repeated)


def every_answer_becomes_head(patch: pytest.MonkeyPatch) -> None:
    """A finished answer takes the head away from the branch in use."""
    real = Thread.add
    patch.setattr(Thread, "add", lambda self, *args, head, **rest: real(self, *args, head=True, **rest))


def the_deleted_is_shown(patch: pytest.MonkeyPatch) -> None:
    """Reads do not step over deleted messages."""
    patch.setattr(Thread, "living", lambda self, found: iter(found))


def busy_only_at_the_question(patch: pytest.MonkeyPatch) -> None:
    """A running answer further up does not hold up the next turn."""
    real = Thread.refuse_while_busy

    def refuse(self: Thread, place: str | None, now: datetime) -> None:
        if any(row.answer.question == place for row in self.rows.values()):
            real(self, place, now)

    patch.setattr(Thread, "refuse_while_busy", refuse)


def no_fencing(patch: pytest.MonkeyPatch) -> None:
    """A renewed lease is not needed: whoever has once begun may write for ever."""
    patch.setattr(Row, "late", lambda self, now: False)


def recovery_twice(patch: pytest.MonkeyPatch) -> None:
    """Recovery takes the answers of the living too."""
    real = MemoryStore._claim_dead

    async def claim(self: MemoryStore, *args: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Row, "late", lambda row, now: True)
            return await real(self, *args)

    patch.setattr(MemoryStore, "_claim_dead", claim)


def no_tombstone(patch: pytest.MonkeyPatch) -> None:
    """A late append brings a deleted conversation back."""
    patch.setattr(MemoryStore, "_buried", lambda self, key: False)


def etag_from_the_version(patch: pytest.MonkeyPatch) -> None:
    """Two changes from the same version give the same etag."""
    real = Thread.change

    def change(self: Thread, **fields: object) -> object:
        real(self, **fields)
        self.value = msgspec.structs.replace(self.value, etag=f"{self.value.version // 2:016}")
        return self.value

    patch.setattr(Thread, "change", change)


def version_stands_still(patch: pytest.MonkeyPatch) -> None:
    """use_branch is not a change."""
    real = MemoryStore._use_branch

    async def use_branch(self: MemoryStore, *args: Any) -> Any:
        done = await real(self, *args)
        thread = self._thread(args[0])
        thread.value = msgspec.structs.replace(thread.value, version=thread.value.version - 1)
        return msgspec.structs.replace(done, version=done.version - 1)

    patch.setattr(MemoryStore, "_use_branch", use_branch)


def search_of_everybody(patch: pytest.MonkeyPatch) -> None:
    """Search finds what others wrote."""
    real = MemoryStore._search

    async def search(self: MemoryStore, owner: str, *rest: Any) -> Any:
        found = [await real(self, o, *rest) for o in {t.value.owner for t in self.data.threads.values()}]
        return [hit for part in found for hit in part]

    patch.setattr(MemoryStore, "_search", search)


def answers_are_children(patch: pytest.MonkeyPatch) -> None:
    """A finished answer is found only right behind its question."""

    def answer_to(self: Thread, question: str) -> Message | None:
        for m in reversed(self.children(question)):
            if m.role == "assistant" and m.status in ("complete", "cancelled") and m.id not in self.deleted:
                return m
        return None

    patch.setattr(Thread, "answer_to", answer_to)


def anew_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """An answer made anew goes to the end of the branch, not beside the earlier ones."""
    real = MemoryStore._begin_turn

    async def begin(self: MemoryStore, *args: Any) -> Any:
        turn = await real(self, *args)
        for row in self._thread(args[0]).rows.values():
            row.anew = False
        return turn

    patch.setattr(MemoryStore, "_begin_turn", begin)


def order_by_title_changes(patch: pytest.MonkeyPatch) -> None:
    """An update moves the conversation in the list."""
    real = MemoryStore._update

    async def update(self: MemoryStore, *args: Any) -> Any:
        await real(self, *args)
        thread = self._thread(args[0])
        thread.value = msgspec.structs.replace(thread.value, updated_at=self._moment())
        return thread.value

    patch.setattr(MemoryStore, "_update", update)


def pages_skip_one(patch: pytest.MonkeyPatch) -> None:
    """The first message behind a cursor is lost."""
    real = MemoryStore._messages

    async def messages(self: MemoryStore, ref: Any, limit: int, order: Any, after: Any) -> Any:
        found, leaf = await real(self, ref, limit + 1, order, after)
        return (found[1:] if after else found[:limit]), leaf

    patch.setattr(MemoryStore, "_messages", messages)


def cursors_follow_the_head(patch: pytest.MonkeyPatch) -> None:
    """A cursor jumps to whatever branch is in use."""
    real = MemoryStore._messages

    async def messages(self: MemoryStore, ref: Any, limit: int, order: Any, after: Any) -> Any:
        head = self._thread(ref).value.head
        leaf = 0 if head is None else self._thread(ref).messages[head].seq
        return await real(self, ref, limit, order, after and (after[0], leaf))

    patch.setattr(MemoryStore, "_messages", messages)


def purge_forgets_nothing(patch: pytest.MonkeyPatch) -> None:
    """What has expired comes back when its conversation is made again."""
    real = MemoryStore._create

    async def create(self: MemoryStore, ref: Any, *rest: Any) -> Any:
        old = self.data.threads.get(ref.key)
        done = await real(self, ref, *rest)
        if old is not None:
            self.data.threads[ref.key].messages = old.messages
        return done

    patch.setattr(MemoryStore, "_create", create)


def cancel_reaches_everybody(patch: pytest.MonkeyPatch) -> None:
    """Cancelling one answer cancels all."""
    real = MemoryStore._cancel_turn

    async def cancel(self: MemoryStore, ref: Any, answer_id: str | None) -> int:
        return await real(self, ref, None)

    patch.setattr(MemoryStore, "_cancel_turn", cancel)


def expectation_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """``expect`` is not looked at."""
    real = Thread.place
    patch.setattr(Thread, "place", lambda self, spec: real(self, msgspec.structs.replace(spec, expect=None)))


def _mutants() -> Iterator[Mutant]:
    for value in list(globals().values()):
        if callable(value) and getattr(value, "__module__", "") == __name__ and not value.__name__.startswith("_"):
            yield value


MUTANTS = list(_mutants())
