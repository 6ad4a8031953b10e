"""Two processes on one SQLite file: the state machine, many writers, and a process that was stopped in mid-turn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from daram.errors import ConversationBusy, LeaseLost, StoreBusy, StoreError
from daram.model import Message, user
from daram.store.base import Store
from daram.store.memory import MemoryStore
from daram.store.sqlite.engine import SqliteStore
from daram.testing import run_machine
from daram.testing.processes import StoreProcess
from daram.testing.state_machine import QUICK, OpenStore


@pytest.fixture(scope="module")
def processes() -> Iterator[list[StoreProcess]]:
    found = [StoreProcess() for _ in range(2)]
    yield found
    for process in found:
        process.stop()


def places(where: Path, processes: list[StoreProcess]) -> OpenStore:
    numbers = itertools.count()

    def new_place() -> OpenStore:
        file = where / f"{next(numbers)}.db"
        turns = itertools.cycle(processes)

        async def open_store() -> Store:
            return next(turns).open(SqliteStore, file)

        return open_store

    return new_place


def test_the_machine_finds_nothing(processes: list[StoreProcess], tmp_path: Path) -> None:
    run_machine(places(tmp_path, processes), MemoryStore, how=settings(QUICK, max_examples=25))


@pytest.mark.soak
def test_the_machine_finds_nothing_for_long(processes: list[StoreProcess], tmp_path: Path) -> None:
    how = settings(QUICK, max_examples=1000, stateful_step_count=100)
    run_machine(places(tmp_path, processes), MemoryStore, how=how)


async def test_writers_of_both_lose_nothing(processes: list[StoreProcess], tmp_path: Path) -> None:
    stores = [process.open(SqliteStore, tmp_path / "d.db") for process in processes]
    stores.append(SqliteStore(tmp_path / "d.db"))

    async def write(store: Store, writer: int) -> list[int]:
        done = [
            await store.append("ann", "c", [user("x", id=f"{writer}.{i}.{j}") for j in range(2)], create=True)
            for i in range(50)
        ]
        return [one.version for one in done]

    versions = await asyncio.gather(*(write(store, writer) for writer, store in enumerate(stores)))
    assert sorted(v for part in versions for v in part) == list(range(1, 151))
    found = (await stores[0].messages("ann", "c", limit=1000)).items
    assert [m.seq for m in found] == list(range(1, 301))
    pairs = [(m.id, n.id) for m, n in zip(found[::2], found[1::2], strict=True)]
    assert sorted(pairs) == sorted((f"{w}.{i}.0", f"{w}.{i}.1") for w in range(3) for i in range(50))
    for store in stores:
        await store.close()


async def test_a_process_stopped_past_its_lease_writes_nothing(tmp_path: Path) -> None:
    ours = SqliteStore(tmp_path / "d.db", busy_timeout=1.0)
    with StoreProcess() as process:
        theirs = process.open(SqliteStore, tmp_path / "d.db")
        turn = await theirs.begin_turn("ann", "c", [user("q", id="q")], create=True, answer_id="a", lease=3600)
        assert turn.answer is not None
        token = turn.answer.token
        with pytest.raises(ConversationBusy):
            await ours.begin_turn("ann", "c", [user("r")])
        await theirs.checkpoint("ann", "c", "a", token, "half", lease=0.05)
        closed: list[Message] = []
        while not closed:
            process.pause()
            try:
                closed = await ours.recover()
            except StoreBusy:  # it was stopped while it held the file, feeding the search index
                process.resume()
            await asyncio.sleep(0.02)
        woken = asyncio.ensure_future(theirs.finish_turn("ann", "c", "a", token, text="half and more"))
        await asyncio.sleep(0)
        assert [(m.id, m.text, m.status) for m in closed] == [("a", "half", "incomplete")]
        process.resume()
        with pytest.raises(LeaseLost):
            await woken
        with pytest.raises(LeaseLost):
            await theirs.checkpoint("ann", "c", "a", token, "half and more")
        assert [m.text for m in await ours.tail("ann", "c")] == ["q", "half"]
        assert await theirs.tail("ann", "c") == await ours.tail("ann", "c")
        await theirs.close()
    await ours.close()


async def test_the_answer_of_a_killed_process_is_closed_at_once(tmp_path: Path) -> None:
    """Its lease has an hour to run, but the process is known to be gone."""
    ours = SqliteStore(tmp_path / "d.db")
    process = StoreProcess()
    theirs = process.open(SqliteStore, tmp_path / "d.db")
    turn = await theirs.begin_turn("ann", "c", [user("q", id="q")], create=True, answer_id="a", lease=3600)
    assert turn.answer is not None
    await theirs.checkpoint("ann", "c", "a", turn.answer.token, "half", lease=3600)
    assert await ours.recover() == []
    process.kill()
    next_turn = await ours.begin_turn("ann", "c", [user("r")], window=9)
    assert next_turn.state == "started"
    assert [(m.text, m.status) for m in next_turn.appended.tail][1] == ("half", "incomplete")
    process.stop()
    await ours.close()


async def test_errors_keep_their_fields_between_processes(processes: list[StoreProcess], tmp_path: Path) -> None:
    store = processes[0].open(SqliteStore, tmp_path / "missing" / "d.db")
    with pytest.raises(StoreError):
        await store.get("ann", "c")
    store = processes[0].open(SqliteStore, tmp_path / "d.db")
    await store.begin_turn("ann", "c", [user("q")], create=True, answer_id="a")
    with pytest.raises(ConversationBusy) as caught:
        await store.begin_turn("ann", "c", [user("r")])
    assert (caught.value.answer_id, caught.value.dead) == ("a", False)
    assert "'a'" in str(caught.value)
    await store.close()
