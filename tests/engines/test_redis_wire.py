"""What the Redis engine sends: one round trip where it can, scripts in one slot, no command that walks the keyspace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import ConnectionPool
from redis.crc import key_slot
from redis.exceptions import MaxConnectionsError
from tests.faults.wire import Wire

from daram import ids
from daram.model import assistant, user
from daram.store.primitives import Ref
from daram.store.redis import keys
from daram.store.redis.client import SCRIPTS
from daram.store.redis.engine import RedisStore
from daram.store.redis.lanes import Lanes, pack
from daram.testing.servers import RedisCluster, RedisServer

ALLOWED = {
    "evalsha", "eval", "time", "exists", "get", "set", "del", "unlink",
    "hget", "hmget", "hset", "hdel", "hexists", "hkeys",
    "lindex", "lrange", "lset", "rpush",
    "zadd", "zrem", "zscore", "zrange", "zrangebyscore", "zrevrange", "zrevrangebyscore", "zrangebylex",
    "sadd", "srem", "smembers",
    "config|get", "info", "script|load",
}  # fmt: skip
# Those of the driver when it connects, and of the tests themselves.
_DRIVER = {"client|setinfo", "hello", "config|resetstat", "ping", "client|setname", "flushall", "select"}


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    found: RedisServer = request.getfixturevalue(f"{request.param}_server")
    found.flush()
    return found


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(server.url)
    yield store
    await store.close()


async def everything(store: RedisStore) -> None:
    """Each operation at least once, branches and sweeps included."""
    await store.create("ann", id="c", title="t", metadata={"k": "v"})
    await store.append("ann", "c", [user("a", id="a"), user("b", id="b")], create=True, window=5)
    await store.append("ann", "c", [user("x", id="x")], parent="a", window=5)
    await store.use_branch("ann", "c", "b")
    turn = await store.begin_turn("ann", "c", [user("q", id="q")], window=5)
    assert turn.answer is not None
    await store.checkpoint("ann", "c", turn.answer.id, turn.answer.token, "half")
    await store.answers("ann", "c")
    await store.cancel_turn("ann", "c")
    await store.finish_turn("ann", "c", turn.answer.id, turn.answer.token, text="whole")
    await store.begin_turn("ann", "c", [user("late")], lease=0.001)
    await store.recover()
    await store.tail("ann", "c")
    for order in ("asc", "desc"):
        page = await store.messages("ann", "c", limit=2, order=order)
        await store.messages("ann", "c", limit=2, cursor=page.next_cursor, order=order)
    await store.branches("ann", "c", "b")
    await store.delete_message("ann", "c", "a")
    await store.search("ann", "b", conversation="c")
    await store.list("ann")
    await store.put_record("ann", "n", "k", b"v")
    await store.get_record("ann", "n", "k")
    await store.scan_records("ann", "n")
    await store.delete_record("ann", "n", "k")
    await store.purge()
    await store.describe()
    await store.delete("ann", "c")
    await store.delete_owner("ann")


def stats(server: RedisServer) -> dict[str, int]:
    with server.connect() as client:
        found = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(value["calls"]) for name, value in found.items()}


async def test_only_commands_that_cost_by_what_they_return(server: RedisServer, store: RedisStore) -> None:
    server.run("CONFIG", "RESETSTAT")
    await everything(store)
    assert set(stats(server)) - _DRIVER <= ALLOWED


async def test_nothing_stays_behind(server: RedisServer, store: RedisStore) -> None:
    await everything(store)
    left = server.run("KEYS", "*")
    tombstones = [key for key in left if key.endswith(b":d")]
    assert left == tombstones
    assert all(0 < server.run("PTTL", key) <= 24 * 3600 * 1000 for key in tombstones)


async def test_one_round_trip(server: RedisServer) -> None:
    async with Wire(server.port) as wire:
        store = RedisStore(server.url_of(port=wire.port))
        await everything(store)  # connected, scripts known

        async def count(work: object) -> int:
            before = wire.round_trips
            await work  # type: ignore[misc]
            return wire.round_trips - before

        assert await count(store.append("ann", "n", [user("first")], create=True, window=20)) == 1
        assert await count(store.append("ann", "n", [user("next")], create=True, window=20)) == 1
        assert await count(store.append("ann", "n", [user("next")], window=1000)) == 1
        assert await count(store.tail("ann", "n", 1000)) == 1
        assert await count(store.messages("ann", "n")) == 1
        before = wire.round_trips
        turn = await store.begin_turn("ann", "n", [user("q")], create=True, window=20)
        assert wire.round_trips - before == 1
        assert turn.answer is not None
        held = ("ann", "n", turn.answer.id, turn.answer.token)
        assert await count(store.checkpoint(*held, "half")) == 1
        assert await count(store.finish_turn(*held, text="whole")) == 1
        for number in range(60):
            await store.append("ann", f"n{number}", [user("x")], create=True)
        assert await count(store.list("ann", limit=50)) == 2  # the index, then all conversations of the page at once
        assert await count(store.put_record("ann", "n", "k", b"v")) == 1
        assert await count(store.get_record("ann", "n", "k")) == 1
        await store.close()


async def test_many_at_once_share_connections(server: RedisServer, store: RedisStore) -> None:
    await store.create("ann", id="c")
    done = await asyncio.gather(*(store.append("ann", "c", [user(str(n), id=str(n))]) for n in range(300)))
    assert sorted(each.version for each in done) == list(range(1, 301))
    assert all(each.messages[0].text == str(n) for n, each in enumerate(done))
    with server.connect() as client:
        assert client.info("clients")["connected_clients"] <= 70


async def test_all_connections_in_use(server: RedisServer) -> None:
    async with Wire(server.port) as wire:
        pool = ConnectionPool.from_url(server.url_of(port=wire.port), protocol=2)
        lanes = Lanes(pool, 60, 1)
        assert await lanes.ask(pack(("PING",))) == [b"PONG"]
        wire.silent = True
        held = asyncio.create_task(lanes.ask(pack(("SET", "k", "v"))))
        while server.run("GET", "k") is None:
            await asyncio.sleep(0.01)
        lanes._timeout = 0.1
        with pytest.raises(MaxConnectionsError):
            await lanes.ask(pack(("PING",)))
        wire.silent = False
        assert await held == [b"OK"]
        await lanes.close()
        await pool.disconnect()


async def test_the_reply_to_a_call_that_was_given_up_is_nobody_elses(server: RedisServer) -> None:
    async with Wire(server.port) as wire:
        store = RedisStore(server.url_of(port=wire.port))
        await store.append("ann", "c", [user("a", id="a")], create=True)
        wire.silent = True
        given_up = asyncio.create_task(store.append("ann", "c", [user("b", id="b")]))
        name = keys.of_conversation(ids.conversation_key("ann", "c"))[1]
        while server.run("LLEN", name) < 2:
            await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        wire.silent = False
        for _ in range(3):
            assert [m.id for m in await store.tail("ann", "c")] == ["a", "b"]
            assert (await store.get("ann", "c")).version == 2
        await store.close()


async def test_a_scan_of_all_records_is_cut_into_pages(server: RedisServer) -> None:
    async with Wire(server.port) as wire:
        store = RedisStore(server.url_of(port=wire.port))
        wanted = {("ann", "large", f"{n:04}") for n in range(250)}
        wanted |= {(f"owner {n}", "small", key) for n in range(70) for key in ("a", "b", "c")}
        for owner, namespace, key in wanted:
            await store.put_record(owner, namespace, key, b"v")
        found: set[tuple[str, str, str]] = set()
        cursor = None
        while True:
            before = wire.round_trips
            page = await store.scan_all_records(limit=100, cursor=cursor)
            # Once at the keyspace, once each for whose they are, the keys and the values; the first opens a connection.
            assert wire.round_trips - before <= (4 if cursor else 8)
            assert len(page.items) <= 100
            found |= {(each.owner, each.record.namespace, each.record.key) for each in page.items}
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == wanted
        await store.close()


async def test_a_turn_costs_the_same_however_long_the_conversation_is(server: RedisServer, store: RedisStore) -> None:
    async def turn(number: int) -> int:
        before = sum(stats(server).values())
        done = await store.begin_turn("ann", "c", [user("q", id=f"q{number}")], create=True, window=20)
        assert done.answer is not None
        await store.finish_turn("ann", "c", done.answer.id, done.answer.token, text="a")
        assert len(await store.tail("ann", "c", 20)) == min(20, (await store.get("ann", "c")).last_seq)
        return sum(stats(server).values()) - before

    for number in range(30):
        await turn(number)
    early = await turn(1000)
    for number in range(40):
        await store.append("ann", "c", [assistant(f"{number} {i}") for i in range(100)])
    assert await turn(2000) == early


@pytest.mark.parametrize("owner", ["ann", "다람쥐", "{a}", "a}b{c", "x" * 256])
def test_all_keys_of_a_script_are_in_one_slot(owner: str) -> None:
    conversation = keys.of_conversation(ids.conversation_key(owner, "{c}"))
    assert len({key_slot(key.encode()) for key in conversation}) == 1
    assert len({key_slot(key.encode()) for key in keys.records(owner, "{n}")}) == 1


async def test_a_cluster_gets_no_key_of_another_slot(redis_cluster: RedisCluster) -> None:
    redis_cluster.flush()
    store = RedisStore(redis_cluster.url)
    await everything(store)
    for number in range(50):  # all three nodes
        await store.append(f"owner {number}", "c", [user("x")], create=True)
        assert len(store._keys(Ref(f"owner {number}", "c", ids.conversation_key(f"owner {number}", "c")))) == 9
    assert all(node.run("DBSIZE") > 0 for node in redis_cluster.primaries)
    await store.close()


async def test_scripts_that_the_server_forgot_are_sent_again(server: RedisServer, store: RedisStore) -> None:
    await store.append("ann", "c", [user("a")], create=True)
    server.run("SCRIPT", "FLUSH")
    await store.append("ann", "c", [user("b")])
    server.run("SCRIPT", "FLUSH")
    assert [c.id for c in (await store.list("ann")).items] == ["c"]
    assert len(await store.tail("ann", "c")) == 2


async def test_large_batches_and_windows(server: RedisServer) -> None:
    store = RedisStore(server.url, timeout=240)  # 100 MiB in one command take a busy machine more than ten seconds
    megabyte = "x" * (1 << 20)
    batch = [user(megabyte, id=str(number)) for number in range(100)]
    done = await store.append("ann", "large", batch, create=True, window=1)
    assert [m.id for m in done.tail] == ["99"]
    assert (await store.append("ann", "large", batch)).etag == done.etag  # a repetition
    for number in range(11):
        await store.append("ann", "long", [user("x", id=f"{number}.{i}") for i in range(100)], create=True, window=1000)
    tail = await store.tail("ann", "long", 1000)
    assert [tail[0].id, tail[-1].id, len(tail)] == ["1.0", "10.99", 1000]
    await store.close()


def test_all_scripts_are_there() -> None:
    assert {"append", "begin", "finish", "tail", "forget", "settle"} <= set(SCRIPTS)
