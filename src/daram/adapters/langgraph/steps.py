"""What a run writes to its thread: checkpoints and the writes of tasks, and what of it the conversation gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata

from daram.adapters.langgraph.care import Care
from daram.adapters.langgraph.conversation import Projection, log
from daram.adapters.langgraph.deleted import LATE, Deleted
from daram.adapters.langgraph.lists import Added
from daram.adapters.langgraph.records import Memo, Space
from daram.adapters.langgraph.threads import Threads
from daram.errors import NotFound
from daram.store.base import Store

_LOOKED_AT: Final = 10


class Steps:
    """The writes of one call. ``above``: of a subgraph the checkpoint of its graph, with which it goes."""

    def __init__(self, store: Store, threads: Threads, memo: Memo, space: Space, above: str | None) -> None:
        self._threads = threads
        self._memo = memo
        self._space = space
        self._above = above if space.ns else None
        self._projection = Projection(store, space)
        self._deleted = Deleted(threads, memo)

    async def put(
        self,
        parent: str | None,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        channel: str | None,
    ) -> None:
        """A checkpoint; ``channel``: whose messages the conversation gets."""
        threads, space = self._threads, self._space
        self._memo.follows(space, checkpoint["id"], parent)
        await threads.runs.enrol(space, metadata)
        writes, head, known, added = await threads.save(space, parent, checkpoint, metadata, new_versions, channel)
        if added is not None and added.first and channel is not None and await self._goes_back(channel):
            if await self._lost(parent):  # or what was begun anew is what it seems to go back in
                await self._take_back(None)
                return
            added = added._replace(first=False)
        # Where the conversation takes what comes behind a message, the thread is there: they are deleted together.
        sure = added is not None and bool(added.messages) and bool(added.parent)
        # At once, so that an engine with group commit makes one commit of it. A reader who finds the checkpoint without
        # a part of it goes on to the one before: nobody was told that it is there. The same holds for the look at what
        # was deleted: what takes no longer than LATE is found by who deletes behind it.
        begun = time.monotonic()
        *_, missing, lost = await asyncio.gather(
            *(threads.side.put(*write) for write in writes),
            self._tell(added),
            _nothing() if sure else self._lost(parent),
        )
        if not lost and ((missing is not None and sure) or time.monotonic() - begun > LATE):
            lost = await self._lost(parent)
        if lost:
            await self._take_back(added)
            return
        threads.written(space, head, known)
        if added is not None and missing is not None:
            await self._mend(added, channel)

    async def _goes_back(self, channel: str) -> bool:
        """Whether the newest checkpoints have messages: a step that comes behind none has gone back in time then."""
        looked = 0
        async for head in self._threads.heads(self._space, page=_LOOKED_AT):
            looked += 1
            if channel in head.record.messages or looked == _LOOKED_AT:
                return channel in head.record.messages
        return False

    async def write(self, id: str, writes: Sequence[tuple[str, Any]], task: str, path: str) -> None:
        """What a task wrote behind a checkpoint."""
        written = self._threads.write(self._space, id, writes, task, path)
        begun = time.monotonic()
        _, lost = await asyncio.gather(written, self._lost(id))
        if not lost and time.monotonic() - begun > LATE:
            lost = await self._lost(id)
        if lost:
            await self._take_back(None)

    async def _tell(self, added: Added | None) -> NotFound | None:
        return None if added is None else await self._projection.append(added)

    async def _lost(self, id: str | None) -> bool:
        if self._above is not None:
            return await self._deleted.holds(self._space._replace(ns=""), self._above)
        return await self._deleted.holds(self._space, id)

    async def _take_back(self, added: Added | None) -> None:
        log.info("thread %r was deleted while a run was on it: what the run says is not kept", self._space.thread)
        await self._threads.take_back(self._space)
        self._threads.forget(self._space)
        if added is not None:
            await self._projection.take_back(added)

    async def _mend(self, added: Added, channel: str | None) -> None:
        if added.first:  # a thread that begins: it, and so its conversation, had been deleted
            await self._projection.begin(added)
        elif channel is not None and await self._projection.is_there():  # not to read the thread in every step
            whole = await Care(self._threads).conversation(self._space, channel)
            if whole is not None:
                await self._projection.mend(whole)


async def _nothing() -> bool:
    return False
