"""Files that are put into a collection together, and how far they are."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

import msgspec

from daram import ids
from daram.errors import NotFound
from daram.knowledge.base import Library, decode, encode
from daram.store import validate
from daram.store.documents import Document, Scope

BATCHES: Final = "documents.batch"


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one batch by their ids, which are also those of the documents made of them."""

    id: str
    owner: str
    collection: str
    files: tuple[str, ...]
    cancelled: bool = False
    created_at: datetime

    @property
    def scope(self) -> Scope:
        """The collection that the files are put into."""
        return Scope(self.owner, self.collection)


class Batches:
    """The batches of a store; they go with their collection."""

    def __init__(self, store: Library) -> None:
        self._store = store

    async def create(self, scope: Scope, files: list[str], *, id: str | None = None) -> Batch:
        """Note a batch, before any of its files is put in. The same id again is the same batch."""
        batch = Batch(
            id=id or "vsfb_" + ids.uuid7(),
            owner=scope.owner,
            collection=scope.collection,
            files=tuple(dict.fromkeys(files)),
            created_at=datetime.now(UTC),
        )
        await self._store.put_record(scope.owner, BATCHES, _key(scope, batch.id), encode(batch))
        return batch

    async def get(self, scope: Scope, id: str) -> Batch:
        """Raises ``NotFound``."""
        record = await self._store.get_record(scope.owner, BATCHES, _key(scope, validate.name(id, "batch", 128)))
        if record is None:
            raise NotFound("file batch", id)
        return decode(record.value, Batch, f"batch {id!r}")

    async def cancel(self, batch: Batch) -> Batch:
        """Note that it was given up; its files are cancelled one by one."""
        cancelled = msgspec.structs.replace(batch, cancelled=True)
        await self._store.put_record(batch.owner, BATCHES, _key(batch.scope, batch.id), encode(cancelled))
        return cancelled

    async def documents(self, batch: Batch) -> list[Document]:
        """What was made of its files, as far as it is still in the collection, in the order of the batch."""
        found: list[Document] = []
        for id in batch.files:
            try:
                found.append(await self._store.get_document(*batch.scope, id))
            except NotFound:
                continue
        return found

    async def forget(self, scope: Scope) -> None:
        """Remove the batches of a collection."""
        while True:
            page = await self._store.scan_records(scope.owner, BATCHES, f"{_prefix(scope)}/", limit=100)
            for record in page.items:
                await self._store.delete_record(scope.owner, BATCHES, record.key)
            if page.next_cursor is None:
                return


def _prefix(scope: Scope) -> str:
    return blake2b(scope.collection.encode(), digest_size=16).hexdigest()


def _key(scope: Scope, id: str) -> str:
    return f"{_prefix(scope)}/{id}"
