"""The in-memory engine keeps the contract."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from daram import ids
from daram.store.base import Store
from daram.store.memory import MemoryData, MemoryStore
from daram.testing import StoreTests
from daram.testing.suite.base import RawMessage


class TestMemoryStore(StoreTests):
    data: ClassVar[dict[Path, MemoryData]] = {}

    async def open_store(self, where: Path) -> Store:
        return MemoryStore(self.data.setdefault(where, MemoryData()))

    async def raw_messages(self, where: Path, owner: str, id: str) -> list[RawMessage]:
        thread = self.data[where].threads[ids.conversation_key(owner, id)]
        return [RawMessage(m.seq, m.id, m.parent, m.role, m.text) for m in thread.messages.values()]
