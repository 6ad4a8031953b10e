"""A memory with documents over it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import daram
from daram.knowledge.documents import Documents
from daram.memory import Memory


@pytest.fixture
async def memory() -> AsyncIterator[Memory]:
    async with daram.open("memory://") as memory:
        yield memory


@pytest.fixture
async def documents(memory: Memory) -> AsyncIterator[Documents]:
    """Without a worker in the background: what is not waited for stays waiting."""
    found = Documents(memory)
    yield found
    await found.close()
