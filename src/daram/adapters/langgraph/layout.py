"""How a LangGraph thread lies in records: the keys, and bytes that are packed, cut and put together again.

Every key begins with a digest of the thread and one of the checkpoint's namespace, so that all that belongs to a thread
is found by a prefix. The id of a checkpoint is in its key complemented: the newest comes first.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from hashlib import blake2b
from typing import Final

from daram.adapters.langgraph.tries import again
from daram.codec import records_cursor
from daram.errors import Conflict
from daram.model import UNSET, Record, Unset
from daram.store.base import SupportsRecords
from daram.store.paging import pages

THREAD: Final = "langgraph.thread"
CHECKPOINT: Final = "langgraph.checkpoint"
WRITE: Final = "langgraph.write"
BLOB: Final = "langgraph.blob"
DELTA: Final = "langgraph.delta"
SEGMENT: Final = "langgraph.segment"
PART: Final = "langgraph.part"
# The checkpoints first: what they refer to is never missed by a reader who still finds them.
ALL: Final = (CHECKPOINT, WRITE, DELTA, SEGMENT, BLOB, PART, THREAD)
# What ``runs`` keeps beside them: by the thread, and by the run.
RUNS: Final = "langgraph.runs"
RUN: Final = "langgraph.run"
# What ``deleted`` keeps of a thread that is gone.
DELETED: Final = "langgraph.deleted"

_PART_BYTES: Final = 1 << 20
_PACK_FROM: Final = 400
_WHOLE, _PACKED, _PARTS = b"\x00", b"\x01", b"\x02"


def digest(text: str, size: int = 8) -> str:
    """A name of fixed length for a string that may hold anything."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=size, person=b"daram.langgraph").hexdigest()


def thread_key(thread: str) -> str:
    """The part of every key that says which thread."""
    return digest(thread, 12)


def space_key(thread: str, ns: str) -> str:
    """Thread and checkpoint namespace."""
    return f"{thread_key(thread)}/{digest(ns) if ns else '0'}"


def newest_first(id: str) -> str:
    """A string that sorts against the order of the ids.

    Ids are printable ASCII (UUIDs, mostly); anything else is put as hexadecimal digits of its UTF-8.
    """
    if not id.isascii() or not id.isprintable() or " " in id or "!" in id:
        id = "~" + id.encode(errors="surrogatepass").hex()
    # "~" stands for no character but the end, so that an id comes behind those that go on from it.
    return "".join(chr(0x9F - ord(c)) for c in id) + "~"


def checkpoint_key(thread: str, ns: str, id: str) -> str:
    """Where a checkpoint is; its writes are below."""
    return f"{space_key(thread, ns)}/{newest_first(id)}"


def run_key(run: str) -> str:
    """The part of keys that says which run."""
    return digest(run, 12)


def _deflate(data: bytes) -> bytes:
    # A window no wider than the data: zlib's usual 256 kB of tables take fifteen times as long to set up.
    bits = min(15, max(10, len(data).bit_length()))
    deflater = zlib.compressobj(1, zlib.DEFLATED, bits, 8 if bits == 15 else 4)
    return deflater.compress(data) + deflater.flush()


def version_key(version: object) -> str:
    """The version of a channel as a part of a key; ``1`` and ``"1"`` are two."""
    return digest(f"{type(version).__name__}:{version}", 10)


Write = tuple[str, str, bytes]
"""What is to be put: namespace, key and bytes."""


class Side:
    """The records of one owner, of any length: bytes above 400 are deflated, above 1 MiB cut into several records."""

    def __init__(self, records: SupportsRecords, owner: str) -> None:
        self._records = records
        self.owner = owner
        self._stored: list[Record] = []

    async def get(self, namespace: str, key: str) -> bytes | None:
        """The bytes, or None: not there, or not completely written."""
        record = await self._records.get_record(self.owner, namespace, key)
        return None if record is None else await self._open(record)

    async def get_with_etag(self, namespace: str, key: str) -> tuple[bytes | None, str] | None:
        """The bytes (None: not completely written) and the etag of their record, if there is one."""
        record = await self._records.get_record(self.owner, namespace, key)
        return None if record is None else (await self._open(record), record.etag)

    async def put(
        self,
        namespace: str,
        key: str,
        data: bytes,
        *,
        expect: str | Unset | None = UNSET,
        expires_at: datetime | None = None,
    ) -> None:
        """Store; of what is cut the parts come first, so that it is there as a whole or not at all.

        It is made again as ``tries`` says: with ``expect`` that may be a ``Conflict`` with oneself.
        """
        kind = _WHOLE
        if len(data) >= _PACK_FROM:
            packed = _deflate(data)
            if len(packed) < len(data):
                kind, data = _PACKED, packed
        if len(data) > _PART_BYTES:
            pieces = [data[i : i + _PART_BYTES] for i in range(0, len(data), _PART_BYTES)]
            own = digest(data.hex())
            place = f"{self._parts(namespace, key)}/{own}"
            await asyncio.gather(*(self._put(PART, f"{place}/{i:06}", piece) for i, piece in enumerate(pieces)))
            kind, data = _PARTS + kind, len(pieces).to_bytes(4, "big") + own.encode()
        await self._put(namespace, key, kind + data, expect, expires_at)

    async def _put(
        self,
        namespace: str,
        key: str,
        value: bytes,
        expect: str | Unset | None = UNSET,
        expires_at: datetime | None = None,
    ) -> None:
        stored = await again(
            lambda: self._records.put_record(self.owner, namespace, key, value, expect=expect, expires_at=expires_at)
        )
        self._stored.append(stored)

    async def take_back(self, wanted: Callable[[str], bool]) -> None:
        """Delete what was put by way of this object into ``wanted`` namespaces, as far as nobody has put it since."""
        for record in self._stored:
            if wanted(record.namespace):
                try:
                    await self._records.delete_record(self.owner, record.namespace, record.key, expect=record.etag)
                except Conflict:
                    pass

    async def scan(
        self, namespace: str, prefix: str, *, page: int = 100, behind: str | None = None
    ) -> AsyncIterator[tuple[str, bytes]]:
        """Keys and bytes below a prefix, in their order; ``behind``: those that come behind this key alone."""
        async for records in self._pages(namespace, prefix, page, behind):
            for record in records:
                data = await self._open(record)
                if data is not None:
                    yield record.key, data

    def _pages(self, namespace: str, prefix: str, size: int, behind: str | None = None) -> AsyncIterator[list[Record]]:
        first = None if behind is None else records_cursor(self.owner, namespace, prefix, behind)
        return pages(
            lambda cursor: self._records.scan_records(self.owner, namespace, prefix, limit=size, cursor=cursor or first)
        )

    async def delete(self, namespace: str, key: str) -> None:
        """Delete it, its parts included."""
        record = await self._records.get_record(self.owner, namespace, key)
        if record is not None:
            await self._drop(record)

    async def clear(self, namespace: str, prefix: str) -> None:
        """Delete everything below a prefix."""
        async for records in self._pages(namespace, prefix, 200):
            await asyncio.gather(*(self._drop(record) for record in records))

    async def _drop(self, record: Record) -> None:
        await self._records.delete_record(self.owner, record.namespace, record.key)
        if record.namespace != PART and record.value[:1] == _PARTS:
            await self.clear(PART, self._parts(record.namespace, record.key) + "/")

    async def copy(self, namespace: str, prefix: str, new_prefix: str) -> None:
        """Copy the records below a prefix, as they are."""
        async for records in self._pages(namespace, prefix, 100):
            await asyncio.gather(
                *(
                    self._records.put_record(
                        self.owner, namespace, new_prefix + record.key.removeprefix(prefix), record.value
                    )
                    for record in records
                )
            )

    def _parts(self, namespace: str, key: str) -> str:
        # Without the thread, so that a copied thread finds its own.
        thread, _, rest = key.partition("/")
        return f"{thread}/{digest(f'{namespace}/{rest}', 12)}"

    async def _open(self, record: Record) -> bytes | None:
        kind, data = record.value[:1], record.value[1:]
        if kind == _PARTS:
            kind, count, own = data[:1], int.from_bytes(data[1:5], "big"), data[5:].decode()
            place = self._parts(record.namespace, record.key)
            pieces = await asyncio.gather(
                *(self._records.get_record(self.owner, PART, f"{place}/{own}/{i:06}") for i in range(count))
            )
            values = [piece.value for piece in pieces if piece is not None]
            if len(values) < count:
                return None
            data = b"".join(values)
        return zlib.decompress(data) if kind == _PACKED else data
