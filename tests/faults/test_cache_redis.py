"""A real Redis or Valkey as the cache: flushed, killed, restarted, stopped, garbled; no turn sees a lie (P4)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from redis import Redis
from tests.stateful.cache_machine import WHICH, WHO, CacheMachine, HostileCache
from tests.stateful.test_cache_machine import QUICK

from daram.cache.base import Cache
from daram.cache.breaker import Breaker
from daram.cache.cached import CachedStore
from daram.cache.entry import stamp
from daram.cache.memory import MemoryCache
from daram.cache.redis import RedisCache
from daram.cache.tiered import TieredCache
from daram.ids import conversation_key
from daram.model import Appended, user
from daram.store.base import Store
from daram.store.memory import MemoryStore
from daram.store.sqlite.engine import SqliteStore
from daram.testing.servers import RedisServer

PREFIX = b"daram:cache:"


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    found: RedisServer = request.getfixturevalue(f"{request.param}_server")
    found.flush()
    return found


@pytest.fixture(params=["redis", "valkey"])
def own_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One that may be killed."""
    with RedisServer(request.param) as server:
        yield server


@pytest.fixture
async def cache(server: RedisServer) -> AsyncIterator[RedisCache]:
    cache = RedisCache(server.url)
    yield cache
    await cache.close()


def value(etag: str, rest: str = "") -> bytes:
    return stamp(etag) + rest.encode()


async def test_it_does_what_the_cache_in_memory_does(server: RedisServer, cache: RedisCache) -> None:
    model = MemoryCache()
    for step in range(300):
        key, one, other = b"%d" % (step % 3), f"{step % 5}", f"{step % 7}"
        for each in (cache, model):
            match step % 11:
                case 0:
                    await each.drop(key)
                case 1 | 2:
                    await each.put(key, value(one, str(step)))
                case _:
                    await each.swap(key, stamp(one), value(other, str(step)))
        assert await cache.get(key) == await model.get(key)


async def test_swap_is_atomic(server: RedisServer, cache: RedisCache) -> None:
    """Of many at once from one state one is first; all others find another state and drop it, or find none."""
    for _ in range(20):
        await cache.put(b"k", value("old"))
        await asyncio.gather(*(cache.swap(b"k", stamp("old"), value(f"new {n}")) for n in range(16)))
        found = await cache.get(b"k")
        assert found != value("old")
        assert found is None or found in [value(f"new {n}") for n in range(16)]


async def test_values_end(server: RedisServer) -> None:
    cache = RedisCache(server.url, ttl=600)
    await cache.put(b"k", value("a"))
    assert 0 < server.run("PTTL", PREFIX + b"k") <= 600_000
    server.run("PEXPIRE", PREFIX + b"k", 60_000)
    await cache.swap(b"k", stamp("a"), value("b"))
    assert server.run("PTTL", PREFIX + b"k") > 60_000
    await cache.close()


def test_event_loops_one_after_the_other_leave_no_connections(server: RedisServer) -> None:
    cache = RedisCache(server.url)
    before = connections(server)

    async def use(number: int) -> None:
        await asyncio.gather(*(cache.put(b"%d" % n, value(f"{number}")) for n in range(3)))
        await cache.swap(b"0", stamp(f"{number}"), value("next"))
        assert await cache.get(b"0") == value("next")

    for number in range(10):
        asyncio.run(use(number))
    wait_until(lambda: connections(server) <= before + 3)  # those of the last loop
    asyncio.run(cache.close())
    asyncio.run(cache.close())
    wait_until(lambda: connections(server) <= before)


def test_event_loops_of_several_threads_at_once(server: RedisServer) -> None:
    cache = RedisCache(server.url)
    before = connections(server)
    together = threading.Barrier(4)

    async def use(number: int) -> None:
        key = b"%d" % number
        for step in range(50):
            await cache.put(key, value(f"{step}", f"of {number}"))
            assert await cache.get(key) == value(f"{step}", f"of {number}")
            if step in (0, 48):
                await asyncio.to_thread(together.wait, 60)
        if number == 0:  # while the loops of the others go on
            await cache.close()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(asyncio.run, use(number)) for number in range(4)]:
            done.result(60)
    asyncio.run(cache.close())
    wait_until(lambda: connections(server) <= before)


def test_both_sides_of_a_fork(server: RedisServer) -> None:
    """In a process of its own, which has no threads when it forks."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, server.url], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


FORKING = """
import asyncio, os, sys
from daram.cache.redis import RedisCache

cache = RedisCache(sys.argv[1])
runner = asyncio.Runner()
runner.run(cache.put(b"k", b"before"))
runner.run(cache.put(b"parent", b"parent"))
child = os.fork()
if child == 0:
    async def use():
        for _ in range(200):
            await cache.put(b"child", b"child")
            assert await cache.get(b"child") == b"child"
    code = 1
    try:
        # That of the parent is seen as running no more, but its loop must not be touched.
        asyncio.run(use())
        code = 0
    finally:
        os._exit(code)

async def use():
    for _ in range(200):
        assert await cache.get(b"parent") == b"parent"

runner.run(use())
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert runner.run(cache.get(b"k")) == b"before"
runner.run(cache.close())
runner.close()
print("well")
"""


def connections(server: RedisServer) -> int:
    with server.connect() as client:
        return len(client.client_list(_type="normal"))


def wait_until(what: Callable[[], bool]) -> None:
    for _ in range(1200):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to be within a minute")


async def turn(store: Store, number: int) -> Appended:
    """A turn whose tail is what the engine holds."""
    done = await store.append("ann", "c", [user(str(number), id=str(number))], create=True, window=3)
    assert [m.id for m in done.tail] == [str(n) for n in range(max(0, number - 2), number + 1)]
    return done


async def test_whatever_happens_to_the_server_turns_are_right(own_server: RedisServer, tmp_path: Path) -> None:
    server = own_server
    clock = [0.0]
    cache = RedisCache(server.url)
    breaker = Breaker(budget=0.5, failures=2, pause=1000, clock=lambda: clock[0])
    async with CachedStore(SqliteStore(tmp_path / "daram.db"), cache, breaker=breaker) as store:
        key = PREFIX + conversation_key("ann", "c")
        for number in range(3):
            await turn(store, number)
        assert server.run("EXISTS", key) == 1
        server.flush()
        await turn(store, 3)
        server.run("SET", key, b"junk")
        await turn(store, 4)
        server.run("DEL", key)
        server.run("RPUSH", key, b"another type")
        await turn(store, 5)
        server.flush()
        server.run("SCRIPT", "FLUSH")
        await turn(store, 6)
        await asyncio.to_thread(server.kill)
        await turn(store, 7)
        await turn(store, 8)
        assert breaker.is_open
        await asyncio.to_thread(server.start)
        clock[0] += 1001
        await turn(store, 9)
        await turn(store, 10)
        assert not breaker.is_open
        assert server.run("EXISTS", key) == 1


async def test_a_stopped_server_costs_a_budget_until_the_breaker_opens(own_server: RedisServer) -> None:
    calls = 0

    class Counted(RedisCache):
        async def get(self, key: bytes) -> bytes | None:
            nonlocal calls
            calls += 1
            return await super().get(key)

    cache = Counted(own_server.url)
    breaker = Breaker(budget=0.05, failures=3, pause=3600)
    async with CachedStore(MemoryStore(), cache, breaker=breaker) as store:
        await turn(store, 0)
        assert own_server.process is not None
        os.kill(own_server.process.pid, signal.SIGSTOP)
        try:
            for number in range(1, 30):
                await turn(store, number)
            assert breaker.is_open
            calls = 0
            for number in range(30, 60):
                await turn(store, number)
            assert calls == 0
        finally:
            os.kill(own_server.process.pid, signal.SIGCONT)


# --- the machine, with a real server in place of the dictionary ---


class ServerValues(MutableMapping[bytes, bytes]):
    """What the server holds, past the cache's own client."""

    def __init__(self, client: Redis) -> None:
        self.client = client

    def __getitem__(self, key: bytes) -> bytes:
        if self.client.type(PREFIX + key) != b"string":
            raise KeyError(key)
        found: Any = self.client.get(PREFIX + key)
        return bytes(found)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.client.set(PREFIX + key, value)

    def __delitem__(self, key: bytes) -> None:
        if not self.client.delete(PREFIX + key):
            raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        names: Any = self.client.keys()
        return iter([name.removeprefix(PREFIX) for name in names if self.client.type(name) == b"string"])

    def __len__(self) -> int:
        return len(list(iter(self)))


class ServerCache(HostileCache):
    """``HostileCache`` around the real one: its moods come before and behind real calls."""

    def __init__(self, server: RedisServer, found: list[int]) -> None:
        self.inner = RedisCache(server.url)
        self.client = server.connect()
        self.found = found
        self.client.flushall()
        super().__init__()

    @property
    def values(self) -> MutableMapping[bytes, bytes]:
        return ServerValues(self.client)

    @values.setter
    def values(self, wanted: MutableMapping[bytes, bytes]) -> None:
        self.client.flushall()
        for key, each in wanted.items():
            self.client.set(PREFIX + key, each)

    async def get(self, key: bytes) -> bytes | None:
        await self._before()
        value = await self.inner.get(key)
        self.found[0] += value is not None
        return value

    async def put(self, key: bytes, value: bytes) -> None:
        await self._before()
        await self.inner.put(key, value)

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        await self._before()
        if self.mood == "breaks before":
            raise ConnectionError("cut before the change")
        if self.mood == "tears":
            await self.inner.put(key, value[: len(value) // 2])
            raise ConnectionError("cut in the middle of the change")
        await self.inner.swap(key, stamp, value)
        if self.mood == "breaks after":
            raise ConnectionError("cut behind the change")

    async def drop(self, key: bytes) -> None:
        await self._before()
        if self.mood == "breaks before":
            raise ConnectionError("cut before the change")
        await self.inner.drop(key)

    async def close(self) -> None:
        self.client.close()
        await self.inner.close()


class ServerMachine(CacheMachine):
    """What else can happen to a server."""

    budget = 0.03

    @rule()
    def cut_all_connections(self) -> None:
        self.cache.client.client_kill_filter(_type="normal", skipme=True)

    @rule()
    def forget_the_scripts(self) -> None:
        self.cache.client.script_flush()

    @rule(one=st.tuples(WHO, WHICH))
    def another_type(self, one: tuple[str, str]) -> None:
        name = PREFIX + conversation_key(*one)
        self.cache.client.delete(name)
        self.cache.client.rpush(name, b"x")


def _tiered(machine: CacheMachine) -> Cache:
    return TieredCache([MemoryCache(), machine.cache])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("front", ["alone", "behind memory"])
def test_no_turn_sees_stale_history(server: RedisServer, engine: str, front: str, tmp_path: Path) -> None:
    found, files = [0], iter(range(1 << 30))
    opened: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "sqlite": lambda: SqliteStore(tmp_path / f"{next(files)}.db", synchronous="OFF"),
    }

    class Machine(ServerMachine):
        open_engine = staticmethod(opened[engine])
        make_cache = staticmethod(lambda: ServerCache(server, found))

    if front != "alone":
        Machine.front = _tiered  # type: ignore[method-assign]
    run_state_machine_as_test(Machine, settings=settings(QUICK, max_examples=25, stateful_step_count=40))
    assert found[0] > 5, "the cache was hardly asked"
