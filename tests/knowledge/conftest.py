"""A memory with documents over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import daram
from daram.knowledge import extract
from daram.knowledge.documents import Documents
from daram.memory import Memory
from daram.text.load import LoadLimits, Section, load


@pytest.fixture(params=["memory"])
async def memory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Memory]:
    """In memory, or in the engines that a test asks for."""
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/daram.db"}.get(request.param)
    if url is None:
        url = await asyncio.to_thread(request.getfixturevalue("databases").url, tmp_path)
    async with daram.open(url) as memory:
        yield memory


@pytest.fixture
async def documents(memory: Memory) -> AsyncIterator[Documents]:
    """Without a worker in the background: what is not waited for stays waiting."""
    found = Documents(memory)
    yield found
    await found.close()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are read in this process: for tests of what comes after that (a child takes a second to start)."""

    async def sections(
        path: Path, *, name: str, media_type: str | None = None, limits: LoadLimits = LoadLimits()
    ) -> AsyncIterator[Section]:
        for section in load(path, name=name, media_type=media_type, limits=limits):
            yield section

    monkeypatch.setattr(extract, "sections", sections)
