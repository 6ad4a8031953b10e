"""P5 on SQLite: what an operation costs does not depend on how much is stored. By plans and counts, not by clocks."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import daram
from daram.store.sqlite.engine import SqliteStore
from daram.store.sqlite.rows import Q
from daram.store.sqlite.schema import migrate

OWNER = "owner"

# What may look at all of something, because it is never much: the running answers, the branches' ends of one
# conversation, the result of a search. (FTS5 calls each use of its index a scan.)
MAY_SCAN = {"all_answers": r"SCAN a$", "search": r"SCAN search VIRTUAL TABLE INDEX 0:M1$"}
MAY_SCAN |= dict.fromkeys(("unindex_doc", "unindex_conversation"), r"SCAN search VIRTUAL TABLE INDEX 0:=$")
MAY_SCAN |= {
    "search_passages": r"SCAN passage_search VIRTUAL TABLE INDEX 0:M1$",
    "search_passages_of": r"SCAN (passage_search VIRTUAL TABLE INDEX 0:M1|json_each VIRTUAL TABLE INDEX 1:)$",
    "live_among": r"SCAN wanted VIRTUAL TABLE INDEX 1:$",
    "unindex_passage": r"SCAN passage_search VIRTUAL TABLE INDEX 0:=$",
    "term_passages": r"SCAN (passage_search VIRTUAL TABLE INDEX 0:M1|\(subquery-1\))$",  # up to a limit
    **dict.fromkeys(("revision_sizes", "vector_values"), r"SCAN json_each VIRTUAL TABLE INDEX 1:$"),
    "collection_documents_counted": r"SCAN \(subquery-1\)$",
    "count_documents": r"SCAN document USING COVERING INDEX document_list$",  # of a copy, once
    "collection_size": r"SCAN \(subquery-1\)$",  # limited as well
    "dead_revision": r"SCAN revision USING COVERING INDEX revision_dead$",
    "documents_upkeep": r"SCAN revision USING COVERING INDEX revision_dead$",
    "unembedded": r"SCAN d$",
}
MAY_SORT = {"all_answers", "answers", "leaves", "search", "search_passages"}
MAY_SORT |= {"search_passages_of"}
# Of a whole conversation, or a part of it that the operation deletes or shows.
MAY_TAKE_A_CONVERSATION = {"delete_messages", "delete_conversation_docs", "unindex_conversation"}


@pytest.fixture(scope="module")
def database() -> apsw.Connection:
    db = apsw.Connection(":memory:")
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    migrate(db, ":memory:")
    return db


@pytest.mark.parametrize("name", sorted(Q))
def test_every_query_searches(database: apsw.Connection, name: str) -> None:
    values = (b"x",) * Q[name].count("?")
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {Q[name]}", values)]
    for step in plan:
        if step.startswith("SCAN"):
            assert name in MAY_SCAN, step
            assert re.match(MAY_SCAN[name], step), step
        if "TEMP B-TREE" in step:
            assert name in MAY_SORT, step
        if re.fullmatch(r"SEARCH (m|message) USING PRIMARY KEY \(conversation=\?\)", step):
            assert name in MAY_TAKE_A_CONVERSATION, step


# --- counting -------------------------------------------------------------------------------------------------------


class Counted(SqliteStore):
    """Counts the statements and the steps of SQLite's virtual machine: each row that it looks at takes a few."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, synchronous="OFF")  # nothing here is about durability
        self.statements: Counter[str] = Counter()
        self.steps = 0
        for way in ("first", "writing", "reading"):
            setattr(self._connections, way, self._traced(getattr(self._connections, way)))
        self._upkeep.is_due = lambda idle: False  # type: ignore[method-assign]  # nothing happens in between

    def _traced(self, connect: Callable[[], apsw.Connection]) -> Callable[[], apsw.Connection]:
        def traced() -> apsw.Connection:
            connection = connect()
            connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._count)
            return connection

        return traced

    def _count(self, event: dict[str, Any]) -> None:
        self.statements[event["sql"]] += 1
        self.steps += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    async def cost(self, call: Awaitable[Any]) -> tuple[int, int]:
        self.statements.clear()
        self.steps = 0
        await call
        return self.statements.total(), self.steps


async def fill(store: SqliteStore, id: str, count: int) -> str:
    """Append so many messages, a hundred at a time; the id of the last one."""
    for start in range(0, count, 100):
        batch = [daram.user(f"message {n}") for n in range(start, min(count, start + 100))]
        done = await store.append(OWNER, id, batch, create=True)
    return done.messages[-1].id


async def fork(store: SqliteStore, id: str, times: int) -> None:
    """Edit the last question so many times, each with an answer."""
    last = (await store.tail(OWNER, id, 1))[0].id
    for n in range(times):
        await store.append(OWNER, id, [daram.user(f"edit {n}"), daram.assistant("so")], parent=last)


@asynccontextmanager
async def stored(path: Path, size: int, branched: bool) -> AsyncIterator[Counted]:
    """A store with a conversation of that size, which was branched now and then and at its end."""
    async with Counted(path) as store:
        await fill(store, "c", size)
        if branched:
            for _ in range(size // 1000):
                await fork(store, "c", 3)
                await fill(store, "c", 20)
            await fill(store, "c", 10)
            await fork(store, "c", 3)
            await fill(store, "c", 5)
        yield store


async def costs(store: Counted) -> dict[str, tuple[int, int]]:
    """The cost of each operation on the conversation, by statements and steps."""
    found: dict[str, tuple[int, int]] = {}

    async def measure(name: str, call: Callable[[], Awaitable[Any]]) -> None:
        found[name] = await store.cost(call())

    await store.append(OWNER, "c", [daram.user("warm")], window=20)
    await store.tail(OWNER, "c", 20)
    tail = await store.tail(OWNER, "c", 20)
    cursor = (await store.messages(OWNER, "c", limit=5, order="desc")).next_cursor
    again = daram.user("again")
    await measure("append", lambda: store.append(OWNER, "c", [again], window=20))
    await measure("append again", lambda: store.append(OWNER, "c", [again], window=20))
    await measure("tail", lambda: store.tail(OWNER, "c", 20))
    await measure("get", lambda: store.get(OWNER, "c"))
    await measure("message", lambda: store.message(OWNER, "c", tail[3].id))
    await measure("branches", lambda: store.branches(OWNER, "c", tail[-1].id))
    await measure("a page from the end", lambda: store.messages(OWNER, "c", limit=5, order="desc"))
    await measure("the next page", lambda: store.messages(OWNER, "c", limit=5, order="desc", cursor=cursor))
    question = daram.user("question")
    turn = await store.begin_turn(OWNER, "c", [question], window=20, answer_id="first")
    assert turn.answer is not None
    held = turn.answer.id, turn.answer.token
    await measure("checkpoint", lambda: store.checkpoint(OWNER, "c", *held, "so far"))
    await measure("begin again", lambda: store.begin_turn(OWNER, "c", [question], window=20))
    await measure("answers", lambda: store.answers(OWNER, "c"))
    await measure("finish", lambda: store.finish_turn(OWNER, "c", *held, text="the answer"))
    await measure("finish again", lambda: store.finish_turn(OWNER, "c", *held, text="the answer"))
    await measure("begin", lambda: store.begin_turn(OWNER, "c", [daram.user("next")], window=20, answer_id="second"))
    await measure("recover nothing", lambda: store.recover(owner=OWNER, id="c"))
    await measure("delete a message", lambda: store.delete_message(OWNER, "c", tail[-1].id))
    await measure("update", lambda: store.update(OWNER, "c", title="title"))
    await measure("branch off", lambda: store.append(OWNER, "c", [daram.user("edit")], parent=tail[-2].id, window=20))
    return found


@pytest.mark.parametrize("branched", [False, True])
async def test_a_turn_costs_the_same_at_any_length(tmp_path: Path, branched: bool) -> None:
    found = {}
    for size in (30, 3_000, 100_000):
        async with stored(tmp_path / f"{size}.db", size, branched) as store:
            found[size] = await costs(store)
    for name, (statements, steps) in found[30].items():
        for size in (3_000, 100_000):
            assert found[size][name][0] == statements, f"{name} makes more statements at {size} messages"
            assert found[size][name][1] <= steps * 1.1 + 20, f"{name} looks at more rows at {size} messages"


async def test_a_list_costs_the_same_at_any_length(tmp_path: Path) -> None:
    found = {}
    for size in (50, 5_000):
        async with Counted(tmp_path / f"{size}.db") as store:
            for start in range(0, size, 50):
                await asyncio.gather(*(store.create(OWNER, id=f"c{start + n}") for n in range(50)))
            page = await store.list(OWNER)
            for _ in range(1):
                page = await store.list(OWNER, cursor=page.next_cursor)
            cost = [await store.cost(store.list(OWNER)), await store.cost(store.list(OWNER, cursor=page.next_cursor))]
            cost.append(await store.cost(store.append(OWNER, "new", [daram.user("x")], create=True)))
            found[size] = cost
    assert found[50][0] == found[5_000][0]
    assert found[50][2] == found[5_000][2]
