"""The checkpoints of LangGraph threads in a store's records: how one is written, found again and put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from daram.adapters.langgraph import layout
from daram.adapters.langgraph import messages as lists
from daram.adapters.langgraph.layout import Side, Write
from daram.adapters.langgraph.lists import Added, Lists, Stored, channel_key
from daram.adapters.langgraph.records import (
    CheckpointRecord,
    Head,
    Memo,
    Place,
    Space,
    ThreadRecord,
    Typed,
    WriteRecord,
)
from daram.adapters.langgraph.runs import Runs
from daram.errors import Conflict, StoreCorrupt

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

_INLINE_BYTES: Final = 512


class Threads:
    """Reads and writes checkpoints of one owner; ``named``: the configs that it gives say whose they are."""

    def __init__(
        self, side: Side, memo: Memo, serde: SerializerProtocol, plain: JsonPlusSerializer, *, named: bool
    ) -> None:
        self.side = side
        self.runs = Runs(side, memo)
        self.plain = plain
        self._memo = memo
        self._serde = serde
        self._seals = serde is not plain
        self._named = named
        self.lists = Lists(side, memo, plain, self._seal, self._unseal)

    # --- writing ---

    async def save(
        self,
        space: Space,
        parent: str | None,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        watch: str | None,
    ) -> tuple[list[Write], Head, dict[str, tuple[object, lists.Value]], Added | None]:
        """What is to be written for a checkpoint (nothing is yet), and what will be known of it then.

        ``watch``: the channel of which to tell what was added.
        """
        versions = checkpoint["channel_versions"]
        values = {k: list(v) if type(v) is list else v for k, v in checkpoint["channel_values"].items()}
        body = {k: v for k, v in checkpoint.items() if k != "channel_values"}
        head = None if parent is None else await self.head(space, parent)
        inline: dict[str, Typed] = {}
        blobs: list[str] = []
        places: dict[str, Place] = {}
        known: dict[str, tuple[object, lists.Value]] = {}
        added: Added | None = None
        writes: list[Write] = []
        for channel, value in values.items():
            if channel not in versions:
                continue
            version = versions[channel]
            same = head is not None and channel not in new_versions and head.versions.get(channel) == version
            if head is not None and same:
                if channel in head.record.inline:
                    inline[channel] = head.record.inline[channel]
                    continue
                if channel in head.record.messages:
                    places[channel] = head.record.messages[channel]
                    continue
                if channel in head.record.blobs:
                    blobs.append(channel)
                    continue
            emptied = value == [] and head is not None and channel in head.record.messages
            if emptied or lists.is_message_list(value):
                new, places[channel], found, step = await self.lists.save(
                    space, head, channel, version, value, new=channel in new_versions
                )
                writes += new
                known[channel] = (version, found)
                if channel == watch:
                    added = step
                continue
            typed = self._serde.dumps_typed(value)
            if len(typed[1]) <= _INLINE_BYTES:
                inline[channel] = typed
            else:
                blobs.append(channel)
                at = self.blob_key(space, channel, version)
                writes.append((layout.BLOB, at, msgspec.msgpack.encode(typed)))
        record = CheckpointRecord(
            checkpoint["id"],
            parent,
            self._serde.dumps_typed(body),
            self._serde.dumps_typed(metadata),
            inline,
            blobs,
            places,
        )
        at = f"{space.key}/{layout.newest_first(record.id)}"
        writes.append((layout.CHECKPOINT, at, msgspec.msgpack.encode(record)))
        if not self._memo.knows(space):
            entry = msgspec.msgpack.encode(ThreadRecord(space.thread, space.ns))
            writes.append((layout.THREAD, space.key, entry))
        return writes, Head(record, dict(versions)), known, added

    def written(self, space: Space, head: Head, known: Mapping[str, tuple[object, lists.Value]]) -> None:
        """Remember what has been written."""
        for channel, (version, value) in known.items():
            self.lists.written(space, channel, version, value)
        self._memo.keep_head(space, head)
        self._memo.registered(space)

    async def write(self, space: Space, id: str, writes: Sequence[tuple[str, Any]], task: str, path: str) -> None:
        """Keep what a task wrote. What is there stays, but for errors, interrupts and the like, which are replaced."""
        new = {
            index: (index, channel, *self._serde.dumps_typed(value), path)
            for index, channel, value in ((WRITES_IDX_MAP.get(c, i), c, v) for i, (c, v) in enumerate(writes))
        }
        key = f"{space.key}/{layout.newest_first(id)}/{layout.digest(task)}"
        expect: str | None = None
        while True:
            data = msgspec.msgpack.encode(WriteRecord(task, list(new.values())))
            try:
                await self.side.put(layout.WRITE, key, data, expect=expect)
            except Conflict:
                found = await self.side.get_with_etag(layout.WRITE, key)
                expect = None
                if found is not None:
                    stored = [] if found[0] is None else msgspec.msgpack.decode(found[0], type=WriteRecord).writes
                    known = {write[0]: write for write in stored}
                    new = {**new, **{i: w for i, w in known.items() if i >= 0 or i not in new}}
                    if new == known:  # our own, of a try whose outcome was not known
                        return
                    expect = found[1]
                continue
            return

    async def take_back(self, space: Space) -> None:
        """Delete what was put by way of this object, of a thread that is not there."""
        await self.side.take_back(lambda namespace: namespace != layout.THREAD)
        async for _ in self.heads(space, page=1, hidden=True):
            return  # of a run that has begun the thread anew
        await self.side.take_back(lambda namespace: namespace == layout.THREAD)

    # --- reading ---

    async def head(self, space: Space, id: str) -> Head | None:
        """A checkpoint by its id."""
        found = self._memo.head(space, id)
        if found is None:
            data = await self.side.get(layout.CHECKPOINT, f"{space.key}/{layout.newest_first(id)}")
            if data is not None:
                found = self._head(data)
        return found

    async def stored(self, space: Space, id: str) -> Head | None:
        """A checkpoint by its id as the store has it now."""
        data = await self.side.get(layout.CHECKPOINT, f"{space.key}/{layout.newest_first(id)}")
        return None if data is None else self._head(data)

    async def heads(
        self, space: Space, *, page: int = 50, hidden: bool = False, before: str | None = None
    ) -> AsyncIterator[Head]:
        """The checkpoints, the newest first; ``before``: those alone that are older than this id."""
        behind = None if before is None else f"{space.key}/{layout.newest_first(before)}"
        async for _, data in self.side.scan(layout.CHECKPOINT, space.key + "/", page=page, behind=behind):
            head = self._head(data)
            if hidden or not head.record.hidden:
                yield head

    def _head(self, data: bytes) -> Head:
        record = msgspec.msgpack.decode(data, type=CheckpointRecord)
        return Head(record, self._serde.loads_typed(record.body)["channel_versions"])

    async def spaces(self, thread: str | None = None) -> list[Space]:
        """The namespaces of a thread, or of all threads of the owner."""
        prefix = "" if thread is None else layout.thread_key(thread) + "/"
        found = []
        async for _, data in self.side.scan(layout.THREAD, prefix):
            entry = msgspec.msgpack.decode(data, type=ThreadRecord)
            found.append(Space(self.side.owner, entry.thread, entry.ns))
        return found

    async def pending(self, space: Space, id: str) -> list[PendingWrite]:
        """The writes behind a checkpoint, in the order in which the framework applies them."""
        prefix = f"{space.key}/{layout.newest_first(id)}/"
        return self.ordered([data async for _, data in self.side.scan(layout.WRITE, prefix)])

    def ordered(self, records: Sequence[bytes]) -> list[PendingWrite]:
        """Records of writes as the framework wants them."""
        found = []
        for data in records:
            record = msgspec.msgpack.decode(data, type=WriteRecord)
            for index, channel, kind, value, path in record.writes:
                write = (record.task, channel, self._serde.loads_typed((kind, value)))
                found.append((writes_sort_key(path, record.task, index), write))
        return [write for _, write in sorted(found, key=lambda item: item[0])]

    async def tuple_of(self, space: Space, head: Head) -> CheckpointTuple | None:
        """The checkpoint with its channels and pending writes; None where a part of it never arrived."""
        record = head.record
        values, pending = await asyncio.gather(self.values(space, head), self.pending(space, record.id))
        if values is None:
            return None
        self._memo.keep_head(space, head)
        checkpoint = cast("Checkpoint", {**self._serde.loads_typed(record.body), "channel_values": values})
        parent = None if record.parent is None else self.config(space, record.parent)
        metadata = self._serde.loads_typed(record.metadata)
        return CheckpointTuple(self.config(space, record.id), checkpoint, metadata, parent, pending)

    def config(self, space: Space, id: str) -> RunnableConfig:
        """The config of a checkpoint, with which a run can go on from it."""
        return cast("RunnableConfig", space.config(id, named=self._named))

    async def values(self, space: Space, head: Head) -> dict[str, Any] | None:
        """What the channels hold; None where a part never arrived: its writer died, nobody was told that it is kept."""
        record = head.record
        blobs, messages = await asyncio.gather(
            asyncio.gather(*(self._blob(space, name, head.versions[name]) for name in record.blobs)),
            asyncio.gather(
                *(self.lists.value(space, name, head.versions[name], place) for name, place in record.messages.items())
            ),
        )
        found = {channel: self._serde.loads_typed(typed) for channel, typed in record.inline.items()}
        for channel, blob in zip(record.blobs, blobs, strict=True):
            if blob is None:
                return None
            found[channel] = self._serde.loads_typed(blob)
        for channel, value in zip(record.messages, messages, strict=True):
            if value is None:
                return None
            found[channel] = self.lists.messages(value)
        return {channel: found[channel] for channel in head.versions if channel in found}

    async def _blob(self, space: Space, channel: str, version: object) -> Typed | None:
        data = await self.side.get(layout.BLOB, self.blob_key(space, channel, version))
        return None if data is None else msgspec.msgpack.decode(data, type=Typed)

    async def channel(self, space: Space, head: Head, channel: str) -> Any:
        """What one channel holds in a checkpoint that has it."""
        record = head.record
        one = CheckpointRecord(
            record.id,
            None,
            record.body,
            record.metadata,
            {k: v for k, v in record.inline.items() if k == channel},
            [k for k in record.blobs if k == channel],
            {k: v for k, v in record.messages.items() if k == channel},
        )
        values = await self.values(space, Head(one, head.versions))
        if values is None:
            raise StoreCorrupt(f"a part of channel {channel!r} of checkpoint {record.id!r} is missing")
        return values[channel]

    async def raw_writes(self, space: Space) -> AsyncIterator[tuple[str, bytes]]:
        """The records of all writes by the ids of their checkpoints (as they are in keys), the newest first."""
        async for key, data in self.side.scan(layout.WRITE, space.key + "/"):
            yield key.removeprefix(space.key + "/").rpartition("/")[0], data

    def parts_of(self, space: Space, head: Head, built_on: Mapping[Stored, Stored]) -> set[Stored]:
        """What a checkpoint is made of: the blobs, and what its lists need of what ``Lists.built_on`` found."""
        blobs = {(layout.BLOB, self.blob_key(space, channel, head.versions[channel])) for channel in head.record.blobs}
        return blobs | self.lists.parts_of(space, head, built_on)

    def metadata(self, head: Head) -> dict[str, Any]:
        """What was said of a checkpoint."""
        found: dict[str, Any] = self._serde.loads_typed(head.record.metadata)
        return found

    def forget(self, space: Space) -> None:
        """Let go of what is remembered of a thread."""
        self._memo.forget(space.owner, space.thread)

    # --- helpers ---

    def blob_key(self, space: Space, channel: str, version: object) -> str:
        """Where a large value of a channel is."""
        return f"{channel_key(space, channel)}/{layout.version_key(version)}"

    def _seal(self, data: bytes) -> bytes:
        # Another serializer than the framework's plain one is there to encrypt.
        return msgspec.msgpack.encode(self._serde.dumps_typed(data)) if self._seals else data

    def _unseal(self, data: bytes) -> bytes:
        if not self._seals:
            return data
        opened: bytes = self._serde.loads_typed(msgspec.msgpack.decode(data, type=Typed))
        return opened
