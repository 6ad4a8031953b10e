"""What the processes of ``test_cache_processes`` open. It is run by its path: it may import nothing of the tests."""

from __future__ import annotations

from daram.cache.breaker import Breaker
from daram.cache.cached import CachedStore
from daram.cache.entry import Entry
from daram.cache.memory import MemoryCache
from daram.cache.redis import RedisCache
from daram.cache.tiered import TieredCache
from daram.model import Message
from daram.store.base import Store
from daram.store.postgres.engine import PostgresStore

ALWAYS = 1 << 30


class Counting(CachedStore):
    """Says in ``describe`` how often its cache was right."""

    async def describe(self) -> dict[str, str]:
        return {"hits": str(self.hits), "misses": str(self.misses)}


def open_cached(url: str, cache_url: str, budget: float, tiered: bool, mutant: bool) -> Store:
    """In another process: a store behind the cache; a ``mutant`` believes what ends where the message begins."""
    if mutant:

        def believing(self: Entry, previous: str, parent: str | None, etag: str, new: list[Message]) -> Entry | None:
            return Entry(self.owner, etag, new[-1].id, self.complete, self.tail + new) if self.head == parent else None

        Entry.extended = believing  # type: ignore[method-assign]
    shared = RedisCache(cache_url)
    cache = TieredCache([MemoryCache(), shared]) if tiered else shared
    return Counting(PostgresStore(url), cache, breaker=Breaker(budget=budget, failures=ALWAYS))
