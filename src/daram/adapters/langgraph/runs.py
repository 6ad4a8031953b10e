"""Where the runs of LangGraph have left checkpoints, so that those of a run are found without a look at every thread.

A framework that names its runs (``run_id`` in a checkpoint's metadata) may ask to delete what one of them left. Of each
run and space there are two records without content: one by the run, to find its spaces, and one by the thread, so that
the first is found when the thread goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import msgspec

from daram.adapters.langgraph import layout
from daram.adapters.langgraph.layout import Side
from daram.adapters.langgraph.records import Memo, Space, ThreadRecord


class Runs:
    """The runs of one owner."""

    def __init__(self, side: Side, memo: Memo) -> None:
        self._side = side
        self._memo = memo

    async def enrol(self, space: Space, metadata: Mapping[str, object]) -> None:
        """Note the run that a checkpoint is of, if it has one; to be done before its first checkpoint is there."""
        run = metadata.get("run_id")
        if isinstance(run, str) and not self._memo.knows(space, run):
            await self._put(layout.run_key(run), space.key)
            self._memo.registered(space, run)

    async def spaces(self, runs: Collection[str]) -> list[Space]:
        """The spaces in which runs have left checkpoints, as far as these are still there."""
        keys = {key for run in runs for key in await self._places(layout.run_key(run))}
        found = []
        for data in await asyncio.gather(*(self._side.get(layout.THREAD, key) for key in sorted(keys))):
            if data is not None:
                entry = msgspec.msgpack.decode(data, type=ThreadRecord)
                found.append(Space(self._side.owner, entry.thread, entry.ns))
        return found

    async def strike(self, runs: Collection[str]) -> None:
        """Forget where runs were."""
        for run in map(layout.run_key, runs):
            for place in await self._places(run):
                await self._side.delete(layout.RUNS, f"{place}/{run}")
            await self._side.clear(layout.RUN, run + "/")

    async def forget(self, thread: str) -> None:
        """Forget, of all runs, that they were in a thread."""
        prefix = layout.thread_key(thread) + "/"
        async for key, _ in self._side.scan(layout.RUNS, prefix):
            place, _, run = key.rpartition("/")
            await self._side.delete(layout.RUN, f"{run}/{place}")
        await self._side.clear(layout.RUNS, prefix)

    async def copy(self, source: str, target: str) -> None:
        """What is known of a thread holds for another too."""
        old, new = layout.thread_key(source) + "/", layout.thread_key(target) + "/"
        async for key, _ in self._side.scan(layout.RUNS, old):
            place, _, run = key.rpartition("/")
            await self._put(run, new + place.removeprefix(old))

    async def _put(self, run: str, place: str) -> None:
        await asyncio.gather(
            self._side.put(layout.RUNS, f"{place}/{run}", b""), self._side.put(layout.RUN, f"{run}/{place}", b"")
        )

    async def _places(self, run: str) -> list[str]:
        return [key.removeprefix(run + "/") async for key, _ in self._side.scan(layout.RUN, run + "/")]
