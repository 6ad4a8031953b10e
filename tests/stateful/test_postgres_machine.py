"""The state machine of stores on PostgreSQL: two handles do whatever they can, and every outcome is predicted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from tests.postgres import Databases

from daram import sync
from daram.store.base import Store
from daram.store.memory import MemoryStore
from daram.store.postgres.engine import PostgresStore
from daram.testing import AsyncOverSync, run_machine
from daram.testing.state_machine import QUICK, OpenStore


def direct(databases: Databases) -> Callable[[], OpenStore]:
    def new_place() -> OpenStore:
        databases.empty()
        url = databases.url("machine")

        async def open_store() -> Store:
            return PostgresStore(url)

        return open_store

    return new_place


def through_sync(databases: Databases) -> Callable[[], OpenStore]:
    def new_place() -> OpenStore:
        databases.empty()
        url = databases.url("machine")

        async def open_store() -> Store:
            return AsyncOverSync(await asyncio.to_thread(sync.open, url))

        return open_store

    return new_place


PLACES = pytest.mark.parametrize("places", [direct, through_sync])


@PLACES
def test_the_machine_finds_nothing(
    places: Callable[[Databases], Callable[[], OpenStore]], databases: Databases
) -> None:
    steps = run_machine(places(databases), MemoryStore, how=settings(QUICK, max_examples=12))
    assert steps > 20


@pytest.mark.soak
@PLACES
def test_the_machine_finds_nothing_for_long(
    places: Callable[[Databases], Callable[[], OpenStore]], databases: Databases
) -> None:
    run_machine(places(databases), MemoryStore, how=settings(QUICK, max_examples=2000, stateful_step_count=100))
