"""So many requests a minute, so many at once: by a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from daram.config import Settings, make_redis
from daram.service.observe.request import Note, admit, noted
from daram.service.quota import Counts, LocalCounts, Quota
from daram.service.shared_quota import SharedCounts
from daram.testing.proxy import TcpProxy
from daram.testing.servers import RedisCluster, RedisServer, free_port


class World:
    """An application behind a quota, and the time."""

    def __init__(self, *, rate: int, running: int, counts: Counts | None = None) -> None:
        self.now = 1000.0
        self.open = asyncio.Event()
        self.open.set()
        self.began = 0
        self.counts = counts or LocalCounts(rate=rate, most=running, clock=lambda: self.now)
        self.quota = Quota(self._app, self.counts)

    async def ask(self, user: int) -> Note:
        """One request; what is known of it afterwards."""
        note = Note(id="r")
        token = noted.set(note)
        try:
            await self.quota({"type": "http", "user": user}, _nothing, _nowhere)
        finally:
            noted.reset(token)
        return note

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        problem = await admit(scope["user"])
        if problem is None:
            self.began += 1
            await self.open.wait()
        note = noted.get()
        assert note is not None
        note.headers["problem"] = problem or ""


async def _nothing() -> Any:
    raise AssertionError("nobody reads the body")


async def _nowhere(message: Any) -> None:
    raise AssertionError("nobody answers")


async def test_a_minutes_worth_at_once_and_then_as_it_is_refilled() -> None:
    world = World(rate=60, running=0)
    for left in range(59, -1, -1):
        note = await world.ask(1)
        assert (note.user, note.headers["problem"]) == (1, "")
        assert note.headers["x-ratelimit-limit-requests"] == "60"
        assert note.headers["x-ratelimit-remaining-requests"] == str(left)
    refused = await world.ask(1)
    assert "60 requests in a minute" in refused.headers["problem"]
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-ratelimit-reset-requests"] == "60.000s"
    assert (await world.ask(2)).headers["problem"] == ""  # somebody else's is their own
    world.now += 2
    assert [bool((await world.ask(1)).headers["problem"]) for _ in range(3)] == [False, False, True]
    world.now += 3600
    assert (await world.ask(1)).headers["x-ratelimit-remaining-requests"] == "59"  # never more than a minute's


async def test_what_runs_at_once_is_bounded_and_freed() -> None:
    world = World(rate=0, running=2)
    world.open.clear()
    running = [asyncio.create_task(world.ask(1)) for _ in range(2)]
    while world.began < 2:
        await asyncio.sleep(0)
    refused = await world.ask(1)
    assert "2 requests running" in refused.headers["problem"]
    assert refused.headers["retry-after"] == "1"
    assert "x-ratelimit-limit-requests" not in refused.headers
    running[0].cancel()  # the client left
    await asyncio.gather(running[0], return_exceptions=True)
    world.open.set()
    assert (await world.ask(1)).headers["problem"] == ""
    await running[1]


async def test_who_has_the_whole_answer_may_ask_again() -> None:
    """Also while the application has something to do behind it."""
    tidied = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        note = noted.get()
        assert note is not None
        note.headers["problem"] = await admit(1) or ""
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body"})
        await tidied.wait()

    quota = Quota(app, LocalCounts(rate=0, most=1))
    running: list[asyncio.Task[None]] = []

    async def ask(until: int) -> str:
        """Ask and wait for so many pieces. Returns what was wrong."""
        note = Note(id="r")
        sent: asyncio.Queue[Any] = asyncio.Queue(maxsize=until)  # who takes no more keeps the application waiting
        token = noted.set(note)
        running.append(asyncio.create_task(quota({"type": "http"}, _nothing, sent.put)))
        noted.reset(token)
        while not sent.full():
            await asyncio.sleep(0)
        return note.headers["problem"]

    assert [await ask(3) for _ in range(3)] == ["", "", ""]
    assert await ask(1) == ""  # this one has only begun
    assert "1 requests running" in await ask(1)
    tidied.set()
    for task in running[3:]:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_no_limit_is_no_limit() -> None:
    world = World(rate=0, running=0)
    notes = [await world.ask(1) for _ in range(1000)]
    assert {note.headers["problem"] for note in notes} == {""}


async def test_users_who_ask_no_more_are_forgotten() -> None:
    world = World(rate=10, running=0)
    for user in range(11_000):
        await world.ask(user)
        world.now += 0.1
    assert len(world.counts._buckets) == 10_000
    assert (await world.ask(10_999)).headers["x-ratelimit-remaining-requests"] == "8"


# --- counted by several processes together --------------------------------------------------------------------------


@pytest.fixture(params=["redis_server", "redis_cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | RedisCluster]:
    found: RedisServer | RedisCluster = request.getfixturevalue(request.param)
    found.flush()
    yield found
    found.flush()


Shared = Callable[..., SharedCounts]


@pytest_asyncio.fixture
async def shared(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shared]:
    """Makes what counts in a Redis, patiently: a machine that is slow is not a Redis that is down."""
    monkeypatch.setattr("daram.service.shared_quota._TIMEOUT", 60.0)
    made: list[SharedCounts] = []

    def make(url: str, **given: Any) -> SharedCounts:
        made.append(SharedCounts(make_redis(Settings(redis=url), 4), **given))
        return made[-1]

    yield make
    for counts in made:
        await counts.close()


async def test_processes_count_together(server: RedisServer | RedisCluster, shared: Shared) -> None:
    counts = [shared(server.url, rate=2, most=0) for _ in range(2)]
    worlds = [World(rate=2, running=0, counts=each) for each in counts]
    notes = [await world.ask(1) for world in worlds]
    assert [note.headers["problem"] for note in notes] == ["", ""]
    assert notes[-1].headers["x-ratelimit-remaining-requests"] == "0"
    refused = await worlds[0].ask(1)
    assert "2 requests in a minute" in refused.headers["problem"]
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert (await worlds[1].ask(2)).headers["problem"] == ""


async def test_what_runs_in_one_process_counts_in_the_other(server: RedisServer | RedisCluster, shared: Shared) -> None:
    counts = [shared(server.url, rate=0, most=2) for _ in range(2)]
    worlds = [World(rate=0, running=2, counts=each) for each in counts]
    worlds[0].open.clear()
    running = [asyncio.create_task(worlds[0].ask(1)) for _ in range(2)]
    while worlds[0].began < 2:
        await asyncio.sleep(0.01)
    assert "2 requests running" in (await worlds[1].ask(1)).headers["problem"]
    worlds[0].open.set()
    await asyncio.gather(*running)
    await counts[0].close()  # waits until they are given back
    assert (await worlds[1].ask(1)).headers["problem"] == ""


async def test_what_a_dead_process_had_running_is_free_after_its_lease(
    redis_server: RedisServer, shared: Shared
) -> None:
    redis_server.flush()
    dead, other = shared(redis_server.url, rate=0, most=1, lease=0.5), shared(redis_server.url, rate=0, most=1)
    assert (await dead.take(1, "a")).verdict == "ok"
    assert dead._renewing is not None
    dead._renewing.cancel()  # it renews nothing any more
    async with asyncio.timeout(60):
        while (await other.take(1, "c")).verdict == "running":
            await asyncio.sleep(0.05)


async def test_what_lives_renews_its_lease(redis_server: RedisServer, shared: Shared) -> None:
    redis_server.flush()
    counts = shared(redis_server.url, rate=0, most=1, lease=15.0)
    assert (await counts.take(1, "a")).verdict == "ok"
    running = counts._keys(1)[1]
    until = await counts._client.zscore(running, "a")
    async with asyncio.timeout(60):
        while await counts._client.zscore(running, "a") == until:
            await asyncio.sleep(0.05)
    assert (await counts.take(1, "b")).verdict == "running"
    counts.give_back(1, "a")
    await asyncio.gather(*counts._tasks)
    assert (await counts.take(1, "b")).verdict == "ok"


async def test_what_ends_while_it_is_renewed_has_ended(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, shared: Shared
) -> None:
    redis_server.flush()
    counts = shared(redis_server.url, rate=0, most=1)
    assert (await counts.take(1, "a")).verdict == "ok"
    renew = counts._renew

    async def late(**given: Any) -> Any:
        counts.give_back(1, "a")
        await asyncio.gather(*counts._tasks)  # on another connection, and before the renewal
        return await renew(**given)

    monkeypatch.setattr(counts, "_renew", late)
    await counts._renew_those_of(1)
    assert (await counts.take(1, "b")).verdict == "ok"


async def test_who_leaves_while_redis_counts_holds_no_place(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, shared: Shared
) -> None:
    redis_server.flush()
    counts = shared(redis_server.url, rate=0, most=1)
    take, counted = counts._take, asyncio.Event()

    async def never_answers(**given: Any) -> Any:
        await take(**given)
        counted.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(counts, "_take", never_answers)
    asking = asyncio.create_task(counts.take(1, "a"))
    await counted.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.gather(*counts._tasks)
    monkeypatch.setattr(counts, "_take", take)
    assert (await counts.take(1, "b")).verdict == "ok"


async def test_without_redis_each_process_counts_for_itself(redis_server: RedisServer, shared: Shared) -> None:
    redis_server.flush()
    async with TcpProxy(redis_server.port) as proxy:
        counts = shared(f"redis://127.0.0.1:{proxy.port}/0", rate=2, most=0)
        world = World(rate=2, running=0, counts=counts)
        assert (await world.ask(1)).headers["problem"] == ""
        proxy.refusing = True
        await proxy.cut()
        told = [(await world.ask(1)).headers["problem"] for _ in range(3)]
        assert [bool(problem) for problem in told] == [False, False, True]


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_nobody_is_refused_because_redis_was_never_there(scheme: str, shared: Shared) -> None:
    counts = shared(f"{scheme}://127.0.0.1:{free_port()}", rate=2, most=0)
    world = World(rate=2, running=0, counts=counts)
    told = [(await world.ask(1)).headers["problem"] for _ in range(3)]
    assert [bool(problem) for problem in told] == [False, False, True]
