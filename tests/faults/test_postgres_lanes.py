"""The connections to PostgreSQL of one event loop: who gets which, how many there are, what a cancelled one leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.faults import children
from tests.postgres import Databases

from daram.errors import StoreBusy, StoreClosed
from daram.model import user
from daram.store.postgres.engine import PostgresStore
from daram.store.postgres.lanes import Full, Lane, Lanes, Shut

OWNER = "owner"
LONG = 60.0


@pytest.fixture
def url(databases: Databases) -> str:
    return databases.url("lanes")


class Deaf:
    """A server that takes connections and says nothing."""

    def __init__(self) -> None:
        self.met = 0
        self.left = 0
        self._news = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._news:
            self.met += 1
            self._news.notify_all()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        writer.close()
        async with self._news:
            self.left += 1
            self._news.notify_all()

    async def until(self, *, met: int, left: int = 0) -> None:
        async with self._news, asyncio.timeout(LONG):
            await self._news.wait_for(lambda: (self.met, self.left) == (met, left))


@pytest.fixture
async def deaf() -> AsyncIterator[tuple[Deaf, str]]:
    """Such a server, and where it is."""
    found = Deaf()
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield found, f"postgresql://nobody@127.0.0.1:{port}/nothing"


@contextlib.asynccontextmanager
async def lanes_to(conninfo: str, limit: int) -> AsyncIterator[Lanes]:
    lanes = Lanes(conninfo, limit)
    yield lanes
    lanes.close()
    assert not lanes._waiting
    assert not lanes._all, "a connection was not given back"


def ask(lanes: Lanes, wait: float = LONG) -> asyncio.Task[Lane]:
    return asyncio.create_task(lanes.take(wait))


async def queued(lanes: Lanes, count: int) -> None:
    """So many wait."""
    while len(lanes._waiting) < count:
        await asyncio.sleep(0)


async def use(lane: Lane) -> None:
    await lane.execute("SELECT 1")


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- a loop that ends -----------------------------------------------------------------------------------------------

ENDING = """
from daram.store.postgres.engine import PostgresStore
store = PostgresStore(sys.argv[2])

async def write(i):
    while True:
        await store.append("owner", "c", [daram.user(str(i))], create=True)

async def some(turns):
    tasks = [asyncio.create_task(write(i)) for i in range(6)]
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns % 3 == 0:
        await asyncio.wait(tasks, timeout=turns / 5000)
    # All go on: they are cancelled where they are.

async def last():
    try:
        return len(await store.tail("owner", "c", 5))
    finally:
        await store.close()

async def begin():
    await store.append("owner", "c", [daram.user("first")], create=True)

asyncio.run(begin())
for turns in range(150):
    asyncio.run(some(turns))
print(asyncio.run(last()))
"""


async def test_loops_that_end_while_they_connect(url: str, tmp_path: Path) -> None:
    """``asyncio.run`` waits for every task that it cancels: one that goes on in spite of it would hold it for ever."""
    assert await asyncio.to_thread(children.run, ENDING, tmp_path, url) == "5\n"


async def test_no_task_is_left_to_a_loop(url: str) -> None:
    others = asyncio.all_tasks()
    store = PostgresStore(url)
    await asyncio.gather(*(store.append(OWNER, "c", [user(str(i))], create=True) for i in range(10)))
    assert asyncio.all_tasks() == others
    await store.close()


# --- cancelled callers ----------------------------------------------------------------------------------------------


async def test_a_waiter_is_cancelled(url: str) -> None:
    async with lanes_to(url, 1) as lanes:
        lane = await lanes.take(LONG)
        first, second = ask(lanes), ask(lanes)
        await queued(lanes, 2)
        await cancel(first)
        lanes.give_back(lane)
        assert await second is lane
        lanes.give_back(lane)


@pytest.mark.parametrize("what", ["a connection", "room"])
async def test_a_waiter_is_cancelled_when_it_has_just_been_served(url: str, what: str) -> None:
    async with lanes_to(url, 1) as lanes:
        lane = await lanes.take(LONG)
        first, second = ask(lanes), ask(lanes)
        await queued(lanes, 2)
        if what == "room":
            lane.hang_up()
        lanes.give_back(lane)
        assert len(lanes._waiting) == 1  # the first was served, and does not know
        await cancel(first)
        next_one = await second
        assert (next_one is lane) is (what == "a connection")
        await use(next_one)
        lanes.give_back(next_one)


async def test_a_waiter_is_served_in_the_moment_when_its_time_is_over(url: str) -> None:
    async with lanes_to(url, 1) as lanes:
        lane = await lanes.take(LONG)
        late = ask(lanes, 0)
        await queued(lanes, 1)
        lanes.give_back(lane)
        assert await late is lane
        lanes.give_back(lane)


async def test_a_caller_is_cancelled_while_it_connects(deaf: tuple[Deaf, str]) -> None:
    """Its socket is closed at once, although the task is kept; the next in the row may connect."""
    server, where = deaf
    async with lanes_to(where, 1) as lanes:
        first = ask(lanes)
        await server.until(met=1)
        second = ask(lanes)
        await queued(lanes, 1)
        gc.disable()
        try:
            await cancel(first)
            await server.until(met=2, left=1)
        finally:
            gc.enable()
        await cancel(second)
        await server.until(met=2, left=2)


async def test_a_cancellation_that_the_driver_loses(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = Lane.connect

    async def deaf_connect(*args: Any, **kwargs: Any) -> Lane:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG)
        return await connect(*args, **kwargs)

    async with lanes_to(url, 1) as lanes:
        with monkeypatch.context() as patch:
            patch.setattr(Lane, "connect", deaf_connect)
            call = ask(lanes)
            await asyncio.sleep(0)
            await cancel(call)
        (made,) = lanes._all  # it was made nevertheless, and is for the next
        assert await lanes.take(LONG) is made
        lanes.give_back(made)


async def test_a_cancellation_that_a_statement_loses(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = psycopg.AsyncRawCursor.execute

    async def deaf_execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG)
        return await execute(self, *args, **kwargs)

    async with PostgresStore(url, pool_size=1) as store:
        await store.create(OWNER, id="c")
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.AsyncRawCursor, "execute", deaf_execute)
            call = asyncio.create_task(store.append(OWNER, "c", [user("a", id="a")]))
            while store.pool._home().lanes._free:
                await asyncio.sleep(0)
            await cancel(call)
        assert [m.id for m in await store.tail(OWNER, "c")] == ["a"]


@pytest.mark.parametrize("size", [1, 3])
async def test_callers_are_cancelled_at_any_moment(url: str, size: int) -> None:
    """Waiters, those who connect, those in mid-statement: everything is there afterwards."""
    async with lanes_to(url, size) as lanes:

        async def work(turns: int) -> None:
            lane = await lanes.take(LONG)
            try:
                await use(lane)
                if turns % 7 == 0:
                    lane.hang_up()
            finally:
                lanes.give_back(lane)

        for turns in range(60):
            tasks = [asyncio.create_task(work(turns)) for _ in range(8)]
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            for task in tasks[turns % 2 :: 2]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(one is None or isinstance(one, asyncio.CancelledError) for one in found)
            assert found[1 - turns % 2 :: 2] == [None] * 4
        taken = [await lanes.take(0) for _ in range(size)]
        with pytest.raises(Full):
            await lanes.take(0)
        for lane in taken:
            lanes.give_back(lane)


# --- who gets which -------------------------------------------------------------------------------------------------


async def test_first_come_first_served(url: str) -> None:
    async with lanes_to(url, 1) as lanes:
        served: list[int] = []

        async def call(number: int) -> None:
            lane = await lanes.take(LONG)
            served.append(number)
            await use(lane)
            lanes.give_back(lane)

        lane = await lanes.take(LONG)
        calls = [asyncio.create_task(call(number)) for number in range(20)]
        await queued(lanes, 20)
        lanes.give_back(lane)
        # The first waiter has not noticed yet that it was served; who comes now is behind all of them.
        calls.append(asyncio.create_task(call(20)))
        calls.append(asyncio.create_task(call(21)))
        await asyncio.gather(*calls)
        assert served == list(range(22))


async def test_callers_connect_at_the_same_time(deaf: tuple[Deaf, str]) -> None:
    server, where = deaf
    async with lanes_to(where, 5) as lanes:
        calls = [ask(lanes) for _ in range(8)]
        await server.until(met=5)
        assert len(lanes._waiting) == 3
        for call in reversed(calls):
            await cancel(call)
        await server.until(met=5, left=5)


async def test_the_one_used_last_is_used_next(url: str) -> None:
    async with lanes_to(url, 3) as lanes:
        a, b, c = await asyncio.gather(*(lanes.take(LONG) for _ in range(3)))
        for lane in (b, a, c):
            lanes.give_back(lane)
        assert [await lanes.take(LONG) for _ in range(3)] == [c, a, b]
        for lane in (a, b, c):
            lanes.give_back(lane)


async def test_idle_and_old_connections_are_closed(url: str, databases: Databases) -> None:
    async with lanes_to(url, 3) as lanes:
        idle, old, young = await asyncio.gather(*(lanes.take(LONG) for _ in range(3)))
        for lane in (idle, old, young):
            lanes.give_back(lane)
        idle.free_since -= 1000
        assert await lanes.take(LONG) is young
        assert idle.closed
        assert not old.closed
        old.end = 0
        new = await lanes.take(LONG)
        assert new not in (idle, old, young)
        assert old.closed
        newest = await lanes.take(0)
        with pytest.raises(Full):
            await lanes.take(0)
        for lane in (young, new, newest):
            lanes.give_back(lane)


@pytest.mark.parametrize("how", ["BEGIN", "COPY pg_class TO STDOUT"])
async def test_one_that_is_in_the_middle_of_something_is_not_handed_on(url: str, how: str) -> None:
    async with lanes_to(url, 1) as lanes:
        lane = await lanes.take(LONG)
        if how == "BEGIN":
            await lane.execute("BEGIN")
        else:
            lane.pgconn.exec_(how.encode())
        lanes.give_back(lane)
        assert lane.closed
        other = await lanes.take(LONG)
        await use(other)
        lanes.give_back(other)


# --- how many -------------------------------------------------------------------------------------------------------


def sessions(watcher: psycopg.Connection) -> int:
    row = watcher.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'daram'"
    ).fetchone()
    assert row is not None
    return int(row[0])


async def test_there_are_never_more_than_the_size(url: str, databases: Databases) -> None:
    seen = []
    await asyncio.to_thread(databases.settled, "lanes", 0)  # those of the test before
    async with PostgresStore(url, pool_size=4) as store:
        await store.append(OWNER, "c", [user("first")], create=True)
        calls = [
            asyncio.create_task(store.append(OWNER, f"c{i % 7}", [user(str(i))], create=True, window=10))
            for i in range(300)
        ]
        with databases.server.connect(databases.name("lanes")) as watcher:
            while not all(call.done() for call in calls):
                seen.append(await asyncio.to_thread(sessions, watcher))
            await asyncio.gather(*calls)
            seen.append(sessions(watcher))
    assert max(seen) == seen[-1] == 4


async def test_a_server_with_room_for_fewer(url: str, databases: Databases) -> None:
    """Who cannot connect waits for the connection of another; where there is none it is told at once."""
    databases.server.run("CREATE ROLE narrow LOGIN CONNECTION LIMIT 2")
    try:
        async with lanes_to(make_conninfo(url, user="narrow"), 8) as lanes:

            async def work() -> None:
                lane = await lanes.take(LONG)
                await use(lane)
                lanes.give_back(lane)

            kept = await lanes.take(LONG)
            await asyncio.gather(*(work() for _ in range(20)))
            other = await lanes.take(LONG)
            with pytest.raises(psycopg.OperationalError, match="too many connections"):
                await lanes.take(0)
            async with lanes_to(make_conninfo(url, user="narrow"), 8) as elsewhere:
                with pytest.raises(psycopg.OperationalError, match="too many connections"):
                    await elsewhere.take(LONG)
            lanes.give_back(kept)
            lanes.give_back(other)
    finally:
        databases.server.run("DROP ROLE narrow")


async def test_one_comes_back_while_another_cannot_be_made(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def refused(*args: Any, **kwargs: Any) -> Lane:
        begun.set()
        await over.wait()
        raise psycopg.OperationalError("refused")

    async with lanes_to(url, 2) as lanes:
        lane = await lanes.take(LONG)
        monkeypatch.setattr(Lane, "connect", refused)
        call = ask(lanes, 0)
        await begun.wait()
        lanes.give_back(lane)
        over.set()
        assert await call is lane
        begun.clear()
        call = ask(lanes)
        await begun.wait()  # and where none has come back yet
        await queued(lanes, 1)
        lanes.give_back(lane)
        assert await call is lane
        lanes.give_back(lane)


async def test_all_are_lost_at_once(url: str, databases: Databases) -> None:
    """Those who wait connect in the places of the lost ones."""
    async with lanes_to(url, 3) as lanes:
        lost = [await lanes.take(LONG) for _ in range(3)]
        waiting = [ask(lanes) for _ in range(6)]
        await queued(lanes, 6)
        for lane in lost:
            lanes.drop(lane)
            lanes.give_back(lane)
        for call in waiting:
            lane = await call
            assert lane not in lost
            await use(lane)
            lanes.give_back(lane)


async def test_no_waiting_at_all(url: str) -> None:
    """``pool_wait=0`` is about those in use: a connection is made as long as there is room for it."""
    async with PostgresStore(url, pool_size=1, pool_wait=0) as store:
        await store.append(OWNER, "c", [user("a")], create=True)
        found = await asyncio.gather(*(store.tail(OWNER, "c") for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in found] == [list, *[StoreBusy] * 4]


async def test_closing_sends_away_who_waits_and_who_connects(deaf: tuple[Deaf, str], url: str) -> None:
    async with lanes_to(url, 1) as lanes:
        lane = await lanes.take(LONG)
        waiting = ask(lanes)
        await queued(lanes, 1)
        lanes.close()
        with pytest.raises(Shut):
            await waiting
        with pytest.raises(Shut):
            await lanes.take(LONG)
        await use(lane)
        lanes.give_back(lane)
        assert lane.closed
        lanes = Lanes(url, 1)
        connecting = ask(lanes)
        await asyncio.sleep(0)
        lanes.close()
        with pytest.raises(Shut):
            await connecting
        assert not lanes._all
    store = PostgresStore(url)
    call = asyncio.create_task(store.tail(OWNER, "c"))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreClosed):
        await call
