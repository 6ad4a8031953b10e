"""The PostgreSQL engine keeps the contract, by itself and through the synchronous face."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.postgres import Databases

from daram import ids, sync
from daram.store.base import Store
from daram.store.postgres.engine import PostgresStore
from daram.testing import AsyncOverSync, StoreTests
from daram.testing.suite.base import RawMessage


class TestPostgresStore(StoreTests):
    @pytest.fixture(autouse=True)
    def _databases(self, databases: Databases) -> None:
        self.databases = databases

    async def open_store(self, where: Path) -> Store:
        return PostgresStore(await asyncio.to_thread(self.databases.url, where))

    async def raw_messages(self, where: Path, owner: str, id: str) -> list[RawMessage]:
        with self.databases.server.connect(self.databases.name(where)) as connection:
            rows = connection.execute(
                "SELECT m.seq, m.id, p.id, m.role, m.text FROM daram.message m"
                " LEFT JOIN daram.message p ON p.conversation = m.conversation AND p.seq = m.parent"
                " WHERE m.conversation = %s ORDER BY m.seq",
                (ids.conversation_key(owner, id),),
            )
            return [RawMessage(*row) for row in rows]


@pytest.mark.matrix
class TestPostgresStoreThroughSync(TestPostgresStore):
    async def open_store(self, where: Path) -> Store:
        url = await asyncio.to_thread(self.databases.url, where)
        return AsyncOverSync(await asyncio.to_thread(sync.open, url))
