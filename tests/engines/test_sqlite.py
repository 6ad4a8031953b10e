"""The SQLite engine keeps the contract, by itself and through the synchronous face."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw

from daram import ids, sync
from daram.store.base import Store
from daram.store.sqlite.engine import SqliteStore
from daram.testing import AsyncOverSync, StoreTests
from daram.testing.suite.base import RawMessage


class TestSqliteStore(StoreTests):
    async def open_store(self, where: Path) -> Store:
        return SqliteStore(where / "daram.db")

    async def raw_messages(self, where: Path, owner: str, id: str) -> list[RawMessage]:
        connection = apsw.Connection(str(where / "daram.db"))
        try:
            rows = connection.execute(
                "SELECT m.seq, m.id, p.id, m.role, m.text FROM message m"
                " LEFT JOIN message p ON p.conversation = m.conversation AND p.seq = m.parent"
                " WHERE m.conversation = ? ORDER BY m.seq",
                (ids.conversation_key(owner, id),),
            )
            return [RawMessage(*row) for row in rows]
        finally:
            connection.close()


class TestSqliteStoreThroughSync(TestSqliteStore):
    async def open_store(self, where: Path) -> Store:
        return AsyncOverSync(await asyncio.to_thread(sync.open, f"sqlite:///{where}/daram.db"))
