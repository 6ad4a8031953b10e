"""The state machine of stores on Redis, Valkey and a cluster."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from tests.redis_servers import Places

from daram.store.base import Store
from daram.store.memory import MemoryStore
from daram.store.redis.engine import RedisStore
from daram.testing import run_machine
from daram.testing.state_machine import QUICK, OpenStore


@pytest.mark.parametrize("kind", ["redis_server", "valkey_server", "redis_cluster"])
def test_the_machine_finds_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    places, numbers = Places(request.getfixturevalue(kind)), itertools.count()

    def new_place() -> OpenStore:
        name = next(numbers)

        async def open_store() -> Store:
            return RedisStore(places.url(name))

        return open_store

    assert run_machine(new_place, MemoryStore, how=settings(QUICK, max_examples=25)) > 300
