"""References: texts that are stored under (category, title_no), for answers about one of them. By reference, never
copied into chats: what is corrected here is what the next turn of every chat reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import msgspec

from daram.errors import DocumentError, InvalidInput, NotFound, StoreBusy
from daram.knowledge.base import REFERENCES, Library, decode, encode
from daram.knowledge.bindings import delete_documents
from daram.knowledge.collections import SHADOW
from daram.knowledge.files import Files
from daram.knowledge.ingest import Ingester
from daram.model import Page, Record
from daram.store import validate
from daram.store.documents import Document, Scope
from daram.store.paging import items
from daram.text.chunk import Chunking
from daram.text.load import clean

TEXTS: Final = "documents.reference.text"
MAX_BYTES: Final = 3 << 20
_CATEGORY_CHARS: Final = 64
_NUMBER_CHARS: Final = 64
_TITLE_CHARS: Final = 300
_PATIENCE: Final = 60.0
_DOCUMENT: Final = "text"


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A text under a category and the number of its title in it. ``digest``: SHA-256 of the text; ``chars``: its
    length."""

    owner: str
    category: str
    title_no: str
    title: str
    digest: str
    chars: int
    updated_at: datetime
    etag: str = ""

    @property
    def scope(self) -> Scope:
        """The collection that holds its passages."""
        return Scope(self.owner, SHADOW + _key(self.category, self.title_no))


class References:
    """The references of a store. Nothing here asks who may: see ``daram.knowledge.access``."""

    def __init__(self, store: Library, files: Files, ingester: Ingester) -> None:
        self._store = store
        self._files = files
        self._ingester = ingester

    async def put(self, owner: str, category: str, title_no: str | int, title: str, text: str) -> Reference:
        """Store a text, in place of what stood there. It is found whole from now on, in pieces once it is read.

        Raises ``InvalidInput``, ``TooLarge`` (a longer text is a document).
        """
        number = _checked(category, title_no)
        validate.text(title, "title", _TITLE_CHARS, "characters")
        text = clean(validate.text(text, "text", MAX_BYTES))
        if not text:
            raise InvalidInput("text", "must not be empty")
        data = text.encode()
        key = _key(category, number)
        former = await self._store.get_record(owner, REFERENCES, key)
        reference = Reference(
            owner=owner,
            category=category,
            title_no=number,
            title=title or number,
            digest=sha256(data).hexdigest(),
            chars=len(text),
            updated_at=datetime.now(UTC),
        )
        # The text first: what is said of it must never lead to nothing.
        await self._store.put_record(owner, TEXTS, f"{key}/{reference.digest}", data)
        record = await self._store.put_record(
            owner, REFERENCES, key, encode(reference), expect=None if former is None else former.etag
        )
        await self._keep_only(owner, key, reference.digest)
        await self._shadow(reference, data)
        return msgspec.structs.replace(reference, etag=record.etag)

    async def get(self, owner: str, category: str, title_no: str | int) -> Reference:
        """What is said of it. Raises ``NotFound``, which names the title, or the category where it holds none."""
        number = _checked(category, title_no)
        record = await self._store.get_record(owner, REFERENCES, _key(category, number))
        if record is not None:
            return _reference(record)
        others = await self._store.scan_records(owner, REFERENCES, category + "/", limit=1)
        if others.items:
            raise NotFound("title", f"{category}/{number}")
        raise NotFound("category", category)

    async def text(self, reference: Reference) -> tuple[Reference, str]:
        """The text as it stands now, with what is said of it. Raises ``NotFound``."""
        while True:
            key = _key(reference.category, reference.title_no)
            record = await self._store.get_record(reference.owner, TEXTS, f"{key}/{reference.digest}")
            if record is not None:
                return reference, record.value.decode()
            # Corrected between the two reads.
            reference = await self.get(reference.owner, reference.category, reference.title_no)

    async def list(
        self, owner: str, category: str | None = None, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Reference]:
        """The references of an owner, by category and number."""
        prefix = "" if category is None else category + "/"
        page = await self._store.scan_records(owner, REFERENCES, prefix, limit=limit, cursor=cursor)
        return Page([_reference(record) for record in page.items], page.next_cursor)

    def all(self, owner: str, category: str | None = None) -> AsyncIterator[Reference]:
        """All of an owner, or of one category of his, by category and number."""
        return items(lambda cursor: self.list(owner, category, cursor=cursor))

    async def delete(self, owner: str, category: str, title_no: str | int) -> None:
        """Delete a text with its passages. Raises ``NotFound``."""
        reference = await self.get(owner, category, title_no)
        key = _key(category, reference.title_no)
        await delete_documents(self._store, self._files, reference.scope)
        await self._store.delete_record(owner, REFERENCES, key)
        await self._keep_only(owner, key, None)

    async def readable(self, reference: Reference) -> Scope:
        """The collection with the passages of this very text, as soon as it is read.

        Raises ``StoreBusy`` where that takes too long, ``NotFound``.
        """
        try:
            document = await self._store.get_document(*reference.scope, _DOCUMENT)
        except NotFound:
            document = None
        if document is None or document.metadata.get("sha256") != reference.digest or document.state == "failed":
            reference, text = await self.text(reference)
            document = await self._shadow(reference, text.encode())
        if document.state != "ready":
            try:
                async with asyncio.timeout(_PATIENCE):
                    document = await self._ingester.wait(document)
            except TimeoutError:
                where = f"{reference.category}/{reference.title_no}"
                raise StoreBusy(f"the reference {where} is still being read; try again in a moment") from None
        if document.state == "failed":
            raise DocumentError(document.name, document.error or "cannot be read")
        return reference.scope

    async def _shadow(self, reference: Reference, data: bytes) -> Document:
        collection = reference.scope.collection
        where = (collection, _DOCUMENT)
        name = f"{reference.title}.txt"[-500:]
        file = await self._files.put(reference.owner, name, data, media_type="text/plain", until="read", document=where)
        document = Document(
            id=_DOCUMENT,
            owner=reference.owner,
            collection=collection,
            name=name,
            title=reference.title,
            media_type="text/plain",
            metadata={"sha256": reference.digest},
        )
        return await self._ingester.add(document, file, Chunking())

    async def _keep_only(self, owner: str, key: str, digest: str | None) -> None:
        page = await self._store.scan_records(owner, TEXTS, f"{key}/", limit=100)
        for record in page.items:
            if record.key != f"{key}/{digest}":
                await self._store.delete_record(owner, TEXTS, record.key)


def _checked(category: str, title_no: str | int) -> str:
    number = validate.name(str(title_no), "title_no", _NUMBER_CHARS)
    for field, value in (("category", validate.name(category, "category", _CATEGORY_CHARS)), ("title_no", number)):
        if "/" in value:
            raise InvalidInput(field, "must not hold a slash")
    return number


def _key(category: str, number: str) -> str:
    return f"{category}/{number}"


def _reference(record: Record) -> Reference:
    found = decode(record.value, Reference, f"reference {record.key!r}")
    return msgspec.structs.replace(found, etag=record.etag)
