"""What the Redis engine stores is deleted when it should be, and what is alive stays in its lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daram import ids
from daram.codec import to_micros
from daram.model import Conversation, LogEntry, Message, user
from daram.store.redis import keys
from daram.store.redis.engine import RedisStore
from daram.testing.servers import RedisCluster, RedisServer

PAST = datetime(2001, 1, 1, tzinfo=UTC)
HOUR = 3600 * 1_000_000


class Clock:
    """Moves the clocks of a store and of its scripts."""

    def __init__(self) -> None:
        self.offset = 0

    def __call__(self) -> int:
        return self.offset


@pytest.fixture(params=["server", "cluster"])
def place(request: pytest.FixtureRequest) -> RedisServer | RedisCluster:
    found: RedisServer | RedisCluster = request.getfixturevalue(f"redis_{request.param}")
    found.flush()
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(place: RedisServer | RedisCluster, clock: Clock) -> AsyncIterator[RedisStore]:
    store = RedisStore(place.url, clock_offset=clock)
    yield store
    await store.close()


def stored(place: RedisServer | RedisCluster) -> list[bytes]:
    """The keys that hold something of a conversation or a record; tombstones and lists hold none of their texts."""
    nodes = place.nodes if isinstance(place, RedisCluster) else [place]
    found = {key for node in nodes for key in node.run("KEYS", "daram:{*}:*")}
    return sorted(key for key in found if key.rpartition(b":")[2] not in (b"d", b"index", b"namespaces"))


async def index(store: RedisStore) -> list[Any]:
    return list(await store.server.do("ZRANGE", keys.index("ann"), 0, -1))


async def test_all_of_an_owner_takes_what_has_long_expired_although_it_was_listed(
    place: RedisServer | RedisCluster, store: RedisStore, clock: Clock
) -> None:
    await store.append("ann", "c", [user("secret", id="a")], create=True)
    await store.update("ann", "c", expires_at=PAST)
    clock.offset = HOUR
    assert (await store.list("ann")).items == []
    assert stored(place)
    assert await store.delete_owner("ann") == 1
    assert stored(place) == []
    assert await index(store) == []


async def test_all_of_an_owner_takes_what_an_evicting_server_left(
    place: RedisServer | RedisCluster, store: RedisStore, clock: Clock
) -> None:
    await store.append("ann", "c", [user("secret", id="a")], create=True)
    await store.server.do("DEL", keys.of_conversation(ids.conversation_key("ann", "c"))[0])
    clock.offset = HOUR
    assert (await store.list("ann")).items == []
    assert await store.delete_owner("ann") == 1
    assert stored(place) == []
    assert await index(store) == []


def loaded(seqs: range, updated_at: datetime) -> tuple[Conversation, list[LogEntry]]:
    entries = [
        LogEntry(message=Message(id=f"m{n}", role="user", text="secret", seq=n, created_at=updated_at), parent=n - 1)
        for n in seqs
    ]
    return Conversation(
        id="c", owner="ann", version=9, last_seq=seqs[-1], head=f"m{seqs[-1]}", created_at=PAST, updated_at=updated_at
    ), entries


async def test_all_of_an_owner_takes_what_is_half_loaded(
    place: RedisServer | RedisCluster, store: RedisStore, clock: Clock
) -> None:
    await store.load(*loaded(range(1, 3), PAST), leaves=[2], more=True)
    clock.offset = HOUR
    assert (await store.list("ann")).items == []
    assert await store.delete_owner("ann") == 1
    assert stored(place) == []


async def test_what_is_being_loaded_is_young(
    place: RedisServer | RedisCluster, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old the conversation is: a list that comes between must not forget it."""
    other = RedisStore(place.url)
    do = store.server.do

    async def looked_at(*command: Any, **options: Any) -> Any:
        reply = await do(*command, **options)
        await other.list("ann")
        return reply

    monkeypatch.setattr(store.server, "do", looked_at)
    await store.load(*loaded(range(1, 3), PAST), leaves=[2])
    assert [c.updated_at for c in (await store.list("ann")).items] == [PAST]
    await store.delete("ann", "c")
    half = await store.load(*loaded(range(1, 3), PAST), leaves=[2], more=True)
    assert (await store.list("ann")).items == []
    value, entries = loaded(range(3, 5), PAST)
    await store.load(value, entries, leaves=[4], expect=half.etag)
    assert [(c.id, c.updated_at) for c in (await store.list("ann")).items] == [("c", PAST)]
    score = await store.server.do("ZSCORE", keys.index("ann"), keys.index_member(ids.conversation_key("ann", "c"), "c"))
    assert int(float(score)) == to_micros(PAST)
    await other.close()


async def test_a_purge_whose_clock_is_ahead_leaves_what_has_time_left_to_the_next(
    place: RedisServer | RedisCluster, store: RedisStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        end = datetime.now(UTC) + timedelta(minutes=30)
        await store.create("ann", id=f"c{number}", expires_at=end)
    await store.create("ann", id="past", expires_at=PAST)
    here = store._clock
    monkeypatch.setattr(store, "_clock", lambda: here() + HOUR)  # of this process; the server's is right
    assert await store.purge() == 1
    monkeypatch.undo()
    assert await store.purge() == 0
    assert len((await store.list("ann")).items) == 3
    clock.offset = HOUR
    assert await store.purge() == 3
    assert stored(place) == []


async def test_a_purge_passes_over_what_other_nodes_do_not_hold_for_due(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node of a sweep's list has a clock of its own: a page full of what is not due yet must not hold it up."""
    redis_cluster.flush()
    store = RedisStore(redis_cluster.url)
    monkeypatch.setattr("daram.store.redis.lists._CHUNK", 2)
    monkeypatch.setattr("daram.store.redis.keys.SHARDS", 1)
    end = datetime.now(UTC) + timedelta(minutes=30)
    for number in range(5):
        await store.create("ann", id=f"c{number}", expires_at=end)
    await store.create("ann", id="late", expires_at=end + timedelta(minutes=1))
    await store.create("ann", id="kept", expires_at=end)
    await store.update("ann", "kept", expires_at=None)
    run, ahead = store.server.run, True

    async def skewed(name: str, names: Any, args: Any, **options: Any) -> Any:
        return await run(name, names, [HOUR, *args[1:]] if name == "due" and ahead else args, **options)

    monkeypatch.setattr(store.server, "run", skewed)
    assert await store.purge() == 0
    assert int(await store.server.do("ZCARD", keys.shards("expiry")[0])) == 6  # "kept" has no end any more
    await store.update("ann", "late", expires_at=PAST)
    assert await store.purge() == 1
    ahead = False
    for number in range(5):
        await store.update("ann", f"c{number}", expires_at=PAST)
    assert await store.purge() == 5
    assert [c.id for c in (await store.list("ann")).items] == ["kept"]
    await store.close()


@pytest.mark.parametrize("how", ["delete", "purge"])
async def test_what_is_made_anew_while_the_old_is_deleted_stays_listed(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    redis_cluster.flush()
    store, other = RedisStore(redis_cluster.url), RedisStore(redis_cluster.url)
    await store.append("ann", "c", [user("old")], create=True)
    if how == "purge":
        await store.update("ann", "c", expires_at=PAST)
    run = store.server.run

    async def overtaken(name: str, names: Any, args: Any, **options: Any) -> Any:
        reply = await run(name, names, args, **options)
        if name == "delete":
            await other.create("ann", id="c")
        return reply

    monkeypatch.setattr(store.server, "run", overtaken)
    if how == "delete":
        await store.delete("ann", "c")
    else:
        assert await store.purge() == 1
    assert [c.version for c in (await other.list("ann")).items] == [0]
    await store.close()
    await other.close()


async def test_a_namespace_that_is_written_while_its_owner_is_deleted_stays_known(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_cluster.flush()
    store, other = RedisStore(redis_cluster.url), RedisStore(redis_cluster.url)
    await store.put_record("ann", "n", "k", b"old")
    run = store.server.run

    async def overtaken(name: str, names: Any, args: Any, **options: Any) -> Any:
        reply = await run(name, names, args, **options)
        if name == "drop_records":
            await other.put_record("ann", "n", "k", b"new")
        return reply

    monkeypatch.setattr(store.server, "run", overtaken)
    await store.delete_owner("ann")
    assert await other.get_record("ann", "n", "k") is not None
    await other.delete_owner("ann")
    assert await other.get_record("ann", "n", "k") is None
    await store.close()
    await other.close()


async def test_a_purge_deletes_the_records_that_have_expired(
    place: RedisServer | RedisCluster, store: RedisStore, clock: Clock
) -> None:
    soon, later = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (30, 90))
    for space in ("m", "n"):
        for number in range(600):
            await store.put_record("ann", space, f"k{number}", b"secret", expires_at=soon)
    await store.put_record("ann", "n", "later", b"v", expires_at=later)
    await store.put_record("ann", "n", "longer", b"v", expires_at=soon)
    await store.put_record("ann", "n", "longer", b"v", expires_at=None)
    await store.put_record("ann", "past", "k", b"v", expires_at=PAST)
    assert await store.purge() == 0
    assert len(stored(place)) == 6
    clock.offset = HOUR
    assert await store.purge() == 0
    values, order, ends = keys.records("ann", "n")
    assert stored(place) == sorted(name.encode() for name in (values, order, ends))
    assert await store.server.do("ZRANGE", order, 0, -1) == [b"later", b"longer"]
    clock.offset = 2 * HOUR
    await store.purge()
    assert stored(place) == sorted(name.encode() for name in (values, order))
    assert await store.server.do("HLEN", values) == 2  # the record, and whose it is
    assert [await store.server.do("EXISTS", shard) for shard in keys.shards("records")] == [0] * keys.SHARDS


async def test_no_name_of_a_record_outlives_it(redis_server: RedisServer) -> None:
    redis_server.flush()
    store = RedisStore(redis_server.url)
    end = datetime.now(UTC) + timedelta(minutes=30)
    await store.put_record("ann", "n", "k", b"v", expires_at=end)
    await store.delete_record("ann", "n", "k")
    assert redis_server.run("KEYS", "*") == [keys.namespaces("ann").encode()]
    await store.put_record("ann", "n", "k", b"v", expires_at=end)
    await store.delete_owner("ann")
    assert redis_server.run("KEYS", "*") == []
    await store.close()
