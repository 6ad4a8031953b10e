"""Two processes do whatever they can to one store; every outcome is predicted, and compared with the model."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from tests.stateful.mutants import MUTANTS, Mutant

from daram import sync
from daram.errors import DaramError
from daram.memory import Memory
from daram.store.base import Store
from daram.store.memory import MemoryData, MemoryStore
from daram.store.sqlite.engine import SqliteStore
from daram.testing import AsyncOverSync, run_machine
from daram.testing.state_machine import QUICK, OpenStore

Places = Callable[[Path], Callable[[], OpenStore]]


def memory(where: Path) -> Callable[[], OpenStore]:
    def new_place() -> OpenStore:
        data = MemoryData()

        async def open_store() -> Store:
            return MemoryStore(data)

        return open_store

    return new_place


def memory_through_sync(where: Path) -> Callable[[], OpenStore]:
    def new_place() -> OpenStore:
        data = MemoryData()

        async def open_store() -> Store:
            return AsyncOverSync(sync.Memory(Memory(MemoryStore(data), "memory://")))

        return open_store

    return new_place


def sqlite(where: Path) -> Callable[[], OpenStore]:
    numbers = itertools.count()

    def new_place() -> OpenStore:
        file = where / f"{next(numbers)}.db"

        async def open_store() -> Store:
            return SqliteStore(file)

        return open_store

    return new_place


def sqlite_through_sync(where: Path) -> Callable[[], OpenStore]:
    numbers = itertools.count()

    def new_place() -> OpenStore:
        file = where / f"{next(numbers)}.db"

        async def open_store() -> Store:
            return AsyncOverSync(await asyncio.to_thread(sync.open, f"sqlite:///{file}"))

        return open_store

    return new_place


ALL = pytest.mark.parametrize("places", [memory, memory_through_sync, sqlite, sqlite_through_sync])


@ALL
def test_the_machine_finds_nothing(places: Places, tmp_path: Path) -> None:
    examples = 15 if places in (memory_through_sync, sqlite_through_sync) else 50
    # The in-memory engine is the model of the others; by itself it has the oracle alone.
    steps = run_machine(
        places(tmp_path), None if places is memory else MemoryStore, how=settings(QUICK, max_examples=examples)
    )
    assert steps > examples


@pytest.mark.soak
@ALL
def test_the_machine_finds_nothing_for_long(places: Places, tmp_path: Path) -> None:
    how = settings(QUICK, max_examples=2000, stateful_step_count=100)
    run_machine(places(tmp_path), None if places is memory else MemoryStore, how=how)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_machine_notices(mutant: Mutant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What makes the engine wrong in one place is found, without a model to compare with."""
    mutant(monkeypatch)
    how = settings(QUICK, max_examples=1000, phases=[Phase.generate], database=None, derandomize=True)
    with pytest.raises((AssertionError, DaramError, AttributeError, KeyError)):
        run_machine(memory(tmp_path), how=how)
