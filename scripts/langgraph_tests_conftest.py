"""The fixtures of LangGraph's own tests of graphs, on Daram's saver: it takes the place of their ``conftest.py``.

``DARAM_ENGINES``: which of ``memory`` (the framework's own, to compare with), ``sqlite``, ``postgres`` and ``redis``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.memory import InMemoryStore
from tests.memory_assert import MemorySaverAssertImmutable

import daram
from daram import sync
from daram.adapters.langgraph import DaramSaver
from daram.testing.servers import PostgresServer, RedisServer

ENGINES = os.environ.get("DARAM_ENGINES", "memory,sqlite,postgres,redis").split(",")
_numbers = count()


class Servers:
    """Those that the engines need."""

    def __init__(self, stack: ExitStack) -> None:
        self._postgres = stack.enter_context(PostgresServer()) if "postgres" in ENGINES else None
        self._redis = stack.enter_context(RedisServer("redis")) if "redis" in ENGINES else None
        self._template = ""
        if self._postgres is not None:
            self._template = self._postgres.database()
            sync.open(self._postgres.url_of(self._template)).close()

    def url(self, engine: str, folder: Path) -> str:
        """Where nothing is."""
        if engine == "postgres":
            assert self._postgres is not None
            return self._postgres.url_of(self._postgres.database(self._template))
        if engine == "redis":
            assert self._redis is not None
            self._redis.flush()
            return f"redis://127.0.0.1:{self._redis.port}/0"
        return f"sqlite:///{folder}/{next(_numbers)}.db"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture(params=ENGINES)
def sync_checkpointer(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[BaseCheckpointSaver[Any]]:
    if request.param == "memory":
        yield MemorySaverAssertImmutable()
        return
    with sync.open(servers.url(request.param, tmp_path)) as memory:
        yield DaramSaver(memory, owner="test")


@pytest.fixture(params=ENGINES)
async def async_checkpointer(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    if request.param == "memory":
        yield MemorySaverAssertImmutable()
        return
    async with daram.open(servers.url(request.param, tmp_path)) as memory:
        yield DaramSaver(memory, owner="test")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def deterministic_uuids(mocker: Any) -> Any:
    return mocker.patch("uuid.uuid4", side_effect=(UUID(int=n, version=4) for n in range(10_000)))


@pytest.fixture(params=["sync", "async", "exit"])
def durability(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def cache() -> InMemoryCache[Any]:
    return InMemoryCache()


@pytest.fixture(params=["in_memory"])
def sync_store() -> InMemoryStore:
    return InMemoryStore()


@pytest.fixture(params=["in_memory"])
def async_store() -> InMemoryStore:
    return InMemoryStore()
