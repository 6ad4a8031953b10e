"""The in-memory engine keeps the contract: by itself, through the synchronous face, and behind the wrappers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from daram import ids, sync
from daram.cache.cached import CachedStore
from daram.cache.memory import MemoryCache
from daram.memory import Memory
from daram.store.base import Store
from daram.store.memory import MemoryData, MemoryStore
from daram.testing import AsyncOverSync, FaultyStore, StoreTests
from daram.testing.suite.base import RawMessage


class TestMemoryStore(StoreTests):
    data: ClassVar[dict[Path, MemoryData]] = {}

    async def open_store(self, where: Path) -> Store:
        return MemoryStore(self.data.setdefault(where, MemoryData()))

    async def raw_messages(self, where: Path, owner: str, id: str) -> list[RawMessage]:
        thread = self.data[where].threads[ids.conversation_key(owner, id)]
        return [RawMessage(m.seq, m.id, m.parent, m.role, m.text) for m in thread.messages.values()]


class TestMemoryStoreThroughSync(TestMemoryStore):
    async def open_store(self, where: Path) -> Store:
        return AsyncOverSync(sync.Memory(Memory(await super().open_store(where), "memory://")))


class TestMemoryStoreWithACacheAndNoFaults(TestMemoryStore):
    caches: ClassVar[dict[Path, MemoryCache]] = {}

    async def open_store(self, where: Path) -> Store:
        inner = FaultyStore(await super().open_store(where))
        return CachedStore(inner, self.caches.setdefault(where, MemoryCache()))
