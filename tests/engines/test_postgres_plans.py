"""P5 on PostgreSQL: what an operation costs does not depend on how much is stored, by its plans, rows and round trips.

The server explains every statement into its log (auto_explain; the statements inside of functions too): no plan may
read a table from its beginning to its end, and the rows that the plans touched are counted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql
from tests.postgres import TEMPLATE, Databases

from daram import ids
from daram.errors import Conflict
from daram.model import ROOT, assistant, user
from daram.store.documents import PassageHit, Scope, Unembedded
from daram.store.postgres.documents import fence_of, place_of
from daram.store.postgres.engine import PostgresStore, _append_values
from daram.store.postgres.index import Search, terms
from daram.store.primitives import AppendSpec, Ref
from daram.testing.proxy import TcpProxy
from daram.testing.servers import PostgresServer
from daram.testing.suite.documents import add, document, passage

OWNER = "owner"
MANY = Scope("many", "c")

# --- a store with much in it ----------------------------------------------------------------------------------------

# The same rows as appends would make, made by the server: "long" has half of all messages in one line, "forked" 5,000
# with an edit at every tenth, the rest is in conversations of ten messages that belong to a hundred owners.
_FILL = """
INSERT INTO daram.conversation
    (key, owner, id, version, etag, last_seq, head, head_id, branched, created_at, updated_at, expires_at)
SELECT decode(md5('other' || c), 'hex'), 'other' || c %% 100, 'c' || c, 10, 'e' || c, 10, 10, 'm10', false, c, c,
       CASE WHEN c %% 50 = 0 THEN 4102444800000000 END
FROM generate_series(1, %(others)s) AS c;

INSERT INTO daram.message (conversation, seq, id, parent, role, text, status, created_at, terms)
SELECT decode(md5('other' || c), 'hex'), s, 'm' || s, s - 1, 'user', 'a message of somebody else', 'complete', s,
       array_to_tsvector(ARRAY['xxxxmessage', 'xxxx' || c])
FROM generate_series(1, %(others)s) AS c, generate_series(1, 10) AS s;

INSERT INTO daram.message (conversation, seq, id, parent, role, text, status, created_at, terms)
SELECT %(long)s, s, 'm' || s, s - 1, 'user', 'message number' || s, 'complete', s,
       array_to_tsvector(ARRAY[%(tag)s || 'message', %(tag)s || 'number' || s])
FROM generate_series(1, %(messages)s) AS s;

INSERT INTO daram.message (conversation, seq, id, parent, role, text, status, created_at)
SELECT %(forked)s, s, 'm' || s, CASE WHEN s %% 10 = 0 THEN s - 2 ELSE s - 1 END, 'user', 'x', 'complete', s
FROM generate_series(1, 5000) AS s;

INSERT INTO daram.leaf (conversation, seq, used) SELECT %(forked)s, s - 1, s FROM generate_series(10, 5000, 10) AS s;
INSERT INTO daram.leaf (conversation, seq, used) VALUES (%(forked)s, 5000, 6000);

INSERT INTO daram.answer (conversation, id, question, sibling, text, token, process, created_at, lease_until)
SELECT decode(md5('other' || c), 'hex'), 'a', 10, false, '', 't', '', c, 4102444800000000
FROM generate_series(1, %(others)s) AS c;

INSERT INTO daram.document (owner, collection, id, name, digest, bytes, state, passages, etag, created_at, updated_at,
                            live, revision)
SELECT 'other' || d %% 100, 'c', 'd' || d, 'd', '', 0, CASE WHEN d > 5 THEN 'ready' ELSE 'waiting' END, 4, 'e' || d, d,
       d, d, 'r'
FROM generate_series(1, 5000) AS d;
INSERT INTO daram.revision (id, owner, collection, document, name, staged, staged_at, place) OVERRIDING SYSTEM VALUE
SELECT d, 'other' || d %% 100, 'c', 'd' || d, 'r', false, d, d %% 100 FROM generate_series(1, 5000) AS d;
INSERT INTO daram.passage (revision, seq, text, begins, ends, length, terms)
SELECT d, s, 'the text of somebody else', 0, 1, 5, array_to_tsvector(ARRAY['xxxxtext', 'xxxx' || d])
FROM generate_series(1, 5000) AS d, generate_series(0, 3) AS s;
INSERT INTO daram.passage_vector (place, revision, seq, embedder, bits, value)
SELECT d %% 100, d, s, 'model:4', B'1000', '' FROM generate_series(1, 5000) AS d, generate_series(0, 3) AS s;

INSERT INTO daram.document (owner, collection, id, name, digest, bytes, state, passages, etag, created_at, updated_at,
                            live, revision)
SELECT 'many', 'c', 'd' || d, 'd', '', 0, 'ready', 20, 'e', d, d, d, 'r' FROM generate_series(5001, 6000) AS d;
INSERT INTO daram.revision (id, owner, collection, document, name, staged, staged_at, place, embedder)
OVERRIDING SYSTEM VALUE
SELECT d, 'many', 'c', 'd' || d, 'r', false, d, %(place)s, 'model:4' FROM generate_series(5001, 6000) AS d;
SELECT setval(pg_get_serial_sequence('daram.revision', 'id'), 6000);
INSERT INTO daram.passage (revision, seq, text, begins, ends, length, terms)
SELECT d, s, 'common word', 0, 1, 2,
       array_to_tsvector(ARRAY[%(fence)s || 'common', %(fence)s || 'word', %(fence)s || 'rare' || d])
FROM generate_series(5001, 6000) AS d, generate_series(0, 19) AS s;
INSERT INTO daram.passage_vector (place, revision, seq, bits, value)
SELECT %(place)s, d, s, B'1000', decode('0000803f000000000000000000000000', 'hex')
FROM generate_series(5001, 6000) AS d, generate_series(0, 19) AS s;

INSERT INTO daram.record (owner, namespace, key, value, etag)
SELECT 'other' || r %% 100, 'n', 'key' || r, '', 'e' FROM generate_series(1, 20000) AS r;
INSERT INTO daram.tombstone (key, etag, deleted_at)
SELECT decode(md5('dead' || t), 'hex'), 'e', 4102444800000000 FROM generate_series(1, 20000) AS t;
UPDATE daram.conversation SET last_seq = %(messages)s, head = %(messages)s, head_id = 'm%(messages)s'
WHERE key = %(long)s;
UPDATE daram.conversation SET last_seq = 5000, head = 5000, head_id = 'm5000', branched = true WHERE key = %(forked)s
"""


def ref(id: str) -> Ref:
    return Ref(OWNER, id, ids.conversation_key(OWNER, id))


class Full(NamedTuple):
    server: PostgresServer
    url: str


@pytest.fixture(scope="module", params=[100_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def full(postgres_template: Databases, request: pytest.FixtureRequest) -> Iterator[Full]:
    """A database in which every statement is explained into the server's log."""
    messages: int = request.param
    server = postgres_template.server
    name = server.database(TEMPLATE)
    asyncio.run(_make_conversations(server.url_of(name)))
    with server.connect(name) as connection:
        tag = (terms(ref("long"), "message") or "").rpartition("message")[0].rpartition(" ")[2]
        values = {
            "others": messages // 20,
            "messages": messages // 2,
            "long": ref("long").key,
            "forked": ref("forked").key,
            "tag": tag,
            "place": place_of(MANY),
            "fence": fence_of(MANY),
        }
        connection.execute("DROP INDEX daram.message_terms")
        for statement in _FILL.split(";"):
            psycopg.ClientCursor(connection).execute(statement.encode(), values)
        connection.execute("CREATE INDEX message_terms ON daram.message USING gin (terms)")
        connection.execute("SELECT gin_clean_pending_list('daram.passage_terms')")
        connection.execute("ANALYZE")
        for setting, value in {
            "session_preload_libraries": "auto_explain",
            "auto_explain.log_min_duration": "0",
            "auto_explain.log_nested_statements": "on",
            "auto_explain.log_analyze": "on",
            "auto_explain.log_timing": "off",
        }.items():
            command = sql.SQL("ALTER DATABASE {} SET {} = {}")
            parts = (sql.Identifier(name), sql.SQL(setting), sql.Literal(value))  # type: ignore[arg-type]
            connection.execute(command.format(*parts))
    yield Full(server, server.url_of(name))
    server.drop(name)


async def _make_conversations(url: str) -> None:
    async with PostgresStore(url) as store:
        for id in ("long", "forked", "short"):
            await store.create(OWNER, id=id)
        await store.append(OWNER, "short", [user(f"short {i}", id=f"s{i}") for i in range(5)])


class Cost(NamedTuple):
    """``scans``: tables that a plan read as a whole; ``rows``: what the nodes of the plans gave on or threw away (not
    counting places that were only looked up in an index)."""

    scans: list[str]
    rows: int


class Explained:
    """Runs calls and tells what the server did for them."""

    def __init__(self, full: Full) -> None:
        self._log = full.server.log
        self.store = PostgresStore(full.url, pool_size=1)

    async def cost(self, call: Awaitable[Any]) -> Cost:
        start = self._log.stat().st_size
        await call
        with self._log.open("rb") as log:
            log.seek(start)
            said = log.read().decode()
        assert "Query Text" in said
        found = re.findall(r"Seq Scan on (\w+)", said)
        rows = sum(map(int, re.findall(r"Rows Removed by \w+(?: \w+)?: (\d+)", said)))
        for node, given, loops in re.findall(r"(.*)\(actual rows=([\d.]+) loops=(\d+)", said):
            if "Bitmap Index Scan" not in node:
                rows += int(float(given) * int(loops))
        return Cost(found, rows)


@pytest.fixture
async def explained(full: Full) -> AsyncIterator[Explained]:
    made = Explained(full)
    await made.store.get(OWNER, "long")
    yield made
    await made.store.close()


_TURN: dict[str, Callable[[PostgresStore], Awaitable[Any]]] = {
    "get": lambda s: s.get(OWNER, "long"),
    "list": lambda s: s.list("other7", limit=10),
    "append": lambda s: s.append(OWNER, "long", [user("hello there")]),
    "append with the last 20": lambda s: s.append(OWNER, "long", [user("hello there")], window=20),
    "append a batch": lambda s: s.append(OWNER, "long", [user("a"), assistant("b")], window=20),
    "append behind an earlier one": lambda s: s.append(OWNER, "forked", [user("x")], parent="m3777", window=20),
    "append in front": lambda s: s.append(OWNER, "forked", [user("x")], parent=ROOT, window=20),
    "append to a forked one": lambda s: s.append(OWNER, "forked", [user("x")], window=20),
    "append again": lambda s: s.append(OWNER, "long", [user("message number5", id="m5")], window=20),
    "append to a new one": lambda s: s.append(OWNER, str(datetime.now(UTC)), [user("x")], create=True, window=20),
    "tail": lambda s: s.tail(OWNER, "long"),
    "tail of a forked one": lambda s: s.tail(OWNER, "forked"),
    "message": lambda s: s.message(OWNER, "long", "m77"),
    "branches": lambda s: s.branches(OWNER, "forked", "m10"),
    "use_branch": lambda s: s.use_branch(OWNER, "forked", "m9"),
    "use_branch again": lambda s: s.use_branch(OWNER, "forked", "m5000"),
    "update": lambda s: s.update(OWNER, "long", title="t"),
    "answers": lambda s: s.answers(OWNER, "long"),
    "cancel_turn": lambda s: s.cancel_turn(OWNER, "long"),
    "recover one": lambda s: s.recover(owner=OWNER, id="long"),
    "delete_message": lambda s: s.delete_message(OWNER, "short", "s1"),
    "search": lambda s: s.search(OWNER, "number12346"),
    "search in one": lambda s: s.search(OWNER, "number12347", conversation="long"),
    "search any word": lambda s: s.search(OWNER, "number12345 elephant"),
    "search nothing": lambda s: s.search(OWNER, "elephant"),
    "search of somebody who has little": lambda s: s.search("nobody", "message"),
    "create": lambda s: s.create(OWNER),
    "delete": lambda s: s.delete(OWNER, "short"),
    "get_record": lambda s: s.get_record("other1", "n", "key1"),
    "put_record": lambda s: s.put_record(OWNER, "n", "k", b"x"),
    "put_record if absent": lambda s: _conflicting(s.put_record(OWNER, "n", "k", b"x", expect=None)),
    "delete_record": lambda s: s.delete_record(OWNER, "n", "k"),
    "scan_records": lambda s: s.scan_records("other1", "n", "key1", limit=10),
    "purge": lambda s: s.purge(),
    "put_document": lambda s: s.put_document(document(owner=OWNER)),
    "get_document": lambda s: s.get_document("other7", "c", "d7"),
    "list_documents": lambda s: s.list_documents("other7", "c", limit=10),
    "unfinished_documents": lambda s: s.unfinished_documents(),
    "publish_document": lambda s: add(s, str(datetime.now(UTC)), "a nut", "a leaf", owner=OWNER),
    "passages": lambda s: s.passages("other7", "c", "d7"),
    "search_passages": lambda s: s.search_passages([Scope(OWNER, "c")], "nut text"),
    "search_passages for all words": lambda s: s.search_passages([Scope(OWNER, "c")], "nut text", any_word=False),
    "nearest_passages": lambda s: s.nearest_passages([Scope(OWNER, "c")], [1, 0, 0, 0], "model:4"),
    "put_vectors": lambda s: s.put_vectors("other", [(_place(), _VECTOR)]),
    "discard_revision": lambda s: s.discard_revision("other7", "c", "d7", "staged"),
    "delete_document": lambda s: s.delete_document("other8", "c", "d8"),
    "delete_collection": lambda s: s.delete_collection(OWNER, "c"),
}
_VECTOR = passage(0, "", [1, 0, 0, 0]).vector or b""


def _place() -> Unembedded:
    return Unembedded(scope=Scope("other7", "c"), document="d7", revision="r", seq=0, text="")


async def _conflicting(call: Awaitable[object]) -> None:
    with pytest.raises(Conflict):
        await call


@pytest.mark.parametrize("name", _TURN)
async def test_nothing_reads_a_table_as_a_whole(explained: Explained, name: str) -> None:
    cost = await explained.cost(_TURN[name](explained.store))
    assert cost.scans == []
    assert cost.rows < 600, f"{cost.rows} rows were touched"


async def test_a_turn_reads_no_table_as_a_whole(explained: Explained) -> None:
    store = explained.store
    question = user("is it flat?")
    costs = {"begin": await explained.cost(store.begin_turn(OWNER, "long", [question], answer_id="a", window=20))}
    turn = await store.begin_turn(OWNER, "long", [question], answer_id="a", window=20)
    assert turn.answer is not None
    token = turn.answer.token
    costs["begin again"] = await explained.cost(store.begin_turn(OWNER, "long", [question], answer_id="a"))
    costs["checkpoint"] = await explained.cost(store.checkpoint(OWNER, "long", "a", token, "yes"))
    costs["finish"] = await explained.cost(store.finish_turn(OWNER, "long", "a", token, text="yes, it is"))
    costs["finished"] = await explained.cost(store.begin_turn(OWNER, "long", [question]))
    for name, cost in costs.items():
        assert cost.scans == [], name
        assert cost.rows < 300, name


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_page_touches_what_it_shows(explained: Explained, order: Any) -> None:
    store = explained.store
    await store.use_branch(OWNER, "forked", "m5000")
    for id in ("long", "forked"):
        cursor: str | None = None
        for _ in range(3):
            page = await store.messages(OWNER, id, limit=50, cursor=cursor, order=order)
            cost = await explained.cost(store.messages(OWNER, id, limit=50, cursor=cursor, order=order))
            assert cost.scans == []
            # Upwards, the forks above the cursor are gone through (there are 500), but not the messages.
            assert cost.rows < (5000 if id == "forked" and order == "asc" else 500)
            cursor = page.next_cursor
            assert cursor is not None


async def test_common_words_cost_what_is_bounded(explained: Explained) -> None:
    """Half of all messages have the word; a search for any of two words takes a few thousand of them."""
    cost = await explained.cost(explained.store.search(OWNER, "message elephant"))
    assert cost.scans == []
    assert cost.rows < 30_000
    search = Search(OWNER, "message elephant", None)
    assert len(search.any_word()) == 2


_QUESTIONS: dict[str, Callable[[PostgresStore], Awaitable[list[PassageHit]]]] = {
    "rare words": lambda s: s.search_passages([MANY], "rare5500 elephant"),
    "common and rare words": lambda s: s.search_passages([MANY], "common word rare5500"),
    "common words": lambda s: s.search_passages([MANY], "common word"),
    "all of the words": lambda s: s.search_passages([MANY], "common rare5500", any_word=False),
    "one of many collections": lambda s: s.search_passages([MANY, *_OTHERS], "common word rare5500 text"),
    "vectors": lambda s: s.nearest_passages([MANY, *_OTHERS], [1, 0, 0, 0], "model:4"),
}
_OTHERS = [Scope(f"other{i}", "c") for i in range(20)]


@pytest.mark.parametrize("name", _QUESTIONS)
async def test_a_search_in_many_passages_costs_what_is_bounded(explained: Explained, name: str) -> None:
    """Of 20,000 passages with a common word some thousands are looked at; of vectors each one, once."""
    found: list[PassageHit] = []

    async def ask() -> None:
        found.extend(await _QUESTIONS[name](explained.store))

    cost = await explained.cost(ask())
    assert cost.scans == []
    assert len(found) == 20
    # A row counts once for each step of a plan that hands it on: of both common words there are 40,000.
    assert cost.rows < {"rare words": 6_000, "vectors": 150_000}.get(name, 100_000)


# --- round trips ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def counted(databases: Databases) -> AsyncIterator[tuple[TcpProxy, PostgresStore]]:
    async with TcpProxy(databases.server.port) as proxy:
        store = PostgresStore(databases.url("trips", port=proxy.port), pool_size=1)
        await store.append(OWNER, "c", [user("there", id="there")], create=True)
        yield proxy, store
        await store.close()


async def test_round_trips(counted: tuple[TcpProxy, PostgresStore]) -> None:
    proxy, store = counted

    async def trips(call: Awaitable[Any]) -> int:
        before = proxy.round_trips
        await call
        return proxy.round_trips - before

    assert await trips(store.append(OWNER, "c", [user("a", id="a")])) == 1
    assert await trips(store.append(OWNER, "c", [user("b", id="b"), user("b2")], window=20)) == 1
    assert await trips(store.append(OWNER, "c", [user("a", id="a")], window=20)) == 1
    assert await trips(store.append(OWNER, "new", [user("a")], create=True, window=20)) == 1
    assert await trips(store.append(OWNER, "c", [user("x")], parent="a", window=20)) == 1
    assert await trips(store.append(OWNER, "c", [user("가" * 300_000)])) == 1
    assert await trips(store.tail(OWNER, "c", 1000)) == 1
    assert await trips(store.begin_turn(OWNER, "c", [user("q", id="q")], answer_id="r", window=20)) == 1
    turn = await store.begin_turn(OWNER, "c", [user("q", id="q")], answer_id="r")
    assert turn.answer is not None
    assert await trips(store.checkpoint(OWNER, "c", "r", turn.answer.token, "half")) == 1
    assert await trips(store.finish_turn(OWNER, "c", "r", turn.answer.token, text="whole")) == 1
    assert await trips(store.begin_turn(OWNER, "c", [user("q", id="q")])) == 2  # a repeated turn is compared first
    one = [
        *(store.get(OWNER, "c"), store.list(OWNER), store.messages(OWNER, "c"), store.message(OWNER, "c", "a")),
        *(store.branches(OWNER, "c", "a"), store.use_branch(OWNER, "c", "a"), store.update(OWNER, "c", title="t")),
        *(store.delete_message(OWNER, "c", "a"), store.answers(OWNER, "c"), store.cancel_turn(OWNER, "c")),
        *(store.recover(), store.search(OWNER, "there"), store.create(OWNER, id="d"), store.delete(OWNER, "d")),
        *(store.put_record(OWNER, "n", "k", b""), store.get_record(OWNER, "n", "k"), store.purge()),
        *(
            store.put_document(document(owner=OWNER)),
            store.get_document(OWNER, "c", "d"),
            store.passages(OWNER, "c", "d"),
        ),
        *(store.stage_passages(OWNER, "c", "d", "r", [passage(0, "nut")]), store.list_documents(OWNER, "c")),
        *(store.nearest_passages([Scope(OWNER, "c")], [1], "m"), store.search_passages([Scope(OWNER, "c")], "nut")),
        store.delete_document(OWNER, "c", "d"),
        *(store.scan_records(OWNER, "n"), store.delete_record(OWNER, "n", "k"), store.delete_owner(OWNER)),
    ]
    for call in one:
        assert await trips(call) == 1, call


@pytest.mark.parametrize("what", ["another", "the same"])
async def test_an_append_that_had_to_wait_sees_what_it_waited_for(
    counted: tuple[TcpProxy, PostgresStore], databases: Databases, what: str
) -> None:
    """Somebody holds the conversation's lock and appends; who waited for it has the newest tail, in one round trip."""
    proxy, store = counted
    mine = [user("mine", id="mine")]
    theirs = mine if what == "the same" else [user("theirs", id="theirs")]
    async with await psycopg.AsyncConnection.connect(databases.url("trips")) as other:
        spec = AppendSpec(messages=theirs, parent=None, expect=None, create=False, window=0)
        values = _append_values(ref("c"), spec)
        await psycopg.AsyncRawCursor(other).execute(store._queries["append_one"], values)
        before = proxy.round_trips
        waiting = asyncio.create_task(store.append(OWNER, "c", mine, window=5))
        with databases.server.connect(databases.name("trips")) as watcher:
            while not watcher.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall():
                await asyncio.sleep(0.005)
        assert not waiting.done()
        await other.commit()
    done = await waiting
    assert proxy.round_trips - before == 1
    if what == "the same":
        assert (done.version, done.etag) == (2, done.previous_etag)
        assert [m.id for m in done.tail] == ["there", "mine"]
    else:
        assert (done.version, done.parent) == (3, "theirs")
        assert [m.id for m in done.tail] == ["there", "theirs", "mine"]
    assert [m.id for m in await store.tail(OWNER, "c")] == [m.id for m in done.tail]
