"""Every engine through both faces and behind every cache: the conformance suite and the state machine in each cell.

Each handle of a test has a cache of its own in front of it, as each process has; what is behind that in a server is
shared. The table at the end of `make matrix` is counted by ``tests.matrix_table``.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from tests.caches import CACHES
from tests.engines import test_memory, test_postgres, test_redis, test_sqlite

from daram import sync
from daram.cache.breaker import Breaker
from daram.cache.cached import CachedStore
from daram.memory import Memory
from daram.store.base import Store
from daram.store.memory import MemoryStore
from daram.testing import AsyncOverSync, StoreTests, run_machine
from daram.testing.servers import RedisServer
from daram.testing.state_machine import QUICK, OpenStore

ENGINES: dict[str, type[StoreTests]] = {
    "memory": test_memory.TestMemoryStore,
    "SQLite": test_sqlite.TestSqliteStore,
    "PostgreSQL": test_postgres.TestPostgresStore,
    "Redis": test_redis.TestRedisStore,
    "Valkey": test_redis.TestValkeyStore,
    "Redis Cluster": test_redis.TestRedisClusterStore,
}
FACES = ("async", "sync")


class _Cell:
    """What is mixed into the tests of an engine."""

    cell: ClassVar[tuple[str, str, str]]

    @pytest.fixture(autouse=True)
    def _cache_server(self, valkey_server: RedisServer, redis_server: RedisServer) -> None:
        # Not the server that the engine's tests empty as they like.
        server = redis_server if self.cell[0] == "Valkey" else valkey_server
        self.cache_url = server.url

    async def open_store(self, where: Path) -> Store:
        store: Store = await super().open_store(where)  # type: ignore[misc]
        _, face, name = self.cell
        if name != "none":
            # A busy machine must not keep the cache out of its own tests.
            breaker = Breaker(budget=60, failures=1 << 30)
            store = CachedStore(store, CACHES[name](self.cache_url, f"{where}:"), breaker=breaker)
        return store if face == "async" else AsyncOverSync(sync.Memory(Memory(store, "")))

    async def test_the_machine_finds_nothing(self, tmp_path: Path) -> None:
        numbers = itertools.count()

        def new_place() -> OpenStore:
            where = tmp_path / f"machine {next(numbers)}"
            where.mkdir()

            async def open_store() -> Store:
                return await self.open_store(where)

            return open_store

        how = settings(QUICK, max_examples=10)
        model = None if self.cell == ("memory", "async", "none") else MemoryStore
        assert await asyncio.to_thread(run_machine, new_place, model, how=how) > 100


for _engine, _face, _cache in itertools.product(ENGINES, FACES, ("none", *CACHES)):
    _name = "Test" + "".join(word.title() for word in (*_engine.split(), _face, *_cache.replace(",", "").split()))
    _made = type(_name, (_Cell, ENGINES[_engine]), {"cell": (_engine, _face, _cache), "__module__": __name__})
    globals()[_name] = pytest.mark.timeout(1800)(pytest.mark.matrix(_made))  # a machine in a slow cell takes minutes
del _made  # it would be collected once more
