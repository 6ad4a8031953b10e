"""PostgreSQL behind a pooler in transaction mode: no statement relies on the session of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from tests.engines.pooler import Pooler
from tests.postgres import Databases, stored_messages

from daram.model import user
from daram.store.base import Store
from daram.store.postgres.engine import PostgresStore
from daram.testing.suite.base import RawMessage
from daram.testing.suite.branches import BranchTests
from daram.testing.suite.concurrency import ConcurrencyTests
from daram.testing.suite.messages import MessageTests
from daram.testing.suite.recovery import RecoveryTests
from daram.testing.suite.repetition import RepetitionTests
from daram.testing.suite.search import SearchTests
from daram.testing.suite.turns import TurnTests


@pytest_asyncio.fixture
async def pooler(databases: Databases) -> AsyncIterator[Pooler]:
    async with Pooler(databases.server.port, "daram", databases.name("pooled")) as pooler:
        yield pooler


class TestBehindAPooler(
    MessageTests, BranchTests, RepetitionTests, TurnTests, RecoveryTests, ConcurrencyTests, SearchTests
):
    @pytest.fixture(autouse=True)
    def _pooler(self, pooler: Pooler, databases: Databases) -> None:
        self.databases = databases
        self.url = databases.url("pooled", port=pooler.port)

    async def open_store(self, where: Path) -> Store:
        return PostgresStore(self.url)

    async def raw_messages(self, where: Path, owner: str, id: str) -> list[RawMessage]:
        return stored_messages(self.databases, "pooled", owner, id)


async def test_the_pooler_is_hard_on_sessions(pooler: Pooler, databases: Databases) -> None:
    """What fails behind this pooler: settings and prepared statements of a session."""
    url = databases.url("pooled", port=pooler.port)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET work_mem = '5MB'")
        found = await (await connection.execute("SHOW work_mem")).fetchone()
        assert found != ("5MB",)
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            await connection.execute("SELECT 1", prepare=True)


async def test_a_store_is_made_behind_a_pooler(pooler: Pooler, databases: Databases) -> None:
    async with PostgresStore(databases.url("pooled", port=pooler.port), schema="anew") as store:
        await asyncio.gather(*(store.append("o", "c", [user(str(i))], create=True) for i in range(20)))
        assert (await store.get("o", "c")).version == 20
    databases.server.run("DROP SCHEMA anew CASCADE", databases.name("pooled"))
    assert pooler.transactions > 20
