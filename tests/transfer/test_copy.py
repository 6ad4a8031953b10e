"""``copy``: everything arrives, again and again, while both sides are in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.transfer.house import contents, furnish

import daram
from daram.errors import NotFound, OutcomeUnknown, StoreCorrupt, StoreUnavailable
from daram.memory import Memory
from daram.model import Conversation, LogEntry, Message
from daram.store.memory import MemoryStore
from daram.store.sqlite.engine import SqliteStore
from daram.store.validate import Limits
from daram.store.wrapper import StoreWrapper
from daram.testing import FaultyStore
from daram.testing.faulty import Fault
from daram.testing.suite.base import SHORT, begin, expire, say
from daram.transfer.copy import copy


def memory() -> Memory:
    return Memory(MemoryStore(), "memory://")


@pytest.fixture
async def old(tmp_path: Path) -> Any:
    async with Memory(SqliteStore(tmp_path / "old.db"), "") as store:
        await furnish(store)
        yield store


@pytest.fixture
async def new() -> Any:
    async with memory() as store:
        yield store


async def test_everything_arrives_as_it_was(old: Memory, new: Memory) -> None:
    report = await copy(old, new)
    assert report.complete
    assert (report.new, report.conversations, report.messages, report.records) == (4, 4, 262, 2)
    assert await contents(new) == await contents(old)
    assert {value[0].id for key, value in (await contents(new)).items() if "//" not in key} == {"c", "empty", "long"}


async def test_the_way_back_too(old: Memory, new: Memory, tmp_path: Path) -> None:
    await copy(old, new)
    async with daram.open(f"sqlite:///{tmp_path}/back.db") as back:
        assert (await copy(new, back)).complete
        assert await contents(back) == await contents(old)
        assert [hit.id for hit in await back.search("ann", "meanwhile")] == ["meanwhile"]


async def test_running_it_again_writes_nothing(old: Memory, new: Memory) -> None:
    await copy(old, new)
    faulty = FaultyStore(new.inner)
    again = await copy(old, Memory(faulty, ""))
    assert (again.new, again.replaced, again.equal, again.records_written) == (0, 0, 4, 0)
    assert not {"load", "put_record", "append"} & set(faulty.calls)


@pytest.mark.parametrize("at", range(6))
async def test_an_interrupted_copy_is_run_again(old: Memory, new: Memory, at: int) -> None:
    faulty = FaultyStore(new.inner)
    faulty.plan("load", *[None] * at, Fault(kind="raise" if at % 2 else "act then raise"))
    with pytest.raises((StoreUnavailable, OutcomeUnknown)):
        await copy(old, Memory(faulty, ""))
    assert (await copy(old, new)).complete
    assert await contents(new) == await contents(old)


async def test_what_the_source_changed_is_brought_up_to_date(old: Memory, new: Memory) -> None:
    await copy(old, new)
    await old.delete_message("ben", "long", "m7")
    await say(old, "later", id="long", owner="ben")
    await old.update("ann", "c", title="another")
    report = await copy(old, new)
    assert (report.complete, report.replaced, report.equal) == (True, 2, 2)
    assert await contents(new) == await contents(old)
    with pytest.raises(NotFound):
        await new.message("ben", "long", "m7")


async def test_what_the_target_changed_is_left_alone_and_named(old: Memory, new: Memory) -> None:
    await copy(old, new)
    await say(new, "said at the target", id="long", owner="ben")
    await say(old, "said at the source", id="long", owner="ben")
    await new.put_record("ann", "users", "k", b"theirs")
    report = await copy(old, new)
    assert not report.complete
    assert report.kept == [("ben", "long")]
    assert report.records_kept == [("ann", "users", "k")]
    assert (await new.tail("ben", "long", 1))[0].text == "said at the target"
    assert (await copy(old, new, replace=True)).complete
    assert await contents(new) == await contents(old)


async def test_what_only_the_target_has_is_named(old: Memory, new: Memory) -> None:
    await copy(old, new)
    await old.delete("ann", "c")
    report = await copy(old, new)
    assert report.complete
    assert report.extra == [("ann", "c")]


class Written(StoreWrapper):
    """A source that is written to while it is read."""

    def __init__(self, inner: Memory, times: int) -> None:
        super().__init__(inner)
        self.times = times

    async def log(self, owner: str, id: str, *, after: int = 0, limit: int = 100) -> list[LogEntry]:
        found = await super().log(owner, id, after=after, limit=limit)
        if id == "long" and self.times:
            self.times -= 1
            await say(self.inner, f"late {self.times}", id=id, owner=owner)
        return found


async def test_what_is_written_meanwhile_is_copied_too(old: Memory, new: Memory) -> None:
    report = await copy(Memory(Written(old, 4), ""), new)
    assert report.complete
    assert report.passes > 1
    assert await contents(new) == await contents(old)


async def test_a_conversation_that_never_holds_still_is_named(old: Memory, new: Memory) -> None:
    report = await copy(Memory(Written(old, 10_000), ""), new)
    assert not report.complete
    assert report.changing == [("ben", "long")]
    with pytest.raises(NotFound):
        await new.get("ben", "long")


async def test_answers_of_dead_processes_come_along_and_running_ones_are_told(old: Memory, new: Memory) -> None:
    dead = await begin(old, "dead", id="d", lease=SHORT)
    await old.checkpoint("ann", "d", dead.id, dead.token, "half of", lease=SHORT)
    await expire()
    await begin(old, "running", id="r")
    report = await copy(old, new)
    assert report.running == 1
    answer = await new.message("ann", "d", dead.id)
    assert (answer.text, answer.status) == ("half of", "incomplete")
    assert [m.id for m in await new.tail("ann", "r")] == ["running"]


class Garbling(StoreWrapper):
    """A target that keeps something else than it was given."""

    async def load(self, conversation: Conversation, entries: Any, **rest: Any) -> Conversation:
        bad = [
            LogEntry(message=_garbled(e.message), parent=e.parent, question=e.question, deleted=e.deleted)
            for e in entries
        ]
        return await super().load(conversation, bad, **rest)


def _garbled(message: Message) -> Message:
    import msgspec

    return msgspec.structs.replace(message, text="garbled") if message.id == "m9" else message


async def test_what_is_read_back_wrong_is_noticed(old: Memory, new: Memory) -> None:
    with pytest.raises(StoreCorrupt, match="long"):
        await copy(old, Memory(Garbling(new), ""))


async def test_what_the_target_does_not_allow_is_named(old: Memory) -> None:
    async with Memory(MemoryStore(limits=Limits(title_chars=2)), "") as small:
        report = await copy(old, small)
    assert [(owner, id) for owner, id, _ in report.failed] == [("ann", "c")]
    assert not report.complete


async def test_a_record_that_the_target_does_not_allow_is_named_and_the_rest_comes(old: Memory) -> None:
    async with Memory(MemoryStore(limits=Limits(record_bytes=1)), "") as small:
        report = await copy(old, small)
        assert [(owner, name) for owner, name, _ in report.failed] == [("ann", "users/k")]
        assert await small.get_record("ben", "n", "late") is not None


class Rewriting(StoreWrapper):
    """A target whose record is written by somebody between the look at it and the copy of it."""

    async def get_record(self, owner: str, namespace: str, key: str) -> Any:
        found = await super().get_record(owner, namespace, key)
        if owner == "ann" and (found is None or found.value == b"theirs"):
            await self.inner.put_record(owner, namespace, key, b"theirs" if found is None else b"again")
        return found


@pytest.mark.parametrize("replace", [False, True])
async def test_a_record_that_is_written_meanwhile_is_looked_at_again(old: Memory, new: Memory, replace: bool) -> None:
    report = await copy(old, Memory(Rewriting(new.inner), ""), replace=replace)
    assert report.complete == replace
    assert report.records_kept == ([] if replace else [("ann", "users", "k")])
    found = await new.get_record("ann", "users", "k")
    assert found is not None
    assert found.value == (b"\x00\xff" if replace else b"again")


class Vanishing(StoreWrapper):
    """A source whose conversation is deleted while it is compared with what the target has."""

    async def log(self, owner: str, id: str, *, after: int = 0, limit: int = 100) -> list[LogEntry]:
        if id == "long":
            await self.inner.delete(owner, id)
        return await super().log(owner, id, after=after, limit=limit)


async def test_what_is_deleted_at_the_source_while_it_is_compared_is_gone(old: Memory, new: Memory) -> None:
    await copy(old, new)
    report = await copy(Memory(Vanishing(old.inner), ""), new)
    assert report.kept == []
    assert report.gone == 1


async def test_an_engine_that_is_down_ends_it(old: Memory, new: Memory) -> None:
    faulty = FaultyStore(new.inner)
    faulty.always("load", Fault(kind="raise"))
    with pytest.raises(StoreUnavailable):
        await copy(old, Memory(faulty, ""))
