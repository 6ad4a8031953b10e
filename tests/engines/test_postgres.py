"""The PostgreSQL engine keeps the contract, by itself and through the synchronous face."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.postgres import Databases, stored_messages

from daram import sync
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
        return stored_messages(self.databases, where, owner, id)


@pytest.mark.matrix  # the sync face is the same for all: each run has SQLite's
class TestPostgresStoreThroughSync(TestPostgresStore):
    async def open_store(self, where: Path) -> Store:
        url = await asyncio.to_thread(self.databases.url, where)
        return AsyncOverSync(await asyncio.to_thread(sync.open, url))
