"""P1 through a power cut: what was acknowledged is on the disk, whatever the disk did with what was not synced.

Several tasks work on one store at once, each on a conversation of its own; after each of its operations a task notes
the state of its conversation. On every disk that a power cut could have left, each conversation must be in the state
of its last acknowledged operation, or in that of the one that was under way: nothing lost, twice, or by halves.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
from tests.faults.checks import check_file

import daram
from daram.store.sqlite.engine import SqliteStore, Synchronous
from daram.testing.power import Cut, Disk, Style

OWNER = "누구"
State = Any
_numbers = count()


class Ledger:
    """The states of each conversation after each operation; ``disk`` is told when one was acknowledged."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.states: dict[str, list[State]] = {}

    async def done(self, store: SqliteStore, name: str) -> None:
        states = self.states.setdefault(name, [None])
        self.disk.mark((name, len(states)))
        states.append(await state(store, name))


async def state(store: SqliteStore, name: str) -> State:
    """All that an owner can see of a conversation (or of the records, under the name "records")."""
    if name == "records":
        return (await store.scan_records(OWNER, "kept")).items or None
    try:
        conversation = await store.get(OWNER, name)
    except daram.NotFound:
        return None
    return (
        conversation,
        (await store.messages(OWNER, name, limit=1000)).items,
        await store.answers(OWNER, name),
        await store.branches(OWNER, name, conversation.head) if conversation.head else None,
    )


# --- the work -------------------------------------------------------------------------------------------------------


async def append(store: SqliteStore, ledger: Ledger, rounds: int) -> None:
    for i in range(rounds):
        batch = [daram.user(f"question {i} 다람쥐", metadata={"n": str(i)}), daram.assistant("word " * (i * 37 % 400))]
        if i % 5 == 4:
            batch.append(daram.tool("x" * 20_000, call_id="call"))  # more than a page: overflow pages
        await store.append(OWNER, "append", batch, create=True, window=5)
        await ledger.done(store, "append")


async def answer(store: SqliteStore, ledger: Ledger, rounds: int) -> None:
    for i in range(rounds):
        turn = await store.begin_turn(OWNER, "answer", [daram.user(f"riddle {i}")], create=True, window=5)
        await ledger.done(store, "answer")
        assert turn.answer is not None
        text = ""
        for n in range(3):
            text += f"piece {n} of answer {i}. "
            await store.checkpoint(OWNER, "answer", turn.answer.id, turn.answer.token, text)
            await ledger.done(store, "answer")
        status = "complete" if i % 3 else "cancelled"
        await store.finish_turn(OWNER, "answer", turn.answer.id, turn.answer.token, text=text, status=status)
        await ledger.done(store, "answer")


async def delete(store: SqliteStore, ledger: Ledger, rounds: int) -> None:
    for i in range(rounds):
        await store.create(OWNER, id="delete", title=f"round {i}")
        await ledger.done(store, "delete")
        done = await store.append(OWNER, "delete", [daram.user(f"message {n} in round {i}") for n in range(8)])
        await ledger.done(store, "delete")
        await store.search(OWNER, "message")  # so that there is something in the index to delete
        await store.delete_message(OWNER, "delete", done.messages[i % 8].id)
        await ledger.done(store, "delete")
        await store.update(OWNER, "delete", title="renamed", pinned=True, metadata={"a": "b"})
        await ledger.done(store, "delete")
        await store.delete(OWNER, "delete")
        await ledger.done(store, "delete")


async def branch(store: SqliteStore, ledger: Ledger, rounds: int) -> None:
    first = (await store.append(OWNER, "branch", [daram.user("first")], create=True)).messages[0]
    await ledger.done(store, "branch")
    for i in range(rounds):
        done = await store.append(OWNER, "branch", [daram.user(f"edit {i}"), daram.assistant("so")], parent=first.id)
        await ledger.done(store, "branch")
        if i % 3 == 2:
            await store.use_branch(OWNER, "branch", (await store.tail(OWNER, "branch", 2))[0].id)
            await ledger.done(store, "branch")
        if i % 2:
            first = done.messages[0]


async def keep(store: SqliteStore, ledger: Ledger, rounds: int) -> None:
    for i in range(rounds):
        await store.put_record(OWNER, "kept", f"key {i % 4}", bytes(i * 100), expires_at=_later(i))
        await ledger.done(store, "records")
        if i % 4 == 3:
            await store.delete_record(OWNER, "kept", f"key {i % 3}")
            await ledger.done(store, "records")


def _later(days: int) -> datetime:
    return datetime(2100, 1, 1, tzinfo=UTC) + timedelta(days=days)


async def checkpoint(store: SqliteStore, path: Path, disk: Disk, rounds: int) -> None:
    """Bring the log into the database now and then, as a log of 8 MB would, so that its beginning is written anew."""
    for i in range(rounds):
        await asyncio.sleep(0.02)
        other = apsw.Connection(str(path), vfs=disk.name)
        other.set_busy_timeout(10_000)
        mode = (apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_RESTART, apsw.SQLITE_CHECKPOINT_TRUNCATE)[i % 3]
        await asyncio.to_thread(_checkpoint, other, mode)
        await asyncio.to_thread(other.close)


def _checkpoint(connection: apsw.Connection, mode: int) -> None:
    try:
        connection.wal_checkpoint(mode=mode)
    except apsw.BusyError:
        pass  # a reader stood in the way


async def work(path: Path, disk: Disk, synchronous: Synchronous, rounds: int) -> Ledger:
    ledger = Ledger(disk)
    async with SqliteStore(path, vfs=disk.name, synchronous=synchronous) as store:
        tasks: list[Awaitable[None]] = [task(store, ledger, rounds) for task in (append, answer, delete, branch, keep)]
        await asyncio.gather(*tasks, checkpoint(store, path, disk, rounds))
    return ledger


@pytest.fixture
def disks() -> Iterator[Callable[..., Disk]]:
    made: list[Disk] = []

    def make(**options: Any) -> Disk:
        made.append(Disk(f"power{next(_numbers)}", **options))
        return made[-1]

    yield make
    for disk in made:
        disk.unregister()


# --- the proof ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def rebooted(cut: Cut, place: Path) -> AsyncIterator[SqliteStore]:
    """A store on the disk that the power cut left, on the ordinary VFS."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    cut.write_to(place)
    async with SqliteStore(place / "daram.db") as store:
        yield store


async def losses(cut: Cut, ledger: Ledger, place: Path) -> list[str]:
    """What is wrong on that disk: conversations that are not in the state that was acknowledged, or the one after."""
    wrong = []
    acknowledged = dict.fromkeys(ledger.states, 0)
    for name, number in cut.marks:
        acknowledged[name] = number
    async with rebooted(cut, place) as store:
        for name, number in acknowledged.items():
            found = await state(store, name)
            if found not in ledger.states[name][number : number + 2]:
                wrong.append(f"cut at {cut.position} ({cut.style}): {name} is not as after operation {number}: {found}")
        for name in ("append", "answer"):
            found = await state(store, name)
            said = {message.id for message in found[1] if message.text} if found else set()
            hits = await store.search(OWNER, "question word riddle piece xxx", conversation=name, limit=1000)
            if {hit.id for hit in hits} != said:
                wrong.append(f"cut at {cut.position} ({cut.style}): the search finds {len(hits)} of {len(said)}")
    check_file(place / "daram.db")
    return wrong


async def prove(
    tmp_path: Path, disk: Disk, seed: int, rounds: int, styles: tuple[Style, ...], synchronous: Synchronous = "FULL"
) -> tuple[int, list[str]]:
    """Work, cut the power at every sync; the number of disks looked at, and what was lost on them."""
    home = tmp_path / "home"
    home.mkdir()
    ledger = await work(home / "daram.db", disk, synchronous, rounds)
    assert len(ledger.states["answer"]) == 1 + 5 * rounds
    number, wrong = 0, []
    for cut in disk.cuts(Random(seed), styles=styles):
        number += 1
        wrong += await losses(cut, ledger, tmp_path / "rebooted")
    return number, wrong


ALL: tuple[Style, ...] = ("lost", "kept", "prefix", "torn")


async def test_nothing_acknowledged_is_lost(tmp_path: Path, disks: Callable[..., Disk]) -> None:
    number, wrong = await prove(tmp_path, disks(), 1, rounds=6, styles=ALL)
    assert number > 100
    assert wrong == []


async def test_nothing_is_lost_where_a_torn_sector_spoils_its_neighbours(
    tmp_path: Path, disks: Callable[..., Disk]
) -> None:
    number, wrong = await prove(tmp_path, disks(powersafe_overwrite=False), 2, rounds=4, styles=("prefix", "torn"))
    assert number > 50
    assert wrong == []


async def test_the_test_sees_what_is_lost_without_syncs(tmp_path: Path, disks: Callable[..., Disk]) -> None:
    """The same cuts with ``synchronous=OFF``: acknowledged messages are missing, or the database is no database."""
    home = tmp_path / "home"
    home.mkdir()
    disk = disks()
    ledger = await work(home / "daram.db", disk, "OFF", 3)
    wrong = []
    for cut in disk.cuts(Random(3), styles=("lost", "torn")):
        try:
            wrong += await losses(cut, ledger, tmp_path / "rebooted")
        except (daram.StoreError, apsw.Error, AssertionError) as error:
            wrong.append(str(error))
    assert len(wrong) > 20


async def test_normal_loses_the_last_messages_but_no_more(tmp_path: Path, disks: Callable[..., Disk]) -> None:
    """``synchronous=NORMAL`` with a log: the database stays sound, but what was acknowledged last is lost."""
    _, wrong = await prove(tmp_path, disks(), 4, rounds=3, styles=("lost", "torn"), synchronous="NORMAL")
    assert len(wrong) > 20


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
async def test_nothing_acknowledged_is_lost_for_long(seed: int, tmp_path: Path, disks: Callable[..., Disk]) -> None:
    number, wrong = await prove(tmp_path, disks(powersafe_overwrite=bool(seed % 2)), seed, rounds=40, styles=ALL)
    print(f"seed {seed}: {number} disks after a power cut")
    assert wrong == []
