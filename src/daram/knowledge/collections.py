"""Collections: what they are called, and how their documents are cut. Kept as records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final

import msgspec

from daram import ids
from daram.errors import Conflict, InvalidInput, NotFound
from daram.knowledge.access import GROUP, OFFICIAL
from daram.knowledge.base import COLLECTIONS, Library, decode, encode
from daram.model import UNSET, Page, Record, Unset
from daram.store import validate
from daram.store.documents import Scope
from daram.store.paging import items
from daram.text.chunk import Chunking

ID_CHARS: Final = 256
CONVERSATION: Final = "conversation:"
"""In front of a conversation's id: the collection of what was uploaded into it. It has no record."""
SHADOW: Final = "reference:"
"""In front of a reference's key: its passages, where it is too long to go into a prompt whole."""
_NAME_CHARS: Final = 200
_ABOUT_CHARS: Final = 2_000


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A collection of documents. ``name``: what people call it; ``chunking``: how its documents are cut from now on.

    ``expires_days``: after so many days without use its documents are deleted (None: never); ``active_at``: when it was
    used last, as far as that matters.
    """

    id: str
    owner: str
    name: str
    description: str = ""
    chunking: Chunking = Chunking()
    metadata: dict[str, str] = {}
    created_at: datetime
    expires_days: int | None = None
    active_at: datetime | None = None
    etag: str = ""

    @property
    def expires_at(self) -> datetime | None:
        """When it ends unless it is used before."""
        if self.expires_days is None:
            return None
        return (self.active_at or self.created_at) + timedelta(days=self.expires_days)

    @property
    def expired(self) -> bool:
        """Whether it has ended."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)


class Collections:
    """The collections of a store. Nothing here asks who may: see ``daram.knowledge.access``."""

    def __init__(self, store: Library) -> None:
        self._store = store

    async def create(
        self,
        owner: str,
        *,
        id: str | None = None,
        name: str | None = None,
        description: str = "",
        chunking: Chunking = Chunking(),
        metadata: dict[str, str] | None = None,
        expires_days: int | None = None,
    ) -> Collection:
        """Make one; without ``id`` one is drawn. Raises ``Conflict`` if it exists, ``InvalidInput``."""
        id = "col_" + ids.uuid7() if id is None else _checked_id(id)
        made = Collection(
            id=id,
            owner=owner,
            name=id if name is None else name,
            description=description,
            chunking=chunking,
            metadata=metadata or {},
            created_at=datetime.now(UTC),
            expires_days=expires_days,
        )
        return await self._put(made, None)

    async def ensure(self, owner: str, id: str) -> Collection:
        """The collection, made where there is none. One of a conversation or a reference is not kept as a record."""
        if id.startswith((CONVERSATION, SHADOW)):
            return Collection(id=id, owner=owner, name=id, created_at=datetime.now(UTC))
        found = await self.find(owner, id)
        if found is not None:
            return found
        try:
            return await self.create(owner, id=id)
        except Conflict:  # somebody made it meanwhile
            return await self.get(owner, id)

    async def find(self, owner: str, id: str) -> Collection | None:
        """The collection, or None."""
        validate.name(id, "collection", ID_CHARS)
        record = await self._store.get_record(owner, COLLECTIONS, id)
        return None if record is None else _read(record)

    async def get(self, owner: str, id: str) -> Collection:
        """The collection. Raises ``NotFound``."""
        found = await self.find(owner, id)
        if found is None:
            raise NotFound("collection", id)
        return found

    async def list(self, owner: str, *, limit: int = 100, cursor: str | None = None) -> Page[Collection]:
        """The collections of an owner, by id."""
        page = await self._store.scan_records(owner, COLLECTIONS, limit=limit, cursor=cursor)
        return Page([_read(record) for record in page.items], page.next_cursor)

    def all(self, owner: str) -> AsyncIterator[Collection]:
        """All of an owner, by id."""
        return items(lambda cursor: self.list(owner, cursor=cursor))

    async def update(
        self,
        owner: str,
        id: str,
        *,
        name: str | Unset = UNSET,
        description: str | Unset = UNSET,
        chunking: Chunking | Unset = UNSET,
        metadata: dict[str, str] | Unset = UNSET,
        expires_days: int | Unset | None = UNSET,
        active_at: datetime | Unset = UNSET,
    ) -> Collection:
        """Change what is given. Another chunking holds for what is added from now on. Raises ``NotFound``."""
        found = await self.get(owner, id)
        given = {
            "name": name,
            "description": description,
            "chunking": chunking,
            "metadata": metadata,
            "expires_days": expires_days,
            "active_at": active_at,
        }
        fields = {key: value for key, value in given.items() if not isinstance(value, Unset)}
        return await self._put(msgspec.structs.replace(found, **fields), found.etag)

    async def forget(self, owner: str, id: str) -> None:
        """Remove its record; its documents go by ``delete_collection``."""
        await self._store.delete_record(owner, COLLECTIONS, id)

    async def _put(self, collection: Collection, expect: str | None) -> Collection:
        validate.text(collection.name, "name", _NAME_CHARS, "characters")
        validate.text(collection.description, "description", _ABOUT_CHARS, "characters")
        validate.metadata(collection.metadata, "metadata", validate.Limits())
        collection.chunking.check()
        if collection.expires_days is not None:
            validate.whole(collection.expires_days, "expires_days", 1, 365)
        value = encode(msgspec.structs.replace(collection, etag=""))
        record = await self._store.put_record(collection.owner, COLLECTIONS, collection.id, value, expect=expect)
        return msgspec.structs.replace(collection, etag=record.etag)


def of_conversation(conversation: str) -> str:
    """The id of the collection of what was uploaded into a conversation."""
    id = CONVERSATION + conversation
    return id if len(id) <= ID_CHARS else CONVERSATION + blake2b(conversation.encode(), digest_size=32).hexdigest()


def official_title(title_no: str | int) -> Scope:
    """The official collection that is a numbered title: what a chat about official documents is begun with."""
    return Scope(OFFICIAL, str(title_no))


def _checked_id(id: str) -> str:
    validate.name(id, "collection", ID_CHARS)
    if id.startswith((CONVERSATION, SHADOW)):
        raise InvalidInput("collection", f"{id!r}: this beginning is kept for conversations and references")
    if id.startswith((OFFICIAL + ":", GROUP)):
        raise InvalidInput("collection", f"{id!r}: what is shared is called so over HTTP; say whose it is as owner")
    return id


def _read(record: Record) -> Collection:
    found = decode(record.value, Collection, f"collection {record.key!r}")
    return msgspec.structs.replace(found, etag=record.etag)
