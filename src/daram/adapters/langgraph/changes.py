"""What a step did to a list of messages: added, trimmed, edited, or begun anew; and what is to be written for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from langchain_core import messages as lc
from langgraph.checkpoint.serde.base import SerializerProtocol

from daram.adapters.langgraph.messages import (
    Delta,
    Segment,
    SegmentRecord,
    Value,
    chain,
    one_by_one,
    pack,
    together,
    unpack,
    without,
)
from daram.ids import etag

BLOCK: Final = 32
_BULK: Final = 256
_SEGMENT_BYTES: Final = 256 << 10
DEPTH: Final = 6

_NOTHING: Final = Value("0", (), (), "", "")


class Change(NamedTuple):
    """What is to be written for a new value: new segments, and a delta where something is in the tail.

    ``since``: from which of the messages on they are new; ``parent``: the projection's id of the one before ("": none).
    """

    value: Value
    segments: list[Segment]
    delta: Delta | None
    since: int
    parent: str

    @property
    def records(self) -> list[tuple[str, SegmentRecord]]:
        """The new segments with their ids, as they are stored."""
        return [(s.id, SegmentRecord(s.before, s.size, s.plain, s.behind, s.last)) for s in self.segments]


class _Fit(NamedTuple):
    """How a list goes on from another: ``front`` messages of its own, then ``kept`` of those behind ``gone``."""

    front: int
    gone: int
    kept: int


def change(
    new: Sequence[lc.BaseMessage],
    base: Value | None,
    before: str | None,
    serde: SerializerProtocol,
    *,
    in_tail: bool,
) -> Change:
    """What makes ``new`` out of ``base``, which is stored as the version ``before`` (None: its tail is empty).

    ``in_tail``: whether there may be a delta.
    """
    if not new:
        return Change(_NOTHING, [], None, 0, "")
    if base is None:
        return _extended(new, _NOTHING, 0, None, serde, in_tail=in_tail)
    if not base.size and base.front is None:  # emptied: not behind all that ever stood behind no segment
        return _extended(new, _NOTHING, 0, None, serde, in_tail=False)
    at = _whole(new, base, serde)
    if at is not None:
        return _extended(new, base, at, before, serde, in_tail=in_tail)
    fit = _fit(new, base, serde)
    if fit is None:  # nothing of it is left: another history
        return _extended(new, _NOTHING, 0, None, serde, in_tail=False)
    shown = _without(base, fit.gone)
    made: list[Segment] = []
    front = pack(new[: fit.front], serde) if fit.front else b""
    if front != (b"" if base.front is None else base.front.plain):
        made = [Segment("front" + etag(), "0", fit.front, front, "", "")] if fit.front else []
        shown = shown._replace(front=made[0] if made else None)
    if fit.kept == shown.size:
        found = _extended(new, shown, fit.front + fit.kept, before, serde, in_tail=in_tail)
    else:
        found = _cut(new, shown, fit, serde)
    return found._replace(segments=made + found.segments)


def _extended(
    new: Sequence[lc.BaseMessage],
    base: Value,
    at: int,
    before: str | None,
    serde: SerializerProtocol,
    *,
    in_tail: bool,
) -> Change:
    """All of ``base``, and behind it what ``new`` has from ``at`` on; in a new segment, unless ``in_tail``."""
    fresh = [pack([item], serde) for item in new[at:]]
    tail = (*base.tail, *fresh)
    if (in_tail or not tail) and len(tail) < BLOCK and sum(map(len, tail)) < _SEGMENT_BYTES:
        last = chain(base.last, fresh)[-1]
        delta = Delta(before if base.tail else None, len(base.tail), fresh, base.behind) if tail else None
        return Change(base._replace(tail=tail, last=last), [], delta, at, base.last)
    written = _segments(tail, base.block, base.behind)
    last = written[-1].last
    value = Value(written[-1].id, (*base.segments, *written), (), last, last, 0, base.front)
    return Change(_without(value, base.skip), written, None, at, base.last)


def _cut(new: Sequence[lc.BaseMessage], base: Value, fit: _Fit, serde: SerializerProtocol) -> Change:
    """The messages of ``base`` that are kept, and what ``new`` has behind them.

    As segments and not as deltas: of those a reader would meet all that ever stood behind one segment.
    """
    whole: list[Segment] = []
    at = 0
    for segment in base.segments:
        if at + segment.size > fit.kept:
            break
        whole.append(segment)
        at += segment.size
    start = whole[-1].last if whole else base.start
    fresh = [pack([item], serde) for item in new[fit.front + at :]]
    parent = chain(start, fresh[: fit.kept - at])[-1]
    written = _segments(fresh, whole[-1].id if whole else "0", start)
    segments = (*whole, *written)
    last = segments[-1].last
    value = Value(segments[-1].id, segments, (), last, last, 0, base.front)
    return Change(value, written, None, fit.front + fit.kept, parent)


def _whole(new: Sequence[lc.BaseMessage], base: Value, serde: SerializerProtocol) -> int | None:
    """How many messages ``base`` has, if ``new`` begins with all of them."""
    at = 0
    for segment in ([] if base.front is None else [base.front]) + list(base.segments):
        # To pack them again and compare costs a third of a millisecond for a thousand messages, and sees a message
        # that was changed in its place.
        if at + segment.size > len(new) or pack(new[at : at + segment.size], serde) != segment.plain:
            return None
        at += segment.size
    tail = base.tail[base.skip :]
    if len(new) < at + len(tail):
        return None
    same = all(pack([item], serde) == plain for item, plain in zip(new[at:], tail, strict=False))
    return at + len(tail) if same else None


def _without(value: Value, count: int) -> Value:
    """The value with so many messages behind its front not shown any more."""
    if not count:
        return value
    segments = list(value.segments)
    while segments and segments[0].size <= count:
        count -= segments.pop(0).size
    if not segments:
        return value._replace(segments=(), skip=value.skip + count)
    segments[0] = without(segments[0], count)
    return value._replace(segments=tuple(segments))


def _fit(new: Sequence[lc.BaseMessage], base: Value, serde: SerializerProtocol) -> _Fit | None:
    """The longest stretch of ``base`` that ``new`` goes on with; None where it has nothing of it."""
    want = one_by_one(pack(new, serde))
    front = [] if base.front is None else one_by_one(base.front.plain)
    log = [one for plain in base.packed()[bool(front) :] for one in one_by_one(plain)]
    places: dict[bytes, list[int]] = {}
    for place, one in enumerate(log):
        places.setdefault(one, []).append(place)
    same_front = want[: len(front)] == front
    best: _Fit | None = None
    ids: set[str | None] | None = None
    for at, one in enumerate(want):
        for gone in places.get(one, ()):
            # What is put in front must be shorter than what it is there for: otherwise messages were put in or edited.
            if at < gone + len(front) or (at == len(front) and same_front):
                kept = _run(want, at, log, gone)
                if best is None or kept > best.kept:
                    best = _Fit(at, gone, kept)
                if gone + kept == len(log) or at + kept == len(want):
                    break
        if one in front or (one in places and new[at].type == "system"):
            continue
        if ids is None:  # an edited message has its id
            ids = {None, *(item.id for plain in base.packed()[bool(front) :] for item in unpack(plain, serde))}
        if new[at].id in ids:
            break
    if best is None and not places.keys().isdisjoint(want):
        return _Fit(len(front) if same_front else 0, 0, 0)
    return best


def _run(want: Sequence[bytes], at: int, log: Sequence[bytes], gone: int) -> int:
    kept = 0
    while at + kept < len(want) and gone + kept < len(log) and want[at + kept] == log[gone + kept]:
        kept += 1
    return kept


def _segments(packed: Sequence[bytes], before: str, behind: str) -> list[Segment]:
    made: list[Segment] = []
    start = 0
    while start < len(packed):
        end, size = start, 0
        while end < len(packed) and end - start < _BULK and (end == start or size + len(packed[end]) < _SEGMENT_BYTES):
            size += len(packed[end])
            end += 1
        last = chain(behind, packed[start:end])[-1]
        made.append(Segment(_below(before) + etag(), before, end - start, together(packed[start:end]), behind, last))
        before, behind = made[-1].id, last
        start = end
    return made


def _below(before: str) -> str:
    # How many are in front of it in the chain: so that near ones have names that begin alike, and are scanned together.
    return f"{0 if before == '0' else depth(before) + 1:0{DEPTH}x}"


def depth(segment: str) -> int:
    """How many segments there are in front of one."""
    return int(segment[:DEPTH], 16)
