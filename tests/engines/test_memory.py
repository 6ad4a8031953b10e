"""The in-memory engine keeps the contract: by itself, through the synchronous face, and behind the wrappers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from daram import ids, sync
from daram.cache.cached import CachedStore
from daram.cache.memory import MemoryCache
from daram.memory import Memory
from daram.store.base import Store
from daram.store.documents_engine import STAGED_SECONDS
from daram.store.memory import MemoryData, MemoryStore
from daram.testing import AsyncOverSync, FaultyStore, StoreTests
from daram.testing.suite.base import RawMessage
from daram.testing.suite.documents import document, passage


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


async def test_passages_that_were_never_published_are_purged_after_a_day() -> None:
    now = 1_000_000.0
    store = MemoryStore(clock=lambda: now)
    stored = await store.put_document(document())
    await store.stage_passages("ann", "c", "d", "r", [passage(0, "never published")])
    now += STAGED_SECONDS - 1
    await store.purge()
    await store.stage_passages("ann", "c", "d", "r", [passage(1, "still at it")])
    now += STAGED_SECONDS
    await store.purge()
    assert (await store.publish_document(stored, "r", expect=stored.etag)).passages == 2
    await store.stage_passages("ann", "c", "d", "s", [passage(0, "never published")])
    now += STAGED_SECONDS + 1
    await store.purge()
    assert [p.seq for p in await store.passages("ann", "c", "d")] == [0, 1]
    assert [revision for _, revision in store.data.revisions] == ["r"]
