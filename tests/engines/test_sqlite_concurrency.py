"""Many writers at once: nothing lost, versions gapless, each batch contiguous; from one process and from several."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from tests.faults import children
from tests.faults.checks import check_file

import daram
from daram.store.sqlite.engine import SqliteStore
from daram.store.sqlite.writer import Writer

OWNER = "owner"
WRITERS, APPENDS, BATCH = 32, 100, 2

WRITE = """
OWNER, first, count, conversations, appends = "owner", *map(int, sys.argv[2:6])

async def write(store, writer):
    versions = []
    for i in range(appends):
        number = (writer * appends + i) % conversations
        batch = [daram.user(f"{writer} {i} {n}") for n in range(2)]
        done = await store.append(OWNER, f"c{number}", batch, create=True, window=4)
        assert [m.text for m in done.tail[-2:]] == [m.text for m in batch]
        assert [m.text for m in done.messages] == [m.text for m in batch]
        versions.append((number, done.version))
    return versions

async def main():
    async with SqliteStore(path, busy_timeout=60.0) as store:
        await store.describe()
        print("ready", flush=True)
        sys.stdin.readline()
        for versions in await asyncio.gather(*(write(store, writer) for writer in range(first, first + count))):
            for number, version in versions:
                print(number, version)

asyncio.run(main())
"""


async def check(path: Path, conversations: int, versions: list[tuple[int, int]]) -> None:
    """Every append is there once, each writer's in order, and their versions are 1, 2, 3 …"""
    found: dict[int, list[int]] = {number: [] for number in range(conversations)}
    for number, version in versions:
        found[number].append(version)
    total = 0
    async with SqliteStore(path) as store:
        for number, mine in found.items():
            assert sorted(mine) == list(range(1, len(mine) + 1)), "a version is missing, or there twice"
            conversation = await store.get(OWNER, f"c{number}")
            assert conversation.version == len(mine)
            assert conversation.last_seq == len(mine) * BATCH
            stored = await every_message(store, f"c{number}")
            assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
            assert all(b.parent == a.id for a, b in pairwise(stored))
            last: dict[str, int] = {}
            for one, two in zip(stored[::BATCH], stored[1::BATCH], strict=True):
                writer, i, n = one.text.split()
                assert (n, two.text) == ("0", f"{writer} {i} 1"), "a batch in two pieces"
                assert int(i) > last.get(writer, -1), "out of order"
                last[writer] = int(i)
            total += len(stored)
    assert total == WRITERS * APPENDS * BATCH
    check_file(path)


async def every_message(store: SqliteStore, id: str) -> list[daram.Message]:
    found: list[daram.Message] = []
    cursor: str | None = None
    while True:
        page = await store.messages(OWNER, id, limit=1000, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("conversations", [1, 1000])
async def test_writers_in_one_process(tmp_path: Path, conversations: int) -> None:
    path = tmp_path / "daram.db"

    async def write(store: SqliteStore, writer: int) -> list[tuple[int, int]]:
        versions = []
        for i in range(APPENDS):
            number = (writer * APPENDS + i) % conversations
            batch = [daram.user(f"{writer} {i} {n}") for n in range(BATCH)]
            done = await store.append(OWNER, f"c{number}", batch, create=True, window=4)
            assert [m.text for m in done.tail[-BATCH:]] == [m.text for m in batch]
            versions.append((number, done.version))
        return versions

    async with SqliteStore(path) as store:
        versions = await asyncio.gather(*(write(store, writer) for writer in range(WRITERS)))
    await check(path, conversations, [pair for mine in versions for pair in mine])


@pytest.mark.parametrize("conversations", [1, 1000])
async def test_writers_in_three_processes(tmp_path: Path, conversations: int) -> None:
    path = tmp_path / "daram.db"
    shares = [(0, 11), (11, 11), (22, 10)]
    processes = [
        children.start(WRITE, path, str(first), str(count), str(conversations), str(APPENDS)) for first, count in shares
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    versions: list[tuple[int, int]] = []
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in processes))
    for process, (output, _) in zip(processes, outputs, strict=True):
        assert process.returncode == 0
        for line in output.splitlines():
            number, version = line.split()
            versions.append((int(number), int(version)))
    await check(path, conversations, versions)


async def test_a_version_that_is_expected_lets_one_through(tmp_path: Path) -> None:
    """32 writers believe in the same version, again and again: each time one is right, and the others are told."""
    async with SqliteStore(tmp_path / "daram.db") as store:
        await store.create(OWNER, id="c")
        for version in range(10):
            calls = [store.append(OWNER, "c", [daram.user(f"{n}")], expect=version) for n in range(WRITERS)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(result, daram.Appended) for result in results) == 1
            assert sum(isinstance(result, daram.Conflict) for result in results) == WRITERS - 1
        assert (await store.get(OWNER, "c")).last_seq == 10


async def test_one_running_answer_however_many_begin(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "daram.db") as store, SqliteStore(tmp_path / "daram.db") as other:
        await store.create(OWNER, id="c")
        calls = [(store, other)[n % 2].begin_turn(OWNER, "c", [daram.user(f"{n}")]) for n in range(WRITERS)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(result, daram.Turn) for result in results) == 1
        assert sum(isinstance(result, daram.ConversationBusy) for result in results) == WRITERS - 1
        assert (await store.get(OWNER, "c")).last_seq == 1
        assert len(await store.answers(OWNER, "c")) == 1


async def test_readers_see_whole_batches(tmp_path: Path) -> None:
    """A reader meets no batch by halves, and never an older state than one that it saw before."""
    async with SqliteStore(tmp_path / "daram.db") as store:
        await store.create(OWNER, id="c")
        done = asyncio.Event()

        async def write() -> None:
            for i in range(150):
                await store.append(OWNER, "c", [daram.user(f"{i} {n}") for n in range(5)])
            done.set()

        async def read() -> int:
            seen = looks = 0
            while not done.is_set():
                tail = await store.tail(OWNER, "c", 10)
                assert len(tail) % 5 == 0
                assert [m.text.split()[1] for m in tail] == ["0", "1", "2", "3", "4"] * (len(tail) // 5)
                last = tail[-1].seq if tail else 0
                assert last >= seen
                seen = last
                looks += 1
            return looks

        _, *looks = await asyncio.gather(write(), read(), read(), read())
        assert min(looks) > 0


async def test_a_close_while_the_writer_wakes_up_for_a_write_ends_it(tmp_path: Path):
    async with daram.open(f"sqlite:///{tmp_path}/daram.db") as memory:
        store = memory.inner
        assert isinstance(store, SqliteStore)
        writer = Writer(store._connections, store._upkeep.run, store._upkeep.is_due)
        written = asyncio.create_task(writer.submit(lambda connection: None))
        await asyncio.sleep(0)
        assert writer._nothing_new.acquire(blocking=False)  # it wakes up for the write, and before it looks …
        writer._closing = True  # … comes the close, which finds it awake already
        writer.start(store._connections.writing())
        await written
        await asyncio.to_thread(writer._thread.join, 60)
        assert not writer._thread.is_alive()
