"""``?wait=N``: what is acknowledged is on N replicas, also where the call only finds what an earlier one stored."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from daram.errors import OutcomeUnknown
from daram.model import user
from daram.store.redis.engine import RedisStore
from daram.testing.servers import RedisServer


@pytest.fixture(params=["redis", "valkey"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[RedisServer, RedisServer]]:
    primary = RedisServer(request.param)
    replica = RedisServer(request.param, {"replicaof": f"127.0.0.1 {primary.port}"})
    with primary, replica:
        replica.wait_for("replication", "master_link_status", "up")
        yield primary, replica


async def until_it_is_there(store: RedisStore, id: str) -> None:
    """Repeat until a replica has it: it counts for WAIT a moment after its link is up or it goes on."""
    while True:
        try:
            await store.append("ann", "c", [user(id, id=id)], create=True)
            return
        except OutcomeUnknown:
            pass


async def test_a_repeated_write_is_not_acknowledged_before_the_replica_has_it(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    primary, replica = pair
    first, second = (RedisStore(primary.url, wait=1, timeout=4) for _ in range(2))
    for store in (first, second):
        await until_it_is_there(store, "kept")
    assert replica.process is not None
    os.kill(replica.process.pid, signal.SIGSTOP)
    try:
        for store in (first, second, first):
            with pytest.raises(OutcomeUnknown, match="0 of 1 replicas"):
                await store.append("ann", "c", [user("x", id="x")])
    finally:
        os.kill(replica.process.pid, signal.SIGCONT)
    await until_it_is_there(second, "x")
    away = RedisStore(replica.url)
    assert [m.id for m in await away.tail("ann", "c")] == ["kept", "x"]
    for store in (first, second, away):
        await store.close()


async def test_a_full_primary_can_still_be_waited_for(pair: tuple[RedisServer, RedisServer]) -> None:
    primary, replica = pair
    store = RedisStore(primary.url, wait=1, timeout=60)
    await until_it_is_there(store, "kept")
    primary.run("CONFIG", "SET", "maxmemory", "1")
    await store.delete("ann", "c")
    primary.run("CONFIG", "SET", "maxmemory", "0")
    away = RedisStore(replica.url)
    assert (await away.list("ann")).items == []
    await store.close()
    await away.close()
