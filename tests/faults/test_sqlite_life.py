"""The SQLite engine through the life of a process: groups, cancelled callers, loops, threads, forks, closing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.faults import children
from tests.faults.checks import check_file

import daram
import daram.sync
from daram.store.sqlite.engine import SqliteStore

OWNER = "owner"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "daram.db")
    await made.append(OWNER, "c", [daram.user("first")], create=True)
    yield made
    await made.close()
    check_file(tmp_path / "daram.db")


async def texts(store: SqliteStore, id: str = "c") -> list[str]:
    return [message.text for message in (await store.messages(OWNER, id, limit=1000)).items]


@asynccontextmanager
async def held(store: SqliteStore, on_commit: Callable[[], bool] | None = None) -> AsyncIterator[None]:
    """The writer is busy: what is written meanwhile waits in its queue, and becomes one group."""
    assert store._writer is not None
    busy, go = threading.Event(), threading.Event()

    def wait(db: apsw.Connection) -> None:
        db.set_commit_hook(on_commit)
        busy.set()
        go.wait(60)

    task = asyncio.ensure_future(store._writer.submit(wait))
    assert await asyncio.to_thread(busy.wait, 60)
    try:
        yield
    finally:
        go.set()
    await task


async def in_one_group(store: SqliteStore, *calls: Any) -> tuple[list[Any], int]:
    """The results of the calls, made in one group; and how often was committed for them."""
    commits = 0

    def committed() -> bool:
        nonlocal commits
        commits += 1
        return False

    assert store._writer is not None
    store._writer._chore_due = lambda idle: False  # what it does in the silence is none of these writes
    async with held(store, committed):
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.05)
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    return results, commits - 1  # one was that of the waiting


# --- groups ---------------------------------------------------------------------------------------------------------


async def test_one_bad_write_fails_alone(store: SqliteStore) -> None:
    """Of one group: the bad ones are undone, whatever they had changed, and the others are committed together."""
    calls: list[Any] = []
    for i in range(30):
        calls.append(store.append(OWNER, "c", [daram.user(f"good {i}")]))
        # It makes the conversation, and then does not find the version: what it made must go again.
        calls.append(store.append(OWNER, f"bad {i}", [daram.user("bad")], create=True, expect=7))
    results, commits = await in_one_group(store, *calls)
    assert commits == 1
    assert all(isinstance(result, daram.Appended) for result in results[::2]), results
    assert all(isinstance(result, daram.Conflict) for result in results[1::2]), results
    assert await texts(store) == ["first", *(f"good {i}" for i in range(30))]
    assert [found.id for found in (await store.list(OWNER)).items] == ["c"]
    assert (await store.get(OWNER, "c")).version == 31


async def test_a_write_sees_those_before_it_in_its_group(store: SqliteStore) -> None:
    message = daram.user("again")
    results, _ = await in_one_group(
        store,
        store.create(OWNER, id="new"),
        store.append(OWNER, "new", [message], expect=0),
        store.append(OWNER, "new", [message]),
        store.append(OWNER, "new", [daram.user("x")], expect=0),
        store.delete(OWNER, "new"),
        store.append(OWNER, "new", [message], create=True),
    )
    assert [type(result).__name__ for result in results] == [
        "Conversation", "Appended", "Appended", "Conflict", "NoneType", "Gone",
    ]  # fmt: skip
    assert results[1].etag == results[2].etag == results[2].previous_etag


class Surprise(Exception):
    """An error that nobody expects."""


@pytest.mark.parametrize("error", [Surprise("!"), MemoryError(), StopIteration(), KeyError("x"), apsw.Error("?")])
@pytest.mark.parametrize("company", [0, 3])
async def test_nothing_ends_the_writer(store: SqliteStore, error: Exception, company: int) -> None:
    assert store._writer is not None

    def fail(db: apsw.Connection) -> None:
        db.execute("DELETE FROM message")
        raise error

    good = [store.append(OWNER, "c", [daram.user(f"{i}")]) for i in range(company)]
    results, _ = await in_one_group(store, store._writer.submit(fail), *good)
    assert isinstance(results[0], Exception)
    assert all(isinstance(result, daram.Appended) for result in results[1:])
    assert len(await texts(store)) == 1 + company


async def test_an_index_that_cannot_be_fed_stops_nothing(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store._writer is not None

    def fail(db: apsw.Connection) -> None:
        db.execute("DELETE FROM message")
        raise Surprise

    monkeypatch.setattr(store._writer, "_chore", fail)
    for i in range(300):
        await store.append(OWNER, "c", [daram.user(f"{i}")])
    await asyncio.sleep(0.7)
    assert len(await texts(store)) == 301


async def test_what_waits_is_indexed_in_the_silence(store: SqliteStore) -> None:
    async with asyncio.timeout(60):
        while await store._read(lambda db: db.execute("SELECT mark FROM search_mark").get) == 0:
            await asyncio.sleep(0.05)


async def test_a_search_finds_what_could_not_be_indexed(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, while another process holds the database: the last messages are looked through."""

    def busy(db: apsw.Connection) -> None:
        raise apsw.BusyError

    await store.append("other", "c", [daram.user("the needle of somebody else")], create=True)
    await store.append(OWNER, "d", [daram.user("a needle"), daram.assistant("도토리와 다람쥐")], create=True)
    monkeypatch.setattr(store._upkeep, "feed", busy)
    assert [hit.text for hit in await store.search(OWNER, "needle")] == ["a needle"]
    assert [hit.text for hit in await store.search(OWNER, "다람쥐는")] == ["도토리와 다람쥐"]
    assert await store.search(OWNER, "needle", conversation="c") == []
    assert await store.search(OWNER, "haystack") == []
    monkeypatch.undo()
    assert [hit.text for hit in await store.search(OWNER, "needle")] == ["a needle"]


async def test_a_search_ends_while_others_write(store: SqliteStore) -> None:
    async def write() -> None:
        while True:
            await store.append(OWNER, "c", [daram.user("more hay")])

    writers = [asyncio.ensure_future(write()) for _ in range(8)]
    for _ in range(20):
        await asyncio.wait_for(store.search(OWNER, "first"), 60)
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)


# --- callers that go away -------------------------------------------------------------------------------------------


async def test_cancelled_callers(store: SqliteStore) -> None:
    batches = [[daram.user(f"{i}.0"), daram.assistant(f"{i}.1")] for i in range(60)]
    async with held(store):
        tasks = [asyncio.ensure_future(store.append(OWNER, "c", batch)) for batch in batches]
        await asyncio.sleep(0.05)
        for task in tasks[::2]:
            task.cancel()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert all(isinstance(result, daram.Appended) for result in results[1::2])
    for batch in batches:  # whatever became of them: with the same ids each is stored once
        await store.append(OWNER, "c", batch)
    stored = await texts(store)
    assert len(stored) == 121
    assert sorted(stored[1::2]) == sorted(f"{i}.0" for i in range(60))
    assert all(b == a[:-1] + "1" for a, b in zip(stored[1::2], stored[2::2], strict=True))


async def test_a_cancelled_first_call(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "daram.db")
    for delay in (0, 0.001, 0.003, 0.01):
        task = asyncio.ensure_future(store.append(OWNER, "c", [daram.user("x")], create=True))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await store.append(OWNER, "c", [daram.user("y")], create=True)
    threads = [thread.name for thread in threading.enumerate() if str(tmp_path) in thread.name]
    assert len(threads) == 1
    await store.close()
    assert [thread.name for thread in threading.enumerate() if str(tmp_path) in thread.name] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["daram.db"]  # the last connection tidied up


# --- closing --------------------------------------------------------------------------------------------------------


async def test_closing_finishes_what_was_accepted(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    store = SqliteStore(path)
    await store.create(OWNER, id="c")
    async with held(store):
        tasks = [asyncio.ensure_future(store.append(OWNER, "c", [daram.user(f"{i}")])) for i in range(600)]
        await asyncio.sleep(0.05)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0.05)
        for call in (store.append(OWNER, "c", [daram.user("late")]), store.tail(OWNER, "c")):
            with pytest.raises(daram.StoreClosed, match=r"daram\.open"):
                await call
    await asyncio.wait_for(closing, 60)
    assert all(isinstance(result, daram.Appended) for result in await asyncio.gather(*tasks))
    await store.close()  # harmless
    async with SqliteStore(path) as again:
        assert await texts(again) == [f"{i}" for i in range(600)]
    check_file(path)


async def test_closing_while_it_is_being_opened(tmp_path: Path) -> None:
    for i in range(10):
        store = SqliteStore(tmp_path / f"{i}.db")
        calls = [asyncio.ensure_future(store.append(OWNER, "c", [daram.user("x")], create=True)) for _ in range(3)]
        await asyncio.sleep(0.002 * i)
        await asyncio.gather(store.close(), store.close())
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        assert all(isinstance(result, daram.Appended | daram.StoreClosed) for result in results), results
    assert [thread.name for thread in threading.enumerate() if str(tmp_path) in thread.name] == []


async def test_closing_what_was_never_opened(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "daram.db")
    await store.close()
    await store.close()
    with pytest.raises(daram.StoreClosed):
        await store.get(OWNER, "c")
    assert list(tmp_path.iterdir()) == []


# --- loops and threads ----------------------------------------------------------------------------------------------


def test_several_event_loops_at_once(tmp_path: Path) -> None:
    """Each in a thread of its own, and each beginning with the first call: the store is opened once."""
    store = SqliteStore(tmp_path / "daram.db")
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    async def work(name: str) -> None:
        start.wait()
        for i in range(40):
            await store.append(OWNER, "c", [daram.user(f"{name}.{i}")], create=True)
            await store.tail(OWNER, "c")

    def thread(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(f"{n}",)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
    assert failures == []

    async def look() -> None:
        stored = await texts(store)
        for n in range(4):
            assert [text for text in stored if text.startswith(f"{n}.")] == [f"{n}.{i}" for i in range(40)]
        await store.close()

    asyncio.run(look())
    check_file(tmp_path / "daram.db")


def test_a_loop_that_ends_before_its_writes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "daram.db")
    message = daram.user("x")

    async def leave() -> None:
        await store.create(OWNER, id="c")
        async with held(store):
            task = asyncio.ensure_future(store.append(OWNER, "c", [message]))
            await asyncio.sleep(0.05)
            task.cancel()

    async def look() -> None:
        await store.append(OWNER, "c", [message])
        assert await texts(store) == ["x"]
        await store.close()

    asyncio.run(leave())
    asyncio.run(look())


# --- forks ----------------------------------------------------------------------------------------------------------

FORK = """
import threading, warnings
warnings.filterwarnings("ignore", ".*multi-threaded.*fork.*", DeprecationWarning)
store = SqliteStore(path)

async def write(name, count):
    for i in range(count):
        await store.append("owner", "c", [daram.user(f"{name}.{i}")], create=True)
        await store.tail("owner", "c", 5)

asyncio.run(write("before", 5))
stop = threading.Event()

def go_on():  # the parent writes and reads while it forks
    async def work():
        i = 0
        while not stop.is_set():
            await store.append("owner", "busy", [daram.user(f"busy.{i}")], create=True)
            await store.tail("owner", "busy", 5)
            i += 1
        print("busy", i)
    asyncio.run(work())

thread = threading.Thread(target=go_on)
thread.start()
children = []
for n in range(6):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(write(f"child{n}", 10))
            asyncio.run(store.close())
            code = 0
        finally:
            os._exit(code)
    children.append(pid)
    asyncio.run(write(f"parent{n}", 10))
assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in children)
stop.set()
thread.join()
asyncio.run(store.close())
"""


async def test_forks(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    said = children.run(FORK, path).split()
    names = ["before"] + [f"{who}{n}" for n in range(6) for who in ("child", "parent")]
    async with SqliteStore(path) as store:
        stored = await texts(store)
        for name in names:
            count = 5 if name == "before" else 10
            assert [text for text in stored if text.startswith(f"{name}.")] == [f"{name}.{i}" for i in range(count)]
        assert len(stored) == 125
        busy = (await store.messages(OWNER, "busy", limit=1000)).items
        assert (await store.get(OWNER, "busy")).last_seq == int(said[1])
        assert [message.text for message in busy] == [f"busy.{i}" for i in range(len(busy))]
    check_file(path)


MULTIPROCESSING = """
import multiprocessing, warnings
warnings.filterwarnings("ignore", ".*multi-threaded.*fork.*", DeprecationWarning)
import daram.sync
memory = daram.sync.open(f"sqlite:///{path}")
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


async def test_multiprocessing_by_fork(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    assert children.run(MULTIPROCESSING, path) == "82\n"
    check_file(path)
