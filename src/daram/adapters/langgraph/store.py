"""LangGraph's long-term store on a Daram store: one record per item, its namespace in front of its key."""

from __future__ import annotations

import asyncio
import heapq
import math
import operator
import re
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, Final

import msgspec
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)

from daram import sync
from daram.adapters.langgraph.tries import again
from daram.codec import records_cursor
from daram.errors import Conflict, InvalidInput, Unsupported
from daram.model import Record
from daram.store.base import Store, SupportsRecords
from daram.store.paging import pages

__all__ = ["DaramStore"]

_ITEM: Final = "langgraph.item"
_PAGE: Final = 200
_NAMESPACES_PAGE: Final = 100
_UNSAFE: Final = re.compile(r"[%/\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


class ItemRecord(msgspec.Struct, frozen=True, array_like=True):
    """An item as it is stored; ``vectors``: of each indexed text, as 32-bit floats of unit length; ``ttl``: minutes."""

    namespace: tuple[str, ...]
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl: float | None
    vectors: list[bytes]


class Lies(msgspec.Struct, frozen=True, array_like=True):
    """Of an item where it lies; the rest of the record is passed over."""

    namespace: tuple[str, ...]


Hit = tuple[Record, ItemRecord, float | None]


class DaramStore(BaseStore):
    """Items of LangGraph in ``memory`` (of ``daram.open`` or ``daram.sync.open``), all of them ``owner``'s.

    ``index``: how to embed (the framework's ``IndexConfig``); without it a search by ``query`` is a listing, as in the
    framework's own stores. A search compares with every vector below the namespace prefix. ``ttl``: as the
    framework's; what has expired is never given. The engine holds items of up to 4 MiB and names of up to 512
    characters (namespace and key together); others raise ``TooLarge``.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: Store | sync.Memory,
        *,
        owner: str,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        store = memory.inner if isinstance(memory, sync.Memory) else memory
        if not isinstance(store, SupportsRecords):
            raise Unsupported(f"{type(store).__name__} keeps no records, which LangGraph's store needs")
        self._records: SupportsRecords = store
        self._owner = owner
        self.ttl_config = ttl
        self.index_config = index
        self._embeddings = None if index is None else ensure_embeddings(index.get("embed"))
        self._fields = [] if index is None else list(index.get("fields") or ["$"])

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """``abatch``, synchronously."""
        return sync.portal().run(self.abatch(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what is asked: first what reads, then what writes; of several writes of one item the last."""
        asked = list(ops)
        reads = [(i, op) for i, op in enumerate(asked) if not isinstance(op, PutOp)]
        puts = {(op.namespace, op.key): op for op in asked if isinstance(op, PutOp)}
        results: list[Result] = [None] * len(asked)
        for (i, _), found in zip(reads, await asyncio.gather(*(self._read(op) for _, op in reads)), strict=True):
            results[i] = found
        vectors = await self._embed(list(puts.values()))
        await asyncio.gather(*(self._put(op, vectors[i]) for i, op in enumerate(puts.values())))
        return results

    # --- reading ---

    async def _read(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            record = await self._records.get_record(self._owner, _ITEM, _place(op.namespace, op.key))
            if record is None:
                return None
            item = _decode(record)
            await self._refresh(op.refresh_ttl, [(record, item)])
            return Item(
                value=item.value,
                key=item.key,
                namespace=item.namespace,
                created_at=item.created_at,
                updated_at=item.updated_at,
            )
        if isinstance(op, SearchOp):
            return await self._search(op)
        if isinstance(op, ListNamespacesOp):
            return await self._namespaces(op)
        raise InvalidInput("ops", f"{type(op).__name__} is not an operation of LangGraph's store")

    async def _search(self, op: SearchOp) -> list[SearchItem]:
        for name, number in (("limit", op.limit), ("offset", op.offset)):
            if number < 0:
                raise InvalidInput(name, f"must not be negative; it is {number}")
        end = op.offset + op.limit
        wanted = None
        if op.query and self._embeddings is not None:
            wanted = _unit(await self._embeddings.aembed_query(op.query))
        found: list[Hit] = []
        size = min(end, _PAGE) if wanted is None and not op.filter else _PAGE
        async for records in self._pages(op.namespace_prefix, max(1, size)):
            hits = _hits(records, op.filter, wanted)
            found = [*found, *hits][:end] if wanted is None else heapq.nlargest(end, [*found, *hits], key=_rank)
            if wanted is None and len(found) == end:
                break
        page = found[op.offset :]
        await self._refresh(op.refresh_ttl, [(record, item) for record, item, _ in page])
        return [
            SearchItem(
                namespace=item.namespace,
                key=item.key,
                value=item.value,
                created_at=item.created_at,
                updated_at=item.updated_at,
                score=score,
            )
            for _, item, score in page
        ]

    async def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        """All of them: of one with many items a page, and then what comes behind it."""
        conditions = op.match_conditions or ()
        prefixes = [
            tuple(takewhile(lambda label: label != "*", c.path)) for c in conditions if c.match_type == "prefix"
        ]
        begin = _below(max(prefixes, key=len, default=()))
        found: set[tuple[str, ...]] = set()
        cursor = None
        while True:
            page = await self._records.scan_records(self._owner, _ITEM, begin, limit=_NAMESPACES_PAGE, cursor=cursor)
            passed = ""
            for record in page.items:
                namespace = msgspec.msgpack.decode(record.value, type=Lies).namespace
                passed = _below(namespace) + "/"
                if all(_lies_in(namespace, condition) for condition in conditions):
                    found.add(namespace if op.max_depth is None else namespace[: op.max_depth])
                    if op.max_depth is not None and 0 < op.max_depth <= len(namespace):
                        passed = _below(namespace[: op.max_depth])  # nothing below it tells more
            if page.next_cursor is None:
                return sorted(found)[op.offset : op.offset + op.limit]
            # "0" comes behind "/", and no key ends so early: it is behind all that begins with ``passed``.
            cursor = records_cursor(self._owner, _ITEM, begin, f"{passed[:-1]}0")

    def _pages(self, prefix: Sequence[str], size: int = _PAGE) -> AsyncIterator[list[Record]]:
        begin = _below(prefix)
        records = self._records
        return pages(lambda cursor: records.scan_records(self._owner, _ITEM, begin, limit=size, cursor=cursor))

    async def _refresh(self, asked: bool, items: Sequence[tuple[Record, ItemRecord]]) -> None:
        if asked:
            await asyncio.gather(*(self._live_on(record, item) for record, item in items if item.ttl is not None))

    async def _live_on(self, record: Record, item: ItemRecord) -> None:
        try:
            await self._records.put_record(
                self._owner, _ITEM, record.key, record.value, expect=record.etag, expires_at=_end(item.ttl)
            )
        except Conflict:
            pass  # somebody wrote it meanwhile: it lives on by that

    # --- writing ---

    async def _put(self, op: PutOp, vectors: list[bytes]) -> None:
        place = _place(op.namespace, op.key)
        if op.value is None:
            await again(lambda: self._records.delete_record(self._owner, _ITEM, place))
            return
        before = await self._records.get_record(self._owner, _ITEM, place)
        now = datetime.now(UTC)
        created = now if before is None else _decode(before).created_at
        item = ItemRecord(op.namespace, op.key, dict(op.value), created, now, op.ttl, vectors)
        try:
            data = msgspec.msgpack.encode(item)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput("value", f"of {op.key!r:.80} has what JSON cannot say: {error}") from None
        end = _end(op.ttl)
        await again(lambda: self._records.put_record(self._owner, _ITEM, place, data, expires_at=end))

    async def _embed(self, puts: Sequence[PutOp]) -> list[list[bytes]]:
        texts: list[str] = []
        counts = []
        for op in puts:
            own: list[str] = []
            if self._embeddings is not None and op.value is not None and op.index is not False:
                for field in self._fields if op.index is None else op.index:
                    own += get_text_at_path(op.value, field if field == "$" else tokenize_path(field))
            counts.append(len(own))
            texts += own
        vectors = iter(await self._embeddings.aembed_documents(texts) if self._embeddings is not None and texts else [])
        return [[_unit(next(vectors)).tobytes() for _ in range(count)] for count in counts]


def _label(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):04X}", text) or "%"


def _below(namespace: Sequence[str]) -> str:
    return "".join(f"{_label(label)}/" for label in namespace)


def _place(namespace: Sequence[str], key: str) -> str:
    return f"{_below(namespace)}/{_label(key)}"


def _decode(record: Record) -> ItemRecord:
    return msgspec.msgpack.decode(record.value, type=ItemRecord)


def _end(ttl: float | None) -> datetime | None:
    return None if ttl is None else datetime.now(UTC) + timedelta(minutes=ttl)


def _unit(vector: Sequence[float]) -> array[float]:
    length = math.sqrt(sum(x * x for x in vector)) or 1.0
    return array("f", [x / length for x in vector])


def _hits(records: Sequence[Record], only: dict[str, Any] | None, wanted: array[float] | None) -> list[Hit]:
    """What passes a filter, each with the greatest cosine of its vectors where there is something to compare with."""
    items = [(record, _decode(record)) for record in records]
    if only:
        items = [pair for pair in items if all(_matches(pair[1].value.get(k), v) for k, v in only.items())]
    if wanted is None:
        return [(record, item, None) for record, item in items]
    size = len(wanted) * wanted.itemsize
    # Those of another length are of an embedding that was used before.
    vectors = [[vector for vector in item.vectors if len(vector) == size] for _, item in items]
    cosines = iter(_cosines(wanted, [vector for own in vectors for vector in own]))
    return [
        (record, item, max((next(cosines) for _ in own), default=None))
        for (record, item), own in zip(items, vectors, strict=True)
    ]


def _cosines(wanted: array[float], vectors: Sequence[bytes]) -> list[float]:
    try:
        import numpy as np
    except ImportError:
        return [math.fsum(map(operator.mul, wanted, memoryview(vector).cast("f"))) for vector in vectors]
    matrix = np.frombuffer(b"".join(vectors), np.float32).reshape(len(vectors), len(wanted))
    found: list[float] = (matrix @ np.frombuffer(wanted, np.float32)).tolist()
    return found


def _rank(hit: Hit) -> float:
    # Rounded: equal vectors differ in the last digits by where they stand, and must keep the order of their keys.
    return -math.inf if hit[2] is None else round(hit[2], 6)


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple):
        return isinstance(value, list) and len(value) == len(wanted) and all(map(_matches, value, wanted))
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    if not any(name.startswith("$") for name in wanted):
        return isinstance(value, dict) and all(_matches(value.get(name), part) for name, part in wanted.items())
    for name, limit in wanted.items():
        if name not in _COMPARE:
            raise InvalidInput("filter", f"{name!r:.40} is none of {', '.join(_COMPARE)}")
        try:
            if not _COMPARE[name](value, limit):
                return False
        except TypeError:
            return False  # what cannot be compared is not greater or smaller
    return True


def _lies_in(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
