"""What ends by itself: files after a time, collections that nobody used for some days."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from daram.errors import Conflict, InvalidInput, NotFound
from daram.knowledge.base import HOUSE, Library, decode, digest_key, encode, records_of
from daram.knowledge.bindings import delete_documents
from daram.knowledge.collections import Collection, Collections
from daram.knowledge.files import Files
from daram.store.documents import Scope

EXPIRING: Final = "documents.expiring"
_TOUCHED: Final = timedelta(minutes=1)  # a collection in use says so no more often


class _Expiring(msgspec.Struct):
    owner: str
    collection: str


async def note(store: Library, collection: Collection) -> None:
    """Have the house look whether a collection has expired, where it can."""
    if collection.expires_days is not None:
        scope = Scope(collection.owner, collection.id)
        await store.put_record(HOUSE, EXPIRING, digest_key(*scope), encode(_Expiring(*scope)))


async def use(collections: Collections, found: Collection) -> Collection:
    """Note that a collection is used, where its end depends on that. Raises ``InvalidInput`` where it has expired."""
    if found.expires_days is None:
        return found
    if found.expired:
        raise InvalidInput(
            "vector_store_id", f"{found.id!r} has expired: it was not used for {found.expires_days} days"
        )
    if datetime.now(UTC) - (found.active_at or found.created_at) > _TOUCHED:
        with suppress(Conflict, NotFound):  # somebody else notes the same, or deletes it
            return await collections.update(found.owner, found.id, active_at=datetime.now(UTC))
    return found


async def sweep(store: Library, files: Files, collections: Collections) -> int:
    """Delete the documents of collections that have expired; returns how many collections."""
    ended = 0
    async for record in records_of(store, HOUSE, EXPIRING):
        where = decode(record.value, _Expiring, f"collection {record.key!r}")
        found = await collections.find(where.owner, where.collection)
        if found is not None and found.expires_days is not None and not found.expired:
            continue
        if found is not None and found.expired:
            await delete_documents(store, files, Scope(found.owner, found.id))
            ended += 1
        await store.delete_record(HOUSE, EXPIRING, record.key)
    return ended
