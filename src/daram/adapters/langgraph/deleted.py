"""Threads that were deleted not long ago, so that a run that is still on them leaves nothing.

Of each there is a record for 24 hours: the time of the deletion, as LangGraph's own ids of checkpoints tell it (UUIDs
of version 6, which sort by it). What a run writes behind a checkpoint from before is taken back, and what one writes
that had found no thread before the deletion; a run that begins the thread anew knows of the deletion. It waits for its
end, since a deletion ends with another look, and deletes whatever it finds.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from langgraph.checkpoint.base.id import uuid6

from daram.adapters.langgraph import layout
from daram.adapters.langgraph.records import Memo, Space
from daram.adapters.langgraph.threads import Threads
from daram.errors import Conflict
from daram.model import UNSET

LATE: Final = 0.05
"""Seconds: a step that takes longer looks for a deletion again. For so long a deletion waits before it looks again."""

_KEPT: Final = timedelta(days=1)
_PAUSE: Final = 0.05
_LOOKS: Final = 10
_PATIENCE: Final = 5.0
"""Seconds that a run waits for the end of a deletion: who does not end it in that time is dead, most likely."""
_GOES_ON: Final = b"+"
"""Behind the time of a deletion that has not come to its end."""


class Deleted:
    """The deleted threads of one owner."""

    def __init__(self, threads: Threads, memo: Memo) -> None:
        self._threads = threads
        self._memo = memo

    async def mark(self, thread: str) -> bytes:
        """Note that a thread is deleted from now on; to be done first. Returns what ``end`` is to be given."""
        at = str(uuid6())
        async for head in self._threads.heads(Space(self._threads.side.owner, thread, ""), page=1, hidden=True):
            at = max(at, head.record.id)  # of a machine whose clock is ahead
            break
        mark = at.encode() + _GOES_ON
        await self._threads.side.put(layout.DELETED, layout.thread_key(thread), mark, expires_at=_tomorrow())
        return mark

    async def goes_on(self, thread: str, mark: bytes) -> bool:
        """Whether the deletion has still to come to its end: another one may have since, or whoever waited for it too
        long, and then the thread that is there is a new one."""
        return await self._threads.side.get(layout.DELETED, layout.thread_key(thread)) == mark

    async def end(self, thread: str, mark: bytes) -> None:
        """Note that nothing more of a thread will be deleted; to be done last."""
        key = layout.thread_key(thread)
        found = await self._threads.side.get_with_etag(layout.DELETED, key)
        if found is None or found[0] != mark:
            return  # of another deletion, which may be going on
        ended = mark.removesuffix(_GOES_ON)
        try:
            await self._threads.side.put(layout.DELETED, key, ended, expect=found[1], expires_at=_tomorrow())
        except Conflict:
            pass

    async def begin(self, space: Space) -> bool:
        """Note which deletion a run knows of that finds no thread; one that goes on is waited for.

        Returns whether it was: somebody else may have begun the thread meanwhile.
        """
        begun = time.monotonic()
        waited = False
        while (found := await self._stored(space)) is not None and found.endswith(_GOES_ON):
            if time.monotonic() - begun > _PATIENCE:
                await self.end(space.thread, found)
                break
            await asyncio.sleep(_PAUSE)
            waited = True
        self._memo.begins(space, None if found is None else found.removesuffix(_GOES_ON))
        return waited

    async def forget(self, thread: str) -> None:
        """A thread is there again, and older than the deletion: it was copied."""
        await self._threads.side.delete(layout.DELETED, layout.thread_key(thread))

    async def _stored(self, space: Space) -> bytes | None:
        return await self._threads.side.get(layout.DELETED, layout.thread_key(space.thread))

    async def holds(self, space: Space, id: str | None) -> bool:
        """Whether what comes behind this checkpoint (None: begins) belongs to a thread that was deleted."""
        stored = await self._stored(space)
        if stored is None:
            return False
        found = stored.removesuffix(_GOES_ON)
        if id is None:
            return self._memo.begun(space) not in (UNSET, found)
        looks = 0
        while True:
            origin = self._memo.origin(space, id)
            if origin.root and origin.mark == found:
                return False
            old = _sorts(origin.id) and origin.id <= found.decode()
            if origin.root and origin.mark is not UNSET and not old:
                return True
            # A deletion leaves none: what is there was copied, or is of a machine whose clock is behind.
            if await self._threads.stored(space, origin.id) is not None:
                return False
            looks += 1
            if origin.root or origin.id != id or looks == _LOOKS:
                return old or not _sorts(origin.id)
            # Of a subgraph's first step, and of writes: the checkpoint itself is on its way.
            await asyncio.sleep(_PAUSE)


def _tomorrow() -> datetime:
    return datetime.now(UTC) + _KEPT


def _sorts(id: str) -> bool:
    return id[14:15] == "6"
