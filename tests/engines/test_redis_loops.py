"""One store and many event loops, one after another and at once: each has connections of its own, and none leaks."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from daram.model import user
from daram.store.redis.engine import RedisStore
from daram.testing.servers import RedisCluster, RedisServer


@pytest.fixture(params=["server", "cluster"])
def place(request: pytest.FixtureRequest) -> RedisServer | RedisCluster:
    found: RedisServer | RedisCluster = request.getfixturevalue(f"redis_{request.param}")
    found.flush()
    return found


def test_loops_that_open_it_at_once(place: RedisServer | RedisCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tasks of each: some wait for the opening of another while another loop is at it too."""
    store = RedisStore(place.url)
    set_up, together = store._set_up, threading.Barrier(3)

    async def slowly() -> None:
        await asyncio.to_thread(together.wait, 60)
        await set_up()

    monkeypatch.setattr(store, "_set_up", slowly)

    async def use(number: int) -> None:
        tasks = [store.append("ann", f"c{number}", [user(str(n))], create=True) for n in range(5)]
        await asyncio.gather(*tasks)
        await store.server.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: asyncio.run(asyncio.wait_for(use(number), 120)), range(3)))

    async def count() -> int:
        found = (await store.list("ann")).items
        await store.close()
        return sum(each.version for each in found)

    assert asyncio.run(count()) == 15
    assert not store._ready


def connected(place: RedisServer | RedisCluster) -> int:
    nodes = place.nodes if isinstance(place, RedisCluster) else [place]
    total = 0
    for node in nodes:
        with node.connect() as client:
            total += int(client.info("clients")["connected_clients"])
    return total


def test_loops_that_ended_without_closing_leave_no_connection(place: RedisServer | RedisCluster) -> None:
    store = RedisStore(place.url)

    async def use() -> None:
        await asyncio.gather(*(store.append("ann", "c", [user(str(n))], create=True) for n in range(5)))

    asyncio.run(use())
    once = connected(place)
    for _ in range(5):
        asyncio.run(use())
    assert len(store.server._clients) == 1
    deadline = time.monotonic() + 60
    while connected(place) > once + 5:  # the server notices in its own time; some loops open more than others
        assert time.monotonic() < deadline, connected(place)
        time.sleep(0.05)

    async def close() -> None:
        await store.list("ann")
        await store.close()

    asyncio.run(close())
    assert not store.server._clients
