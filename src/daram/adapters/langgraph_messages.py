"""Lists of LangChain messages as what each step added to them.

The value of a channel at a version is a chain of *segments* (32 messages or more each, never changed) and behind it a
*tail* of fewer than 32, told by *deltas*: one for each version, which names the version before, how much of that one's
tail stays, and what is new. So a step writes what it added; a reader fetches the segments (or has them: they never
change) and the deltas of one tail, whatever the age of the thread.

A message is packed as the fields that it has. That is a fraction of the work of the framework's own way, and names no
class that a reader would have to import: only those of ``MESSAGE_TYPES`` come to life.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from langchain_core import messages as lc
from langgraph.checkpoint.serde.base import SerializerProtocol
from pydantic import BaseModel

from daram.ids import etag
from daram.llm.langchain_messages import MESSAGE_TYPES

BLOCK: Final = 32
_BULK: Final = 256
_SEGMENT_BYTES: Final = 256 << 10
_CACHE_BYTES: Final = 64 << 20
_CACHE_VALUES: Final = 1024

_KNOWN: Final = {cls: type_ for type_, cls in MESSAGE_TYPES.items()}
# The four slots of every pydantic model.
_put_fields, _put_extra, _put_names, _put_private = (
    vars(BaseModel)[slot].__set__
    for slot in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")
)


class Segment(NamedTuple):
    """Messages that lie together: ``plain`` packed, behind those of the segment ``before`` ("0": none)."""

    id: str
    before: str
    size: int
    plain: bytes
    last: str  # the projection's id of the last message


class Value(NamedTuple):
    """What a channel holds at a version: the segments, and the messages of the tail, packed one by one."""

    segments: tuple[Segment, ...]
    tail: tuple[bytes, ...]
    last: str

    @property
    def block(self) -> str:
        """The segment behind which the tail stands."""
        return self.segments[-1].id if self.segments else "0"


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """What one version added to the tail: behind the first ``keep`` messages of the version ``before`` (its key)."""

    before: str | None
    keep: int
    added: list[bytes]
    last: str


class SegmentRecord(msgspec.Struct, frozen=True, array_like=True):
    """A segment as it is stored."""

    before: str
    count: int
    plain: bytes
    last: str


class Change(NamedTuple):
    """What is to be written for a new value: new segments, and a delta where the tail is not empty.

    ``since``: how many messages stayed; ``parent``: the projection's id of the last of those ("": none).
    """

    value: Value
    segments: list[Segment]
    delta: Delta | None
    since: int
    parent: str


def is_message_list(value: object) -> bool:
    """Whether a channel's value is kept as deltas."""
    return type(value) is list and bool(value) and all(isinstance(item, lc.BaseMessage) for item in value)


def pack(items: Sequence[lc.BaseMessage], serde: SerializerProtocol) -> bytes:
    """Messages as bytes; equal messages are equal bytes."""
    packed: list[object] = []
    for item in items:
        if type(item) not in _KNOWN:
            packed.append([item])  # a class of somebody's own: as the framework does it
        elif item.__pydantic_extra__:
            packed.append([item.__dict__, item.__pydantic_extra__])
        else:
            packed.append(item.__dict__)
    return serde.dumps_typed(packed)[1]


def unpack(data: bytes, serde: SerializerProtocol) -> list[Any]:
    """The messages; of a class that the serializer does not allow what it gives instead (its fields)."""
    found: list[Any] = []
    new = object.__new__
    for item in serde.loads_typed(("msgpack", data)):
        extra: dict[str, Any] = {}
        if isinstance(item, list):
            if len(item) == 1:
                found.append(item[0])
                continue
            item, extra = item
        # What validation made is put back as it was; to validate it again costs ten times as much.
        message = new(MESSAGE_TYPES[item["type"]])
        _put_fields(message, item)
        _put_extra(message, extra)
        _put_names(message, set(item))
        _put_private(message, None)
        found.append(message)
    return found


def projected_id(before: str, plain: bytes) -> str:
    """The id of a message in the conversation: of what it says and of all that it stands behind."""
    return "lg_" + blake2b(before.encode() + b"\n" + plain, digest_size=16, person=b"daram.langgraph").hexdigest()


def change(new: Sequence[lc.BaseMessage], base: Value | None, before: str | None, serde: SerializerProtocol) -> Change:
    """What makes ``new`` out of ``base``, which is stored as the version ``before`` (None: its tail is empty)."""
    segments, at = _same_segments(new, base, serde)
    last = segments[-1].last if segments else ""
    fresh = [pack([item], serde) for item in new[at:]]
    keep = 0
    appended = base is None
    if base is not None:
        whole = len(segments) == len(base.segments)
        if whole:
            old: Sequence[bytes] = base.tail
        else:  # something in the middle of a segment is another now
            old = [pack([item], serde) for item in unpack(base.segments[len(segments)].plain, serde)]
        while keep < min(len(old), len(fresh)) and old[keep] == fresh[keep]:
            keep += 1
        appended = whole and keep == len(old)
    ids = _chain(last, fresh)
    since = at + keep
    parent = ids[keep - 1] if keep else last
    last = ids[-1] if ids else last
    if appended and len(fresh) < BLOCK and sum(map(len, fresh)) < _SEGMENT_BYTES:
        value = Value(segments, tuple(fresh), last)
        delta = Delta(before if keep else None, keep, fresh[keep:], last) if fresh else None
        return Change(value, [], delta, since, parent)
    written = _segments(new[at:], fresh, ids, segments[-1].id if segments else "0", serde)
    return Change(Value((*segments, *written), (), last), written, None, since, parent)


def _same_segments(
    new: Sequence[lc.BaseMessage], base: Value | None, serde: SerializerProtocol
) -> tuple[tuple[Segment, ...], int]:
    at = 0
    same: list[Segment] = []
    for segment in base.segments if base is not None else ():
        # To pack them again and compare costs a third of a millisecond for a thousand messages, and sees a message
        # that was changed in its place.
        if at + segment.size > len(new) or pack(new[at : at + segment.size], serde) != segment.plain:
            break
        same.append(segment)
        at += segment.size
    return tuple(same), at


def _chain(before: str, packed: Sequence[bytes]) -> list[str]:
    ids = []
    for plain in packed:
        before = projected_id(before, plain)
        ids.append(before)
    return ids


def _segments(
    items: Sequence[lc.BaseMessage], fresh: Sequence[bytes], ids: Sequence[str], before: str, serde: SerializerProtocol
) -> list[Segment]:
    made: list[Segment] = []
    start = 0
    while start < len(items):
        end, size = start, 0
        while end < len(items) and end - start < _BULK and (end == start or size + len(fresh[end]) < _SEGMENT_BYTES):
            size += len(fresh[end])
            end += 1
        plain = pack(items[start:end], serde)
        made.append(Segment(etag(), before, end - start, plain, ids[end - 1]))
        before = made[-1].id
        start = end
    return made


def tail_of(version: str, deltas: dict[str, Delta]) -> tuple[bytes, ...] | None:
    """The tail at a version, from the deltas behind one segment; None where one is missing."""
    chain = []
    at: str | None = version
    while at is not None:
        delta = deltas.get(at)
        if delta is None:
            return None
        chain.append(delta)
        at = delta.before
    tail: list[bytes] = []
    for delta in reversed(chain):
        del tail[delta.keep :]
        tail += delta.added
    return tuple(tail)


class Cache:
    """Of this process: segments (which never change), and what versions hold, to compare the next with.

    ``thread`` is the first part of every key, so that a deleted thread leaves nothing here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._segments: OrderedDict[tuple[str, ...], Segment] = OrderedDict()
        self._values: OrderedDict[tuple[str, ...], tuple[tuple[str, ...], tuple[bytes, ...], str]] = OrderedDict()
        self._bytes = 0

    def segment(self, key: tuple[str, ...]) -> Segment | None:
        """A segment, if it is here."""
        with self._lock:
            found = self._segments.get(key)
            if found is not None:
                self._segments.move_to_end(key)
            return found

    def keep_segment(self, key: tuple[str, ...], segment: Segment) -> None:
        """Keep a segment, and let go of those not used for long."""
        with self._lock:
            if key not in self._segments:
                self._segments[key] = segment
                self._bytes += len(segment.plain)
            while self._bytes > _CACHE_BYTES:
                self._bytes -= len(self._segments.popitem(last=False)[1].plain)

    def value(self, key: tuple[str, ...]) -> Value | None:
        """What a version holds, if it is known here with all its segments."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            segments = []
            for id in found[0]:
                segment = self._segments.get((*key[:-1], id))
                if segment is None:
                    return None
                segments.append(segment)
            return Value(tuple(segments), found[1], found[2])

    def keep_value(self, key: tuple[str, ...], value: Value) -> None:
        """Keep what a version holds, and its segments: ``key`` is theirs but for the last part."""
        for segment in value.segments:
            self.keep_segment((*key[:-1], segment.id), segment)
        with self._lock:
            self._values[key] = (tuple(segment.id for segment in value.segments), value.tail, value.last)
            self._values.move_to_end(key)
            while len(self._values) > _CACHE_VALUES:
                self._values.popitem(last=False)

    def forget(self, owner: str, thread: str) -> None:
        """Let go of everything of a thread."""
        with self._lock:
            for key in [key for key in self._segments if key[:2] == (owner, thread)]:
                self._bytes -= len(self._segments.pop(key).plain)
            for key in [key for key in self._values if key[:2] == (owner, thread)]:
                del self._values[key]
