"""The PostgreSQL engine through the life of a process: cancelled callers, loops, threads, forks, closing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from tests.faults import children
from tests.postgres import Databases

import daram
from daram.errors import StoreClosed
from daram.model import Appended, user
from daram.store.postgres.engine import PostgresStore

OWNER = "owner"


@pytest.fixture
def url(databases: Databases) -> str:
    return databases.url("life")


async def texts(store: PostgresStore, id: str = "c") -> list[str]:
    return [m.text for m in (await store.messages(OWNER, id, limit=1000)).items]


# --- loops and threads ----------------------------------------------------------------------------------------------


def test_one_store_on_many_loops(url: str) -> None:
    store = PostgresStore(url)

    async def work(i: int) -> None:
        await asyncio.gather(*(store.append(OWNER, "c", [user(f"{i}.{j}")], create=True) for j in range(4)))

    for i in range(5):
        asyncio.run(work(i))
    assert len(asyncio.run(texts(store))) == 20
    asyncio.run(store.close())
    with pytest.raises(StoreClosed):
        asyncio.run(texts(store))


def test_one_store_in_many_threads(url: str) -> None:
    """Each thread with a loop of its own, all opening the store at once."""
    store = PostgresStore(url)
    errors: list[BaseException] = []
    barrier = threading.Barrier(6)

    async def work(i: int) -> None:
        for j in range(5):
            await store.append(OWNER, "c", [user(f"{i}.{j}")], create=True)

    def run(i: int) -> None:
        barrier.wait()
        try:
            asyncio.run(work(i))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = asyncio.run(texts(store))
    assert sorted(found) == sorted(f"{i}.{j}" for i in range(6) for j in range(5))
    asyncio.run(store.close())


async def test_a_store_is_closed_on_all_its_loops(url: str, databases: Databases) -> None:
    store = PostgresStore(url)
    await store.append(OWNER, "c", [user("here")], create=True)
    ready, over = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        await store.tail(OWNER, "c")
        ready.set()
        await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await asyncio.to_thread(ready.wait)
    await store.close()
    over.set()
    thread.join()
    await asyncio.to_thread(databases.settled, "life", 0)


async def test_closing_while_calls_are_under_way(url: str) -> None:
    store = PostgresStore(url, pool_size=2)
    await store.append(OWNER, "c", [user("there", id="there")], create=True)
    calls = [asyncio.create_task(store.append(OWNER, "c", [user(str(i), id=str(i))])) for i in range(20)]
    await asyncio.sleep(0.005)
    await store.close()
    await store.close()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in found} <= {Appended, StoreClosed}
    done = [one.messages[0].id for one in found if isinstance(one, Appended)]
    async with PostgresStore(url) as again:
        stored = [m.id for m in await again.tail(OWNER, "c", 100)]
    assert set(done) <= set(stored)


async def test_cancelled_callers_leave_the_pool_whole(url: str) -> None:
    store = PostgresStore(url, pool_size=3)
    await store.append(OWNER, "c", [user("there")], create=True)
    for i in range(40):
        batch = [user(str(i), id=f"m{i}")]
        call = asyncio.create_task(store.append(OWNER, "c", batch))
        await asyncio.sleep((i % 8) * 0.0005)
        call.cancel()
        await asyncio.wait([call])
        assert (await store.append(OWNER, "c", batch)).messages[0].text == str(i)
    assert await texts(store) == ["there", *map(str, range(40))]
    await asyncio.gather(*(store.tail(OWNER, "c") for _ in range(20)))
    await store.close()


async def test_a_store_that_could_not_be_opened_can_be_closed() -> None:
    others = asyncio.all_tasks()
    store = PostgresStore("postgresql://nobody@127.0.0.1:1/nothing", pool_wait=0.3)
    for _ in range(2):
        with pytest.raises(daram.StoreUnavailable):
            await store.tail(OWNER, "c")
    await store.close()
    with pytest.raises(StoreClosed):
        await store.tail(OWNER, "c")
    assert asyncio.all_tasks() == others
    with pytest.raises(daram.StoreUnavailable):
        await daram.open("postgresql://nobody@127.0.0.1:1/nothing?pool_wait=0.3")
    assert asyncio.all_tasks() == others


def test_a_server_that_is_not_there_is_said_once() -> None:
    command = ["-m", "daram", "list", "--store", "postgresql://nobody@127.0.0.1:1/nothing?pool_wait=0.3"]
    done = subprocess.run(
        [sys.executable, "-X", "dev", *command], env=children.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    # The driver's words have two lines; asyncio's remarks on slow callbacks are not ours.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert [line for line in lines if "cannot be reached" in line] == lines


def test_connections_of_loops_that_ended_are_closed(url: str, databases: Databases) -> None:
    store = PostgresStore(url)
    for i in range(8):
        asyncio.run(store.append(OWNER, "c", [user(str(i))], create=True))
    databases.settled("life", 2)
    runner = asyncio.Runner()
    runner.run(texts(store))
    asyncio.run(store.close())
    databases.settled("life", 0)
    runner.close()


# --- forks and processes --------------------------------------------------------------------------------------------

FORK = """
import threading, warnings
warnings.filterwarnings("ignore", ".*multi-threaded.*fork.*", DeprecationWarning)
from daram.store.postgres.engine import PostgresStore
store = PostgresStore(sys.argv[2])

async def write(name, count):
    for i in range(count):
        await store.append("owner", "c", [daram.user(f"{name}.{i}")], create=True)
        await store.tail("owner", "c", 5)

async def main():
    await write("before", 5)
    pids = []
    for n in range(4):
        going_on = asyncio.create_task(write(f"parent{n}", 10))
        await asyncio.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                thread = threading.Thread(target=lambda: asyncio.run(in_child(n)))
                thread.start()
                thread.join()
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
        await going_on
    assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in pids)
    await write("after", 5)
    await store.close()

async def in_child(n):
    await write(f"child{n}", 10)
    await store.close()

asyncio.run(main())
"""


async def test_forks(url: str, tmp_path: Path) -> None:
    """In the middle of the parent's statements: the child has connections of its own and leaves the parent's alone."""
    await asyncio.to_thread(children.run, FORK, tmp_path, url)
    async with PostgresStore(url) as store:
        stored = await texts(store)
    for name in ("before", "after"):
        assert [text for text in stored if text.startswith(f"{name}.")] == [f"{name}.{i}" for i in range(5)]
    for name in [f"{who}{n}" for n in range(4) for who in ("child", "parent")]:
        assert [text for text in stored if text.startswith(f"{name}.")] == [f"{name}.{i}" for i in range(10)]
    assert len(stored) == 90


MULTIPROCESSING = """
import multiprocessing, warnings
warnings.filterwarnings("ignore", ".*multi-threaded.*fork.*", DeprecationWarning)
import daram.sync
memory = daram.sync.open(sys.argv[2])
memory.append("owner", "c", [daram.user("before")], create=True)

def work(n):
    for i in range(10):
        memory.append("owner", "c", [daram.user(f"{n}.{i}")])
    return len(memory.tail("owner", "c", 1000))

with multiprocessing.get_context("fork").Pool(3) as pool:
    results = pool.map(work, range(8), chunksize=1)
    pool.close()
    pool.join()
assert max(results) == 81
memory.append("owner", "c", [daram.user("after")])
print(len(memory.tail("owner", "c", 1000)))
memory.close()
"""


async def test_multiprocessing_by_fork(url: str, tmp_path: Path) -> None:
    assert await asyncio.to_thread(children.run, MULTIPROCESSING, tmp_path, url) == "82\n"


WRITE = """
from daram.store.postgres.engine import PostgresStore

async def write(store, writer, conversations, appends):
    for i in range(appends):
        batch = [daram.user(f"{writer} {i} {n}") for n in range(2)]
        done = await store.append("owner", f"c{(writer * appends + i) % conversations}", batch, create=True, window=4)
        assert [m.text for m in done.tail[-2:]] == [m.text for m in batch]

async def main():
    first, count, conversations, appends = map(int, sys.argv[3:7])
    async with PostgresStore(sys.argv[2], pool_size=16, pool_wait=120) as store:
        writers = range(first, first + count)
        await asyncio.gather(*(write(store, writer, conversations, appends) for writer in writers))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("conversations", "appends"),
    [(1, 5), (1000, 20), *(pytest.param(n, 100, marks=pytest.mark.soak) for n in (1, 1000))],
)
async def test_32_writers_in_two_processes(url: str, tmp_path: Path, conversations: int, appends: int) -> None:
    await asyncio.gather(
        *(
            asyncio.to_thread(children.run, WRITE, tmp_path, url, str(first), "16", str(conversations), str(appends))
            for first in (0, 16)
        )
    )
    total = 0
    async with PostgresStore(url) as store:
        for number in range(min(conversations, 32 * appends)):
            id = f"c{number}"
            found = []
            cursor: str | None = None
            while True:
                page = await store.messages(OWNER, id, limit=1000, cursor=cursor)
                found += page.items
                cursor = page.next_cursor
                if cursor is None:
                    break
            conversation = await store.get(OWNER, id)
            assert (conversation.version * 2, conversation.last_seq) == (len(found), len(found))
            assert [m.seq for m in found] == list(range(1, len(found) + 1))
            assert all(b.parent == a.id for a, b in pairwise(found))
            assert all(b.text == f"{a.text[:-1]}1" for a, b in zip(found[::2], found[1::2], strict=True))
            total += len(found)
    assert total == 32 * appends * 2
