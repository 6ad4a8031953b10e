"""LangGraph's own tests for savers, over every engine, through the asynchronous and the synchronous methods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate

from daram.adapters.langgraph import DaramSaver
from daram.adapters.langgraph.records import Memo
from daram.memory import Memory

CAPABILITIES = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


class Forgetful(DaramSaver):
    """Knows of nothing but what is stored: as if each call came from another process."""

    def _threads(self, owner: str) -> Any:
        self._memo = Memo()
        return super()._threads(owner)


class OverSync(DaramSaver):
    """The asynchronous methods by way of the synchronous ones."""

    def __init__(self, memory: Memory, *, owner: str) -> None:
        super().__init__(memory, owner=owner)
        self._face = DaramSaver(memory, owner=owner)

    async def aget_tuple(self, *args: Any) -> Any:
        return await asyncio.to_thread(self._face.get_tuple, *args)

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for item in await asyncio.to_thread(lambda: list(self._face.list(*args, **kwargs))):
            yield item

    async def aget_delta_channel_history(self, **kwargs: Any) -> Any:
        return await asyncio.to_thread(lambda: self._face.get_delta_channel_history(**kwargs))

    async def aput(self, *args: Any) -> Any:
        return await asyncio.to_thread(self._face.put, *args)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(lambda: self._face.put_writes(*args, **kwargs))

    async def adelete_thread(self, thread_id: str) -> None:
        await asyncio.to_thread(self._face.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await asyncio.to_thread(self._face.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await asyncio.to_thread(self._face.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await asyncio.to_thread(lambda: self._face.prune(thread_ids, strategy=strategy))


@pytest.mark.parametrize("kind", [DaramSaver, Forgetful, OverSync])
async def test_every_capability(memory: Memory, kind: type[DaramSaver]) -> None:
    @checkpointer_test(name=f"daram {kind.__name__}")
    async def checkpointer() -> AsyncGenerator[DaramSaver, None]:
        yield kind(memory, owner="alice")

    report = await validate(checkpointer)
    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert not failures
    assert {name: result.tests_passed for name, result in report.results.items()} == CAPABILITIES
