"""Where the adapters are tried: every engine that is durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.postgres import Databases
from tests.redis_servers import Places

import daram
from daram import sync
from daram.memory import Memory
from daram.store.redis.engine import RedisStore
from daram.testing.servers import RedisServer

ENGINES = ("sqlite", "postgres", "redis")


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place on each engine."""
    if request.param == "postgres":
        databases: Databases = request.getfixturevalue("databases")
        return databases.url(tmp_path)
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return Places(server).url(tmp_path)
    return f"sqlite:///{tmp_path}/daram.db"


@pytest.fixture
async def memory(url: str) -> AsyncIterator[Memory]:
    async with daram.open(url) as store:
        yield store
        if isinstance(store.inner, RedisStore):
            # A framework that calls synchronously has used it on the portal's loop too, with connections of its own.
            await asyncio.to_thread(lambda: sync.portal().run(store.inner.server.close()))
