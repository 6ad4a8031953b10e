"""Files and their bytes, in pieces, as records: uploaded originals, until nobody needs them any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import msgspec

from daram import ids
from daram.errors import DocumentTooLarge, NotFound, StoreCorrupt
from daram.knowledge.base import BLOBS, COLLECTIONS, FILES, HOUSE, UPLOADS, Library, decode, encode, records_of
from daram.model import Page, Record
from daram.store import validate

PIECE: Final = 512 << 10
MAX_BYTES: Final = 1 << 30
Until = Literal["deleted", "document", "read"]
"""How long a file stays: until it is deleted, as long as the document made from it, until that was read."""
Bytes = bytes | Path | AsyncIterable[bytes] | Iterable[bytes]

_UPLOAD_SECONDS: Final = 24 * 3600
_NAME_CHARS: Final = 512


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file. ``digest``: SHA-256 in hexadecimal; ``pieces``: in how many records its bytes stand; ``document``: the
    collection and id of the document that it is the original of; ``expires_at``: when it goes by itself."""

    id: str
    owner: str
    name: str
    media_type: str | None = None
    bytes: int = 0
    digest: str = ""
    pieces: int = 0
    until: Until = "deleted"
    document: tuple[str, str] | None = None
    metadata: dict[str, str] = {}
    created_at: datetime
    expires_at: datetime | None = None


class _Upload(msgspec.Struct):
    owner: str
    due: float
    expires: bool = False


class Files:
    """The files of a store. Nothing here asks who may: see ``daram.knowledge.access``.

    A file is there once ``put`` returns. Until then, and while it changes hands, a note says that it is under way, so
    that ``sweep`` finds what a crash left behind.
    """

    def __init__(self, store: Library) -> None:
        self._store = store

    async def put(
        self,
        owner: str,
        name: str,
        data: Bytes,
        *,
        media_type: str | None = None,
        until: Until = "deleted",
        document: tuple[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        limit: int = MAX_BYTES,
        id: str | None = None,
        expires_at: datetime | None = None,
    ) -> StoredFile:
        """Keep a file; ``limit`` in bytes; without ``id`` one is drawn. Raises ``DocumentTooLarge``, ``InvalidInput``.

        One that stays with its document is under way until ``settle``. One that ``expires_at`` some time is gone from
        then on; what was made of it in its owner's collections goes with the next ``sweep``.
        """
        validate.text(name, "name", _NAME_CHARS, "characters")
        meant = validate.metadata(metadata or {}, "metadata", validate.Limits())
        file = StoredFile(
            id=id or "file-" + ids.uuid7(),
            owner=owner,
            name=name,
            media_type=media_type,
            until=until,
            document=document,
            metadata=meant,
            created_at=datetime.now(UTC),
            expires_at=expires_at,
        )
        await self.note(file, _UPLOAD_SECONDS)
        digest, size, pieces = sha256(), 0, 0
        try:
            async with aclosing(_pieces(data)) as read:
                async for piece in read:
                    size += len(piece)
                    if size > limit:
                        raise DocumentTooLarge(name, f"more than {limit:,} bytes")
                    digest.update(piece)
                    await self._store.put_record(owner, BLOBS, _blob(file.id, pieces), piece, expires_at=expires_at)
                    pieces += 1
        except BaseException:
            await asyncio.shield(self._remove(file))
            raise
        file = msgspec.structs.replace(file, bytes=size, digest=digest.hexdigest(), pieces=pieces)
        await self._store.put_record(owner, FILES, file.id, encode(file), expect=None, expires_at=expires_at)
        if expires_at is not None:
            ends = encode(_Upload(owner, expires_at.timestamp(), expires=True))
            await self._store.put_record(HOUSE, UPLOADS, file.id, ends)
        elif until == "deleted":
            await self.settle(file)
        return file

    async def get(self, owner: str, id: str) -> StoredFile:
        """What is said of a file. Raises ``NotFound``."""
        found = await self.find(owner, id)
        if found is None:
            raise NotFound("file", id)
        return found

    async def find(self, owner: str, id: str) -> StoredFile | None:
        """The same, or None."""
        record = await self._store.get_record(owner, FILES, validate.name(id, "file", 128))
        return None if record is None else _file(record)

    async def list(self, owner: str, *, limit: int = 100, cursor: str | None = None) -> Page[StoredFile]:
        """The files of an owner, the oldest first; those that belong to a document are among them."""
        page = await self._store.scan_records(owner, FILES, limit=limit, cursor=cursor)
        return Page([_file(record) for record in page.items], page.next_cursor)

    async def read(self, file: StoredFile) -> AsyncGenerator[bytes, None]:
        """Its bytes, piece by piece. Raises ``NotFound`` where it is deleted meanwhile."""
        for number in range(file.pieces):
            record = await self._store.get_record(file.owner, BLOBS, _blob(file.id, number))
            if record is None:
                await self.get(file.owner, file.id)
                raise StoreCorrupt(f"file {file.id!r}: its piece {number} is missing")
            yield record.value

    async def write_to(self, file: StoredFile, path: Path) -> None:
        """Its bytes as a file of the system. Raises as ``read`` does."""
        with path.open("wb") as target:
            async with aclosing(self.read(file)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(target.write, piece)

    async def delete(self, owner: str, id: str) -> None:
        """Delete a file. Raises ``NotFound``."""
        file = await self.get(owner, id)
        await self.note(file, 0)
        await self._remove(file)

    async def drop(self, owner: str, id: str) -> None:
        """Delete what was kept as the original of a document, where it is there: others may do so at the same time."""
        file = await self.find(owner, id)
        if file is not None and file.until != "deleted":
            await self.note(file, 0)
            await self._remove(file)

    # --- under way ---

    async def note(self, file: StoredFile, seconds: float = 3600.0) -> None:
        """Say that a file is under way: after so many seconds ``sweep`` looks at it."""
        upload = encode(_Upload(file.owner, time.time() + seconds))
        await self._store.put_record(HOUSE, UPLOADS, file.id, upload)

    async def settle(self, file: StoredFile) -> None:
        """It has arrived."""
        await self._store.delete_record(HOUSE, UPLOADS, file.id)

    async def sweep(self) -> int:
        """Delete what uploads and deletions that a crash ended left behind; returns how many files."""
        removed = 0
        async for record in records_of(self._store, HOUSE, UPLOADS):
            upload = decode(record.value, _Upload, f"upload {record.key!r}")
            if upload.due > time.time():
                continue
            file = await self.find(upload.owner, record.key)
            if upload.expires:
                if file is None:  # else the engine's clock is behind: the next time
                    await self.forget_documents(upload.owner, record.key)
                    await self._store.delete_record(HOUSE, UPLOADS, record.key)
                    removed += 1
            elif file is None:
                # Pieces without a file: their number is not known.
                file = StoredFile(id=record.key, owner=upload.owner, name="", created_at=datetime.now(UTC))
                await self._remove(file)
                removed += 1
            elif await self._is_wanted(file):
                if file.until != "read":
                    await self.settle(file)
            else:
                await self._remove(file)
                removed += 1
        return removed

    async def forget_documents(self, owner: str, id: str) -> None:
        """Delete what was made of a file in the collections of its owner."""
        async for record in records_of(self._store, owner, COLLECTIONS):
            with suppress(NotFound):
                await self._store.delete_document(owner, record.key, id)

    async def _is_wanted(self, file: StoredFile) -> bool:
        if file.until == "deleted" or file.document is None:
            return file.until == "deleted"
        try:
            document = await self._store.get_document(file.owner, *file.document)
        except NotFound:
            return False
        return document.source == file.id and (file.until == "document" or document.state != "ready")

    async def _remove(self, file: StoredFile) -> None:
        await self._store.delete_record(file.owner, FILES, file.id)
        while True:
            page = await self._store.scan_records(file.owner, BLOBS, f"{file.id}/", limit=8)
            # Together: each would wait for the disk by itself.
            gone = (self._store.delete_record(file.owner, BLOBS, record.key) for record in page.items)
            await asyncio.gather(*gone)
            if page.next_cursor is None:
                break
        await self.settle(file)


async def _pieces(data: Bytes) -> AsyncGenerator[bytes, None]:
    """The bytes in pieces of one size, however they come."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE):
                yield piece
        return
    if isinstance(data, bytes):
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]
        return
    waiting = bytearray()
    async for some in data if isinstance(data, AsyncIterable) else _from_thread(data):
        waiting += some
        while len(waiting) >= PIECE:
            yield bytes(waiting[:PIECE])
            del waiting[:PIECE]
    if waiting:
        yield bytes(waiting)


async def _from_thread(data: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """What is read while it is asked for (``UploadedFile.chunks()``) keeps a thread waiting, not the loop."""
    pieces = iter(data)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _blob(id: str, number: int) -> str:
    return f"{id}/{number:08d}"


def _file(record: Record) -> StoredFile:
    return decode(record.value, StoredFile, f"file {record.key!r}")
