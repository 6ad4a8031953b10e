"""What can happen to a PostgreSQL server and to the way to it: typed errors, nothing lost, nothing stored twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.postgres import TEMPLATE, Databases

from daram.errors import (
    LeaseLost,
    OutcomeUnknown,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from daram.model import Message, user
from daram.store.postgres.engine import PostgresStore
from daram.testing.proxy import TcpProxy
from daram.testing.servers import PostgresServer

OWNER = "ann"
PATIENCE = 30.0


@pytest.fixture
def url(databases: Databases) -> str:
    return databases.url("faults")


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    """A store with a message in the conversation "c"."""
    made = PostgresStore(url)
    await made.append(OWNER, "c", [user("there", id="there")], create=True)
    yield made
    await made.close()


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(postgres_server.port) as proxy:
        proxy.about = b'"daram".'  # statements of the store: not what is said while a connection is made
        yield proxy


@pytest.fixture
async def through(databases: Databases, proxy: TcpProxy) -> AsyncIterator[PostgresStore]:
    """A store behind the proxy, with one connection made, and a message in the conversation "c"."""
    made = PostgresStore(databases.url("faults", port=proxy.port), timeout=PATIENCE)
    await made.append(OWNER, "c", [user("there", id="there")], create=True)
    yield made
    proxy.silent = proxy.refusing = False
    await made.close()


@pytest.fixture
def other(databases: Databases) -> Iterator[psycopg.Connection]:
    """Another session on the same database, in a transaction of its own."""
    with psycopg.connect(databases.url("faults"), connect_timeout=10) as connection:
        yield connection


def hold(other: psycopg.Connection, conversation: str = "c") -> None:
    """Lock a conversation's row."""
    other.execute("SELECT 1 FROM daram.conversation WHERE id = %s FOR UPDATE", (conversation,))


async def names(store: PostgresStore, id: str) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.messages(OWNER, id, limit=1000, cursor=cursor)
        found += [m.id for m in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


class Writers:
    """Tasks that append to conversations of their own until they are told to stop."""

    def __init__(self, store: PostgresStore, count: int) -> None:
        self.store = store
        self._stop = asyncio.Event()
        self.acknowledged: dict[str, list[str]] = {f"w{n}": [] for n in range(count)}
        self.open_ends: dict[str, list[Message]] = {name: [] for name in self.acknowledged}
        self._tasks = [asyncio.create_task(self._write(name)) for name in self.acknowledged]

    async def _write(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            message = user(f"{name} {number}", id=f"{name}-{number}")
            number += 1
            try:
                await self.store.append(OWNER, name, [message], create=True)
            except OutcomeUnknown:
                self.open_ends[name].append(message)
            except (StoreBusy, StoreUnavailable):
                await asyncio.sleep(0.01)
            else:
                self.acknowledged[name].append(message.id)

    async def progress(self) -> None:
        """Wait until each has been acknowledged once more."""
        before = {name: len(ids) for name, ids in self.acknowledged.items()}
        while any(len(ids) == before[name] for name, ids in self.acknowledged.items()):
            await asyncio.sleep(0.005)

    async def check(self) -> None:
        """Stop, and see that nothing was lost or doubled."""
        await self.progress()
        self._stop.set()
        await asyncio.gather(*self._tasks)
        for name, acknowledged in self.acknowledged.items():
            await check_once(self.store, name, acknowledged, self.open_ends[name])


async def check_once(store: PostgresStore, name: str, acknowledged: list[str], open_ends: list[Message]) -> None:
    """What was acknowledged is there once, in order; what is not known is there once after it was repeated."""
    found = await names(store, name)
    assert [id for id in found if id in set(acknowledged)] == acknowledged
    assert len(found) == len(set(found))
    assert set(found) <= {*acknowledged, *(m.id for m in open_ends)}
    for message in open_ends:
        await store.append(OWNER, name, [message], create=True)
    assert sorted(await names(store, name)) == sorted([*acknowledged, *(m.id for m in open_ends)])


# --- the way to the server ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lose", "drop"])
async def test_one_cut_changes_nothing(through: PostgresStore, proxy: TcpProxy, how: str) -> None:
    """The connection is cut behind or in front of the server's work: each call is sent again, and recognised."""

    async def cut(call: Awaitable[Any]) -> Any:
        setattr(proxy, how, 1)
        result = await call
        assert getattr(proxy, how) == 0
        return result

    assert (await cut(through.create(OWNER, id="d", title="t"))).version == 0
    assert (await cut(through.append(OWNER, "d", [user("a", id="a")], expect=0))).version == 1
    assert (await cut(through.update(OWNER, "d", title="u"))).version == 2
    turn = await cut(through.begin_turn(OWNER, "d", [user("q", id="q")], answer_id="r", window=5))
    assert turn.state == "started"
    assert [m.id for m in turn.appended.tail] == ["a", "q"]
    token = turn.answer.token
    assert await cut(through.checkpoint(OWNER, "d", "r", token, "half")) is False
    assert await cut(through.cancel_turn(OWNER, "d")) == 1
    assert (await cut(through.finish_turn(OWNER, "d", "r", token, text="whole"))).version == 4
    assert (await cut(through.begin_turn(OWNER, "d", [], answer_id="s", parent="q"))).state == "started"
    assert (await cut(through.delete_message(OWNER, "d", "a"))).version == 5
    assert (await cut(through.use_branch(OWNER, "d", "q"))).version == 6
    for read in (through.tail(OWNER, "d"), through.get(OWNER, "d"), through.list(OWNER), through.search(OWNER, "q")):
        await cut(read)
    first = await cut(through.put_record(OWNER, "n", "k", b"1", expect=None))
    second = await cut(through.put_record(OWNER, "n", "k", b"2", expect=first.etag))
    await cut(through.put_record(OWNER, "n", "k", b"3"))
    assert second.value == b"2"
    assert await cut(through.recover(owner=OWNER, id="d")) == []
    await cut(through.delete(OWNER, "d"))
    assert await names(through, "c") == ["there"]


async def test_a_cut_where_a_repetition_would_not_be_recognised(through: PostgresStore, proxy: TcpProxy) -> None:
    await through.put_record(OWNER, "n", "k", b"1")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "delete_record": lambda: through.delete_record(OWNER, "n", "k"),
        "purge": through.purge,
        "delete_owner": lambda: through.delete_owner("nobody"),
    }
    for call in calls.values():
        proxy.lose = 1
        with pytest.raises(OutcomeUnknown):
            await call()
        await call()


async def test_two_cuts_leave_the_outcome_open(through: PostgresStore, proxy: TcpProxy) -> None:
    proxy.about, proxy.lose = b"append_one", 2
    message = user("a", id="a")
    with pytest.raises(OutcomeUnknown, match="same ids"):
        await through.append(OWNER, "c", [message])
    assert proxy.lose == 0
    proxy.about, proxy.drop = b"tail", 2
    with pytest.raises(StoreUnavailable):
        await through.tail(OWNER, "c")
    done = await through.append(OWNER, "c", [message])
    assert (done.version, done.previous_etag) == (2, done.etag)
    assert await names(through, "c") == ["there", "a"]


async def test_a_cut_whose_repetition_finds_no_server(through: PostgresStore, proxy: TcpProxy) -> None:
    proxy.lose = 1
    call = asyncio.ensure_future(through.append(OWNER, "c", [user("a", id="a")]))
    while proxy.lose:
        await asyncio.sleep(0)
    proxy.refusing = True
    with pytest.raises(OutcomeUnknown):
        await call
    with pytest.raises(StoreUnavailable):
        await through.append(OWNER, "c", [user("b", id="b")])
    proxy.refusing = False
    assert (await through.append(OWNER, "c", [user("a", id="a")])).version == 2
    assert await names(through, "c") == ["there", "a"]


async def test_a_black_hole_holds_nobody_for_ever(
    through: PostgresStore, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(through.pool, "_timeout", 0.5)
        patch.setattr(through.pool, "_wait", 0.5)
        impatient = make_conninfo(through.pool.conninfo, connect_timeout=2)
        patch.setattr(through.pool._home().lanes, "_conninfo", impatient)
        proxy.silent = True
        with pytest.raises(OutcomeUnknown):
            await through.append(OWNER, "c", [user("a", id="a")])
        with pytest.raises((StoreBusy, StoreUnavailable)):
            await through.tail(OWNER, "c")
    await proxy.cut()
    proxy.silent = False
    await through.append(OWNER, "c", [user("a", id="a")])
    assert await names(through, "c") == ["there", "a"]


async def test_a_slow_way_is_only_slow(through: PostgresStore, proxy: TcpProxy) -> None:
    proxy.delay = 0.05
    await asyncio.gather(*(through.append(OWNER, "c", [user(str(i), id=str(i))]) for i in range(8)))
    proxy.delay = 0
    assert sorted(await names(through, "c")) == sorted(["there", *map(str, range(8))])


async def test_random_cuts_lose_and_double_nothing(through: PostgresStore, proxy: TcpProxy) -> None:
    writers = Writers(through, 8)
    await writers.progress()
    for _ in range(30):
        await asyncio.sleep(0.05)
        proxy.lose = 1
        await asyncio.sleep(0.02)
        await proxy.cut()
    proxy.lose = 0
    await writers.check()


# --- the server -----------------------------------------------------------------------------------------------------


async def test_terminated_backends_lose_and_double_nothing(
    store: PostgresStore, databases: Databases, postgres_server: PostgresServer
) -> None:
    writers = Writers(store, 8)
    ended = 0
    while ended < 30:
        await writers.progress()
        ended += await asyncio.to_thread(postgres_server.terminate, databases.name("faults"))
    await writers.check()


async def test_idle_connections_that_were_ended_are_not_noticed(
    store: PostgresStore, databases: Databases, postgres_server: PostgresServer
) -> None:
    await asyncio.gather(*(store.append(OWNER, f"x{i}", [user("x")], create=True) for i in range(20)))
    assert await asyncio.to_thread(postgres_server.terminate, databases.name("faults")) > 0
    await asyncio.gather(*(store.append(OWNER, f"y{i}", [user("y")], create=True) for i in range(20)))
    assert len((await store.list(OWNER, limit=100)).items) == 41


async def test_kill_9_loses_and_doubles_nothing() -> None:
    with PostgresServer() as server:
        store = PostgresStore(server.url, pool_wait=60)
        await store.append(OWNER, "c", [user("there", id="there")], create=True)
        writers = Writers(store, 6)
        for _ in range(3):
            await writers.progress()
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)
        await writers.check()
        assert await names(store, "c") == ["there"]
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreUnavailable):
            await store.tail(OWNER, "c")
        with pytest.raises(StoreUnavailable):
            await store.append(OWNER, "c", [user("a", id="a")])
        with pytest.raises(StoreUnavailable):
            await PostgresStore(server.url).describe()
        await asyncio.to_thread(server.start)
        await store.append(OWNER, "c", [user("a", id="a")])
        assert await names(store, "c") == ["there", "a"]
        await store.close()


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
async def test_a_time_out_of_the_server_is_busy(
    store: PostgresStore, url: str, databases: Databases, other: psycopg.Connection, setting: str
) -> None:
    name = sql.Identifier(databases.name("faults"))
    databases.server.run(sql.SQL("ALTER DATABASE {} SET {} = '100ms'").format(name, sql.Identifier(setting)))
    try:
        limited = PostgresStore(url)
        hold(other)
        with pytest.raises(StoreBusy) as caught:
            await limited.append(OWNER, "c", [user("a", id="a")])
        assert caught.value.retryable
        other.rollback()
        await store.append(OWNER, "c", [user("a", id="a")])
        assert await names(store, "c") == ["there", "a"]
        await limited.close()
    finally:
        databases.server.run(sql.SQL("ALTER DATABASE {} RESET {}").format(name, sql.Identifier(setting)))


async def test_the_time_out_of_a_call_cancels_it(
    store: PostgresStore, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(other)
    with monkeypatch.context() as patch:
        patch.setattr(store.pool, "_timeout", 0.3)
        with pytest.raises(OutcomeUnknown):
            await store.append(OWNER, "c", [user("a", id="a")])
    other.rollback()
    await store.append(OWNER, "c", [user("a", id="a")])
    assert await names(store, "c") == ["there", "a"]


async def test_a_full_pool_is_busy(
    store: PostgresStore,
    url: str,
    databases: Databases,
    other: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = PostgresStore(url, pool_size=2, pool_wait=60)
    await small.tail(OWNER, "c")
    hold(other)
    waiting = [asyncio.create_task(small.append(OWNER, "c", [user(str(i), id=str(i))])) for i in range(2)]
    with databases.server.connect(databases.name("faults")) as watcher:
        while _waiting_sessions(watcher) < 2:
            await asyncio.sleep(0.01)
    with monkeypatch.context() as patch:
        patch.setattr(small.pool, "_wait", 0.3)
        with pytest.raises(StoreBusy, match="pool_size"):
            await small.append(OWNER, "d", [user("x")], create=True)
        with pytest.raises(StoreBusy, match="pool_size"):
            await small.tail(OWNER, "c")
    other.rollback()
    await asyncio.gather(*waiting)
    await small.append(OWNER, "d", [user("x")], create=True)
    assert sorted(await names(store, "c")) == ["0", "1", "there"]
    await small.close()


def _waiting_sessions(watcher: psycopg.Connection) -> int:
    row = watcher.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return int(row.fetchone()[0])  # type: ignore[index]


async def test_a_server_without_room_for_connections_is_busy(url: str, databases: Databases) -> None:
    databases.server.run("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    try:
        with pytest.raises(StoreBusy, match="too many connections"):
            await PostgresStore(url.replace("daram@", "crowded@"), pool_wait=60).describe()
    finally:
        databases.server.run("DROP ROLE crowded")


async def test_a_server_that_only_reads(
    store: PostgresStore, databases: Databases, postgres_server: PostgresServer
) -> None:
    name = sql.Identifier(databases.name("faults"))
    databases.server.run(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    postgres_server.terminate(databases.name("faults"))
    try:
        assert await names(store, "c") == ["there"]
        for call in (
            store.append(OWNER, "c", [user("a", id="a")]),
            store.create(OWNER, id="d"),
            store.begin_turn(OWNER, "c", [user("q")]),
            store.update(OWNER, "c", title="t"),
            store.delete(OWNER, "c"),
            store.put_record(OWNER, "n", "k", b""),
            store.purge(),
        ):
            with pytest.raises(StoreReadOnly):
                await call
        with pytest.raises((LeaseLost, StoreReadOnly)):
            await store.checkpoint(OWNER, "c", "x", "t", "x")
    finally:
        databases.server.run(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
    # As after a failover: the connection that only reads is let go of, the next one can write.
    await store.append(OWNER, "c", [user("a", id="a")])
    assert await names(store, "c") == ["there", "a"]


async def test_a_full_disk(store: PostgresStore, databases: Databases) -> None:
    """The server's own refusal, raised by a trigger where a full disk would raise it."""
    with databases.server.connect(databases.name("faults")) as connection:
        connection.execute(
            "CREATE FUNCTION public.no_room() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        connection.execute("CREATE TRIGGER no_room BEFORE INSERT ON daram.message EXECUTE FUNCTION public.no_room()")
        try:
            with pytest.raises(StoreFull) as caught:
                await store.append(OWNER, "c", [user("a", id="a")])
            assert caught.value.retryable
            with pytest.raises(StoreFull):
                await store.append(OWNER, "new", [user("a", id="a")], create=True)
        finally:
            connection.execute("DROP FUNCTION public.no_room() CASCADE")
    await store.append(OWNER, "c", [user("a", id="a")])
    assert await names(store, "c") == ["there", "a"]
    assert [c.id for c in (await store.list(OWNER)).items] == ["c"]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_stricter_isolation_is_tried_again(url: str, databases: Databases, isolation: str) -> None:
    name = sql.Identifier(databases.name("faults"))
    command = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}")
    databases.server.run(command.format(name, sql.Literal(isolation)))
    try:
        async with PostgresStore(url, pool_size=4) as store:
            await asyncio.gather(*(store.append(OWNER, "c", [user(str(i), id=str(i))], create=True) for i in range(24)))
            assert sorted(await names(store, "c"), key=int) == [str(i) for i in range(24)]
            assert (await store.get(OWNER, "c")).version == 24
    finally:
        databases.server.run(sql.SQL("ALTER DATABASE {} RESET default_transaction_isolation").format(name))


async def test_a_wrong_password_and_a_missing_database(postgres_server: PostgresServer) -> None:
    postgres_server.require_password("locked", "the right one")
    with pytest.raises(StoreUnavailable, match="password") as caught:
        await PostgresStore(postgres_server.url.replace("daram@", "locked:wrongsecret@")).describe()
    assert "wrongsecret" not in str(caught.value)
    with pytest.raises(StoreUnavailable, match="nowhere") as caught:
        await PostgresStore(postgres_server.url_of("nowhere")).describe()
    with pytest.raises(StoreError) as other_error:
        await PostgresStore("postgresql://u:wrongsecret@127.0.0.1:1/x", pool_wait=60).describe()
    assert "wrongsecret" not in str(other_error.value)


async def test_every_error_is_ours(postgres_server: PostgresServer, databases: Databases) -> None:
    """Whatever the server says becomes a child of StoreError that names it."""
    assert TEMPLATE
    with databases.server.connect(databases.name("faults")) as connection:
        connection.execute(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'as you wish' USING ERRCODE = TG_ARGV[0]; END $$"
        )
        try:
            async with PostgresStore(databases.url("faults")) as store:
                for code, kind in {
                    "53200": StoreBusy,
                    "53400": StoreBusy,
                    "57014": StoreBusy,
                    "XX001": StoreError,
                    "42501": StoreReadOnly,
                    "22012": StoreError,
                    "40001": StoreBusy,
                    "40P01": StoreBusy,
                }.items():
                    trigger = sql.SQL(
                        "CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON daram.message"
                        " EXECUTE FUNCTION public.refuse({})"
                    )
                    connection.execute(trigger.format(sql.Literal(code)))
                    with pytest.raises(kind, match="as you wish"):
                        await store.append(OWNER, "c", [user("a")], create=True)
                connection.execute("DROP TRIGGER refuse ON daram.message")
                await store.append(OWNER, "c", [user("a")], create=True)
        finally:
            connection.execute("DROP FUNCTION public.refuse() CASCADE")
