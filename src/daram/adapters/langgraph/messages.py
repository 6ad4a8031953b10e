"""Lists of LangChain messages as what each step added to them.

The messages of a channel lie in a chain of *segments* (32 messages or more each, never changed) and behind it a *tail*
of fewer than 32, told by *deltas*: one for each version, which names the version before, how much of that one's tail
stays, and what is new. So a step writes what it added; a reader fetches the segments (or has them: they never change)
and the deltas of one tail, whatever the age of the thread.

What a channel holds is the end of that chain: of a history that is trimmed each version says how many segments count,
and how many messages of the first of them do not. What a graph puts in front of the messages that it keeps (a summary;
the system message, with the oldest behind it gone) is a segment of its own, the *front*.

A message is packed as the fields that it has. That is a fraction of the work of the framework's own way, and names no
class that a reader would have to import: only those of ``MESSAGE_TYPES`` come to life.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from langchain_core import messages as lc
from langgraph.checkpoint.serde.base import SerializerProtocol
from pydantic import BaseModel

from daram.adapters.langgraph.recent import Recent
from daram.llm.langchain_messages import MESSAGE_TYPES

_ITEMS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_CACHE_BYTES: Final = 64 << 20
_CACHE_VALUES: Final = 1024
_SEGMENT_COSTS: Final = 1 << 10
"""About what a segment takes beside its messages."""

_KNOWN: Final = {cls: type_ for type_, cls in MESSAGE_TYPES.items()}
# The four slots of every pydantic model.
_put_fields, _put_extra, _put_names, _put_private = (
    vars(BaseModel)[slot].__set__
    for slot in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")
)


class Segment(NamedTuple):
    """Messages that lie together: ``plain`` packed, behind those of the segment ``before`` ("0": none).

    ``behind`` and ``last``: the projection's ids of the message in front of the first ("": none) and of the last one.
    ``hidden``: how many messages of the stored segment come before these and are not shown.
    """

    id: str
    before: str
    size: int
    plain: bytes
    behind: str
    last: str
    hidden: int = 0

    @property
    def name(self) -> str:
        """What it is called here; as it is stored by its id."""
        return f"{self.id}/{self.hidden}" if self.hidden else self.id


class Value(NamedTuple):
    """What a channel holds at a version: the front, the segments, and the messages of the tail, packed one by one.

    ``block``: the segment behind which the tail stands, in sight or not; ``behind``: the projection's id of its last
    message. ``skip``: how many messages of the tail are not shown (then no segment is). ``last``: as in a segment.
    """

    block: str
    segments: tuple[Segment, ...]
    tail: tuple[bytes, ...]
    behind: str
    last: str
    skip: int = 0
    front: Segment | None = None

    @property
    def hidden(self) -> int:
        """How many messages are not shown of what the first one shown is stored with."""
        return self.segments[0].hidden if self.segments else self.skip

    @property
    def size(self) -> int:
        """How many messages are shown behind the front."""
        return sum(segment.size for segment in self.segments) + len(self.tail) - self.skip

    @property
    def start(self) -> str:
        """The projection's id of the message that the first one behind the front stands behind."""
        return self.segments[0].behind if self.segments else chain(self.behind, self.tail[: self.skip])[-1]

    def packed(self) -> list[bytes]:
        """All messages, in their order, in packs of one or more."""
        whole = ([] if self.front is None else [self.front]) + list(self.segments)
        return [segment.plain for segment in whole] + list(self.tail[self.skip :])


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """What one version added to the tail: behind the first ``keep`` messages of the version ``before`` (its key)."""

    before: str | None
    keep: int
    added: list[bytes]
    behind: str


class SegmentRecord(msgspec.Struct, frozen=True, array_like=True):
    """A segment as it is stored."""

    before: str
    count: int
    plain: bytes
    behind: str
    last: str


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


def one_by_one(plain: bytes) -> list[bytes]:
    """The messages of a pack, each in a pack of its own."""
    return [b"\x91" + bytes(item) for item in _ITEMS.decode(plain)]


def together(packed: Sequence[bytes]) -> bytes:
    """One pack of packs of one: the same bytes as when the messages are packed at once."""
    count = len(packed)
    head = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(item[1:] for item in packed)


def chain(before: str, packed: Sequence[bytes]) -> list[str]:
    """The projection's ids of messages, and before them the one that they stand behind."""
    ids = [before]
    for plain in packed:
        ids.append(projected_id(ids[-1], plain))
    return ids


def without(segment: Segment, count: int) -> Segment:
    """The segment with so many messages at its beginning not shown."""
    if not count:
        return segment
    items = one_by_one(segment.plain)
    return segment._replace(
        size=segment.size - count,
        plain=together(items[count:]),
        behind=chain(segment.behind, items[:count])[-1],
        hidden=segment.hidden + count,
    )


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

    Their keys begin with the owner and the thread, so that a deleted thread leaves nothing here.
    """

    def __init__(self) -> None:
        self._segments: Recent[Segment] = Recent(_CACHE_BYTES, lambda segment: len(segment.plain) + _SEGMENT_COSTS)
        self._values: Recent[tuple[Value, tuple[str, ...], str]] = Recent(_CACHE_VALUES)

    def segment(self, key: tuple[str, ...]) -> Segment | None:
        """A segment, if it is here."""
        return self._segments.get(key)

    def keep_segment(self, key: tuple[str, ...], segment: Segment) -> None:
        """Keep a segment, and let go of those not used for long."""
        if self._segments.get(key) is None:
            self._segments.keep(key, segment)

    def value(self, key: tuple[str, ...]) -> Value | None:
        """What a version holds, if it is known here with all its segments."""
        found = self._values.get(key)
        if found is None:
            return None
        value, names, front = found
        whole = [self._segments.get((*key[:-1], name)) for name in (*names, *([front] if front else []))]
        segments = tuple(segment for segment in whole if segment is not None)
        if len(segments) < len(whole):
            return None
        count = len(names)
        return value._replace(segments=segments[:count], front=segments[count] if front else None)

    def keep_value(self, key: tuple[str, ...], value: Value) -> None:
        """Keep what a version holds, and its segments: ``key`` is theirs but for the last part."""
        for segment in (*value.segments, *([] if value.front is None else [value.front])):
            self.keep_segment((*key[:-1], segment.name), segment)
        names = tuple(segment.name for segment in value.segments)
        bare = value._replace(segments=(), front=None)
        self._values.keep(key, (bare, names, "" if value.front is None else value.front.id))

    def forget(self, owner: str, thread: str) -> None:
        """Let go of everything of a thread."""
        self._segments.forget(owner, thread)
        self._values.forget(owner, thread)
