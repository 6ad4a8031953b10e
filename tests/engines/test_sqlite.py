"""The SQLite engine keeps the contract."""

from __future__ import annotations

from pathlib import Path

import apsw

from daram import ids
from daram.store.base import Store
from daram.store.sqlite.engine import SqliteStore
from daram.testing import StoreTests
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
