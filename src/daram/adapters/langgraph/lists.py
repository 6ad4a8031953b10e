"""The channels of LangGraph threads that hold lists of messages: how they lie in records, and are found there again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from daram.adapters.langgraph import changes, layout
from daram.adapters.langgraph import messages as lists
from daram.adapters.langgraph.layout import Side, Write
from daram.adapters.langgraph.records import Head, Memo, Place, Space

Stored = tuple[str, str]
"""A record: its namespace and key."""

_SINGLE: Final = 4
_NEAR: Final = 16


class Added(NamedTuple):
    """What a step added to the channel of the conversation: messages, packed, and behind which one."""

    messages: list[Any]
    packed: list[bytes]
    parent: str
    first: bool  # there was nothing before: behind whatever the conversation has


class Lists:
    """Reads and writes lists of messages of one owner; ``seal`` and ``unseal``: what is done to the bytes."""

    def __init__(
        self,
        side: Side,
        memo: Memo,
        plain: JsonPlusSerializer,
        seal: Callable[[bytes], bytes],
        unseal: Callable[[bytes], bytes],
    ) -> None:
        self._side = side
        self._memo = memo
        self._plain = plain
        self._seal = seal
        self._unseal = unseal

    # --- writing ---

    async def save(
        self, space: Space, head: Head | None, channel: str, version: object, messages: Sequence[Any], *, new: bool
    ) -> tuple[Sequence[Write], Place, lists.Value, Added]:
        """What is to be written for a value that follows the one of ``head``, where it will be, and what is new.

        ``new``: whether the version is. One that is not (a copy of a checkpoint) has a delta, which stays as it is.
        """
        base, before = await self._base(space, head, channel)
        change = changes.change(messages, base, before, self._plain, in_tail=new)
        value = change.value
        key = channel_key(space, channel)
        writes = [
            (layout.SEGMENT, f"{key}/{id}", self._seal(msgspec.msgpack.encode(record))) for id, record in change.records
        ]
        if change.delta is not None:
            at = f"{key}/{value.block}/{layout.version_key(version)}"
            writes.append((layout.DELTA, at, self._seal(msgspec.msgpack.encode(change.delta))))
        front = "" if value.front is None else value.front.id
        place = Place(value.block, change.delta is not None, len(value.segments), value.hidden, front)
        fresh = list(messages[change.since :])
        packed = [lists.pack([item], self._plain) for item in fresh]
        return writes, place, value, Added(fresh, packed, change.parent, base is None)

    async def _base(self, space: Space, head: Head | None, channel: str) -> tuple[lists.Value | None, str | None]:
        if head is None or channel not in head.record.messages:
            return None, None
        place, version = head.record.messages[channel], head.versions[channel]
        value = self._memo.messages.value(_value_key(space, channel, version, place.block))
        if value is None:
            value = await self.value(space, channel, version, place)
        return value, layout.version_key(version) if place.delta else None

    def written(self, space: Space, channel: str, version: object, value: lists.Value) -> None:
        """Remember what has been written."""
        self._memo.messages.keep_value(_value_key(space, channel, version, value.block), value)

    # --- reading ---

    def messages(self, value: lists.Value) -> list[Any]:
        """The messages of a value."""
        return [item for plain in value.packed() for item in lists.unpack(plain, self._plain)]

    async def value(self, space: Space, channel: str, version: object, place: Place) -> lists.Value | None:
        """The messages that a channel held at a version, packed; None where a part is missing."""
        key = _value_key(space, channel, version, place.block)
        # Our own versions are never given twice; those of others may be.
        known = self._memo.messages.value(key) if isinstance(version, str) else None
        if known is not None:
            return known
        segments, deltas, front = await asyncio.gather(
            self._segments(space, channel, place),
            self._deltas(space, channel, place),
            self._segment(space, channel, place.front),
        )
        tail = lists.tail_of(layout.version_key(version), deltas) if place.delta else ()
        if len(segments) < place.segments or tail is None or (place.front and front is None):
            return None
        behind = segments[-1].last if segments else ""
        if place.delta:
            behind = deltas[layout.version_key(version)].behind
        skip = place.skip
        if segments:
            segments[0], skip = lists.without(segments[0], skip), 0
        last = lists.chain(behind, tail)[-1]
        value = lists.Value(place.block, tuple(segments), tail, behind, last, skip, front)
        self._memo.messages.keep_value(key, value)
        return value

    async def talk(self, space: Space, head: Head, channel: str) -> Added | None:
        """All that a channel's messages stand behind, they included, as far back as it is kept; None where it has none.

        What stands in front of those that a trimmed history kept is not among them.
        """
        place = head.record.messages.get(channel)
        if place is None:
            return None
        segments, deltas = await asyncio.gather(
            self._segments(space, channel, place, whole=True), self._deltas(space, channel, place)
        )
        version = layout.version_key(head.versions[channel])
        tail = lists.tail_of(version, deltas) if place.delta else ()
        packed = [one for segment in segments for one in lists.one_by_one(segment.plain)] + list(tail or ())
        if not packed:
            return None
        behind = segments[0].behind if segments else deltas[version].behind
        found = [item for plain in packed for item in lists.unpack(plain, self._plain)]
        return Added(found, packed, behind, True)

    async def _segments(self, space: Space, channel: str, place: Place, *, whole: bool = False) -> list[lists.Segment]:
        """The segments that count (``whole``: those before them too), as they are stored; fewer if one is missing."""
        key = _segment_key(space, channel)
        chain: list[lists.Segment] = []
        scanned: dict[str, lists.Segment] | None = None
        at = place.block
        while at != "0" and (whole or len(chain) < place.segments):
            segment = self._memo.messages.segment((*key, at))
            if segment is None and scanned is None and (whole or place.segments - len(chain) > _SINGLE):
                first = 0 if whole else changes.depth(at) - (place.segments - len(chain)) + 1
                scanned = await self._scanned(space, channel, first, changes.depth(at))
            if segment is None:
                segment = (scanned or {}).get(at) or await self._segment(space, channel, at)
            if segment is None:
                break
            chain.append(segment)
            at = segment.before
        return chain[::-1]

    async def _scanned(self, space: Space, channel: str, first: int, last: int) -> dict[str, lists.Segment]:
        prefix = channel_key(space, channel) + "/"
        if last - first + 1 < first:
            # The smaller part of them: those whose depths have the same digits but for the last one.
            near = range(first // _NEAR, last // _NEAR + 1)
            prefixes = [f"{prefix}{n:0{changes.DEPTH - 1}x}" for n in near]
        else:
            prefixes = [prefix]
        found: dict[str, lists.Segment] = {}

        async def scan(below: str) -> None:
            async for name, data in self._side.scan(layout.SEGMENT, below, page=200):
                id = name.removeprefix(prefix)
                found[id] = self._opened(id, data)

        await asyncio.gather(*map(scan, prefixes))
        return found

    async def _segment(self, space: Space, channel: str, id: str) -> lists.Segment | None:
        if not id:
            return None
        known = self._memo.messages.segment((*_segment_key(space, channel), id))
        if known is not None:
            return known
        data = await self._side.get(layout.SEGMENT, f"{channel_key(space, channel)}/{id}")
        return None if data is None else self._opened(id, data)

    def _opened(self, id: str, data: bytes) -> lists.Segment:
        record = msgspec.msgpack.decode(self._unseal(data), type=lists.SegmentRecord)
        return lists.Segment(id, record.before, record.count, record.plain, record.behind, record.last)

    async def _deltas(self, space: Space, channel: str, place: Place) -> dict[str, lists.Delta]:
        if not place.delta:
            return {}
        prefix = f"{channel_key(space, channel)}/{place.block}/"
        return {
            name.removeprefix(prefix): msgspec.msgpack.decode(self._unseal(data), type=lists.Delta)
            async for name, data in self._side.scan(layout.DELTA, prefix)
        }

    # --- what is needed of it ---

    async def ids(self, space: Space, channel: str, *groups: Sequence[Head]) -> list[set[str]]:
        """Of each group of checkpoints the projection's ids of their messages, and of all that those stand behind."""
        prefix = channel_key(space, channel) + "/"
        segments: dict[str, lists.Segment] = {}
        async for name, data in self._side.scan(layout.SEGMENT, prefix):
            segments[name.removeprefix(prefix)] = self._opened(name.removeprefix(prefix), data)
        deltas: dict[str, dict[str, lists.Delta]] = {}
        async for name, data in self._side.scan(layout.DELTA, prefix):
            block, _, version = name.removeprefix(prefix).partition("/")
            deltas.setdefault(block, {})[version] = msgspec.msgpack.decode(self._unseal(data), type=lists.Delta)
        result = []
        for heads in groups:
            found: set[str] = set()
            seen: set[str] = set()
            for head in heads:
                place = head.record.messages.get(channel)
                if place is None:
                    continue
                at = place.block
                while at in segments and at not in seen:
                    seen.add(at)
                    found.update(lists.chain(segments[at].behind, lists.one_by_one(segments[at].plain))[1:])
                    at = segments[at].before
                version = layout.version_key(head.versions[channel])
                near = deltas.get(place.block, {})
                tail = lists.tail_of(version, near) if place.delta else None
                if tail:
                    found.update(lists.chain(near[version].behind, tail)[1:])
            result.append(found)
        return result

    async def built_on(self, space: Space) -> dict[Stored, Stored]:
        """Of each segment and delta of a space the one that it stands on."""
        found: dict[Stored, Stored] = {}
        kinds: dict[str, type[lists.SegmentRecord | lists.Delta]]
        kinds = {layout.SEGMENT: lists.SegmentRecord, layout.DELTA: lists.Delta}
        for namespace, kind in kinds.items():
            async for key, data in self._side.scan(namespace, space.key + "/"):
                before = msgspec.msgpack.decode(self._unseal(data), type=kind).before
                if before is not None and before != "0":
                    found[namespace, key] = (namespace, f"{key.rpartition('/')[0]}/{before}")
        return found

    def parts_of(self, space: Space, head: Head, built_on: Mapping[Stored, Stored]) -> set[Stored]:
        """What the lists of a checkpoint are made of; of a trimmed one not what its messages once stood behind."""
        found: set[Stored] = set()
        for channel, place in head.record.messages.items():
            key = channel_key(space, channel)
            if place.front:
                found.add((layout.SEGMENT, f"{key}/{place.front}"))
            segment: Stored | None = (layout.SEGMENT, f"{key}/{place.block}")
            for _ in range(place.segments):
                if segment is not None:
                    found.add(segment)
                    segment = built_on.get(segment)
            delta: Stored | None = None
            if place.delta:
                delta = (layout.DELTA, f"{key}/{place.block}/{layout.version_key(head.versions[channel])}")
            while delta is not None:
                found.add(delta)
                delta = built_on.get(delta)
        return found


def channel_key(space: Space, channel: str) -> str:
    """What the keys of all records of a channel begin with."""
    return f"{space.key}/{layout.digest(channel)}"


def _segment_key(space: Space, channel: str) -> tuple[str, ...]:
    return (space.owner, layout.thread_key(space.thread), space.ns, channel)


def _value_key(space: Space, channel: str, version: object, block: str) -> tuple[str, ...]:
    # A version may lie in two places: in that of a copied checkpoint too.
    return (*_segment_key(space, channel), f"{block}/{layout.version_key(version)}")
