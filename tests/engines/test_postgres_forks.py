"""PostgreSQL: a conversation with tens of thousands of forks is read and switched like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
from tests.postgres import Databases

from daram import ids
from daram.store.postgres.engine import PostgresStore

OWNER = "ann"
FORKS = 20_000
LAST = 2 * FORKS + 1
KEY = ids.conversation_key(OWNER, "c")

# The same rows as appends would make: every second message is given up for another one in its place.
_FILL = """
INSERT INTO daram.message (conversation, seq, id, parent, role, text, status, created_at)
SELECT %(key)s, s, 'm' || s, s - 1 - (s > 1 AND s %% 2 = 1)::integer, 'user', 'x', 'complete', s
FROM generate_series(1, %(last)s) AS s;

INSERT INTO daram.leaf (conversation, seq, used) SELECT %(key)s, s, s FROM generate_series(2, %(last)s - 1, 2) AS s;
INSERT INTO daram.leaf (conversation, seq, used) VALUES (%(key)s, %(last)s, %(last)s);

UPDATE daram.conversation
SET version = %(last)s, last_seq = %(last)s, head = %(last)s, head_id = 'm%(last)s', branched = true WHERE key = %(key)s
"""


@pytest.fixture
async def store(databases: Databases) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(databases.url("forks")) as made:
        await made.create(OWNER, id="c")
        with databases.server.connect(databases.name("forks")) as connection:
            for statement in _FILL.split(";"):
                psycopg.ClientCursor(connection).execute(statement.encode(), {"key": KEY, "last": LAST})
        yield made


def path(leaf: int) -> list[str]:
    """The ids from the first message to ``leaf``."""
    return [f"m{seq}" for seq in range(1, leaf, 2)] + [f"m{leaf}"]


async def test_pages_from_the_beginning(store: PostgresStore) -> None:
    wanted = path(LAST)
    first = await store.messages(OWNER, "c", limit=100)
    assert [m.id for m in first.items] == wanted[:100]
    assert [m.parent for m in first.items] == [None, *wanted[:99]]
    second = await store.messages(OWNER, "c", limit=100, cursor=first.next_cursor)
    assert [m.id for m in second.items] == wanted[100:200]


async def test_pages_from_the_end(store: PostgresStore) -> None:
    wanted = path(LAST)[::-1]
    first = await store.messages(OWNER, "c", limit=100, order="desc")
    assert [m.id for m in first.items] == wanted[:100]
    second = await store.messages(OWNER, "c", limit=100, order="desc", cursor=first.next_cursor)
    assert [m.id for m in second.items] == wanted[100:200]


@pytest.mark.parametrize(("message", "leaf"), [(2, 2), (20_000, 20_000), (20_001, LAST), (1, LAST), (LAST, LAST)])
async def test_branches_are_switched(store: PostgresStore, message: int, leaf: int) -> None:
    """Also to the branch that was used longest ago: not every other one is gone along to find that it is another."""
    await store.use_branch(OWNER, "c", f"m{message}")
    assert [m.id for m in await store.tail(OWNER, "c", 3)] == path(leaf)[-3:]
    assert [m.id for m in (await store.messages(OWNER, "c", limit=2)).items] == path(leaf)[:2]
