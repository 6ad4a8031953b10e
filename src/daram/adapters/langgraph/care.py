"""What is done to whole LangGraph threads: list, copy, prune, delete; and the history of delta channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec
from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite

from daram.adapters.langgraph import layout
from daram.adapters.langgraph.conversation import Projection
from daram.adapters.langgraph.lists import Added, Stored
from daram.adapters.langgraph.records import CheckpointRecord, Head, Space, ThreadRecord
from daram.adapters.langgraph.threads import Threads

COUNTERS: Final = "counters_since_delta_snapshot"
_AT_ONCE: Final = 200


async def merged(
    threads: Threads, spaces: Sequence[Space], *, before: str | None, page: int
) -> AsyncIterator[tuple[Space, Head]]:
    """The checkpoints of several spaces, the newest first, those alone that are older than ``before``."""
    streams = [(space, threads.heads(space, before=before, page=page)) for space in spaces]
    fronts = [(space, stream, head) for space, stream in streams if (head := await anext(stream, None)) is not None]
    while fronts:
        at = max(range(len(fronts)), key=lambda i: fronts[i][2].record.id)
        space, stream, head = fronts[at]
        yield space, head
        following = await anext(stream, None)
        if following is None:
            del fronts[at]
        else:
            fronts[at] = (space, stream, following)


class Care:
    """Works on the threads of one owner."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._side = threads.side

    async def delete(self, thread: str) -> None:
        """Delete everything of a thread."""
        for namespace in layout.ALL:
            await self._side.clear(namespace, layout.thread_key(thread) + "/")
        await self._threads.runs.forget(thread)

    async def copy(self, source: str, target: str) -> None:
        """Copy everything of a thread; what the target had goes."""
        await self.delete(target)
        old, new = layout.thread_key(source) + "/", layout.thread_key(target) + "/"
        await self._threads.runs.copy(source, target)
        # What the checkpoints refer to first, so that a copy that ends half-way shows no half checkpoint.
        for namespace in reversed(layout.ALL):
            if namespace != layout.THREAD:
                await self._side.copy(namespace, old, new)
        for space in await self._threads.spaces(source):
            copied = Space(space.owner, target, space.ns)
            await self._side.put(layout.THREAD, copied.key, msgspec.msgpack.encode(ThreadRecord(target, space.ns)))

    async def conversation(self, space: Space, channel: str) -> Added | None:
        """All messages of a thread as it is now, and those before them that are kept of a trimmed history."""
        async for head in self._threads.heads(space, page=1):
            if await self._threads.values(space, head) is not None:
                return await self._threads.lists.talk(space, head, channel)
        return None

    async def delete_for_runs(
        self, runs: frozenset[str], channel: str | None, projection: Callable[[Space], Projection]
    ) -> set[str]:
        """Delete the checkpoints of runs, and what they alone have put into the conversation by this channel.

        Returns the threads that had no others: of these the rest is to be deleted.
        """
        emptied = set()
        for space in await self._threads.runs.spaces(runs):
            theirs: list[Head] = []
            others: list[Head] = []
            async for head in self._threads.heads(space, hidden=True):
                (theirs if self._threads.metadata(head).get("run_id") in runs else others).append(head)
            gone: list[Head] = []
            kept = list(others)
            for head in theirs:
                # A graph with delta channels rebuilds them along the chain of its checkpoints.
                if others and COUNTERS in self._threads.metadata(head):
                    await self._hide(space, head)
                    kept.append(head)
                else:
                    gone.append(head)
            # Before the checkpoints: killed in between, the next try finds them, and by them what else is to go.
            if channel is not None and space.ns == "" and gone:
                theirs_said, others_said = await self._threads.lists.ids(space, channel, gone, kept)
                if kept:
                    await projection(space).drop(sorted(theirs_said - others_said))
                else:
                    await projection(space).delete()
            await self._drop_all(space, gone, kept)
            self._threads.forget(space)
            if theirs and not others and await self._is_empty(space.thread):
                emptied.add(space.thread)
        await self._threads.runs.strike(runs)
        return emptied

    async def keep_latest(self, thread: str) -> None:
        """Delete all but the newest checkpoint of each namespace, and what only the others needed."""
        for space in await self._threads.spaces(thread):
            newest: Head | None = None
            async for head in self._threads.heads(space, page=1):
                if await self._threads.values(space, head) is not None:
                    newest = head
                    break
            if newest is None:
                continue
            needed = {newest.record.id: newest, **await self._foundations(space, newest)}
            gone: list[Head] = []
            kept: list[Head] = []
            async for head in self._threads.heads(space, hidden=True):
                # Newer ones are of a run that goes on.
                old = head.record.id < newest.record.id
                if old and head.record.id in needed and not head.record.hidden:
                    await self._hide(space, head)
                (gone if old and head.record.id not in needed else kept).append(head)
            await self._drop_all(space, gone, kept)

    async def _foundations(self, space: Space, newest: Head) -> dict[str, Head]:
        """The earlier checkpoints on whose writes the delta channels of one are built."""
        missing = set(self._threads.metadata(newest).get(COUNTERS) or {})
        found: dict[str, Head] = {}
        at = newest.record.parent
        while at is not None and missing:
            head = await self._threads.stored(space, at)
            if head is None:
                break
            found[at] = head
            missing -= _channels(head.record)
            at = head.record.parent
        return found

    async def _drop_all(self, space: Space, gone: Sequence[Head], kept: Sequence[Head]) -> None:
        """Delete checkpoints, and what they alone are made of: what a run is writing at this moment stays."""
        built_on = await self._threads.lists.built_on(space)

        def reached(heads: Sequence[Head]) -> set[Stored]:
            return {part for head in heads for part in self._threads.parts_of(space, head, built_on)}

        # The checkpoints last: killed in between, the next pruning finds them, and readers step over them.
        rest = sorted(reached(gone) - reached(kept))
        for start in range(0, len(rest), _AT_ONCE):
            await asyncio.gather(*(self._side.delete(*part) for part in rest[start : start + _AT_ONCE]))
        for head in gone:
            key = f"{space.key}/{layout.newest_first(head.record.id)}"
            await self._side.delete(layout.CHECKPOINT, key)
            await self._side.clear(layout.WRITE, key + "/")

    async def _hide(self, space: Space, head: Head) -> None:
        hidden = msgspec.structs.replace(head.record, hidden=True)
        key = f"{space.key}/{layout.newest_first(head.record.id)}"
        await self._side.put(layout.CHECKPOINT, key, msgspec.msgpack.encode(hidden))

    async def _is_empty(self, thread: str) -> bool:
        for space in await self._threads.spaces(thread):
            async for _ in self._threads.heads(space, page=1, hidden=True):
                return False
        return True

    async def history(self, space: Space, id: str | None, channels: Sequence[str]) -> dict[str, DeltaChannelHistory]:
        """Of each channel the writes up to a checkpoint (None: the newest), from the nearest stored value on."""
        collected: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
        result: dict[str, DeltaChannelHistory] = {}
        missing = set(channels)
        heads = _Window(self._threads, space)
        target = await heads.newest() if id is None else await heads.find(id)
        at = None if target is None else target.record.parent
        while at is not None and missing:
            head = await heads.find(at)
            if head is None:
                break
            for write in reversed(await heads.writes(at)):
                if write[1] in missing:
                    collected[write[1]].append(write)
            for channel in missing & _channels(head.record):
                seed = await self._threads.channel(space, head, channel)
                result[channel] = {"writes": collected[channel][::-1], "seed": seed}
                missing.discard(channel)
            at = head.record.parent
        return {
            channel: result[channel] if channel in result else {"writes": collected[channel][::-1]}
            for channel in channels
        }


def _channels(record: CheckpointRecord) -> set[str]:
    return {*record.inline, *record.blobs, *record.messages}


class _Window:
    """Checkpoints and their writes for a walk towards the oldest, read ahead by the page."""

    def __init__(self, threads: Threads, space: Space) -> None:
        self._threads = threads
        self._space = space
        self._heads: dict[str, Head] = {}
        self._stream = threads.heads(space, page=100, hidden=True)
        self._oldest: str | None = None
        self._ended = False
        self._writes: dict[str, list[bytes]] = {}
        self._write_stream = threads.raw_writes(space)
        self._writes_to: str | None = None
        self._writes_ended = False

    async def newest(self) -> Head | None:
        """The newest checkpoint in sight."""
        async for head in self._threads.heads(self._space, page=1):
            return head
        return None

    async def find(self, id: str) -> Head | None:
        """One checkpoint."""
        while id not in self._heads and not self._ended and (self._oldest is None or self._oldest > id):
            head = await anext(self._stream, None)
            if head is None:
                self._ended = True
            else:
                self._heads[head.record.id] = head
                self._oldest = head.record.id
        return self._heads.get(id)

    async def writes(self, id: str) -> list[PendingWrite]:
        """The writes behind it."""
        key = layout.newest_first(id)
        while not self._writes_ended and (self._writes_to is None or self._writes_to <= key):
            found = await anext(self._write_stream, None)
            if found is None:
                self._writes_ended = True
            else:
                self._writes.setdefault(found[0], []).append(found[1])
                self._writes_to = found[0]
        return self._threads.ordered(self._writes.get(key, []))
