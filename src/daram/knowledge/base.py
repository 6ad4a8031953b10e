"""What the rooms of ``daram.knowledge`` ask of a store, and the names under which they keep things in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Final, Protocol, TypeVar, runtime_checkable

import msgspec

from daram.errors import StoreCorrupt, Unsupported
from daram.model import Record
from daram.store.base import Store, SupportsRecords
from daram.store.documents import Document, Scope, SupportsDocuments
from daram.store.paging import items
from daram.store.wrapper import engine_of

T = TypeVar("T")

COLLECTIONS: Final = "documents.collection"
FILES: Final = "documents.file"
BLOBS: Final = "documents.blob"
REFERENCES: Final = "documents.reference"
BINDINGS: Final = "documents.binding"
LEASES: Final = "documents.lease"
UPLOADS: Final = "documents.upload"

HOUSE: Final = "daram:documents"
"""The owner of what belongs to no user: the list of uploads under way, the leases of work for all."""


NO_DOCUMENTS: Final = (
    "this store keeps no documents: SQLite and PostgreSQL do; set DARAM_DOCUMENTS to the URL of one, to have it beside"
)


@runtime_checkable
class Library(SupportsDocuments, SupportsRecords, Protocol):
    """A store that keeps documents, and records beside them."""


@runtime_checkable
class HasLibrary(Protocol):
    """A store of conversations whose documents may be in another one."""

    @property
    def library(self) -> Store | None:
        """The other one; None where they are in this."""
        ...


def library(store: object) -> Library:
    """The store as one that keeps documents, or the one beside it that does. Raises ``Unsupported``."""
    if isinstance(store, HasLibrary) and store.library is not None:
        store = store.library
    engine = engine_of(store) if isinstance(store, Store) else store
    if not isinstance(store, Library) or not isinstance(engine, SupportsDocuments):
        raise Unsupported(NO_DOCUMENTS)
    return store


def records_of(store: Library, owner: str, namespace: str, size: int = 100) -> AsyncIterator[Record]:
    """All records of an owner in a namespace, by key, read in pages of ``size``."""
    return items(lambda cursor: store.scan_records(owner, namespace, limit=size, cursor=cursor))


def documents_of(store: Library, scope: Scope, size: int = 100) -> AsyncIterator[Document]:
    """All documents of a collection, the newest first, read in pages of ``size``."""
    return items(lambda cursor: store.list_documents(*scope, limit=size, cursor=cursor))


def digest_key(first: str, second: str) -> str:
    """The key of a record that is about these two: of one length, however long they are."""
    raw = first.encode()
    return blake2b(len(raw).to_bytes(4, "big") + raw + second.encode(), digest_size=16).hexdigest()


def encode(value: msgspec.Struct) -> bytes:
    """A value as the bytes of a record."""
    return msgspec.json.encode(value)


def decode(data: bytes, kind: type[T], where: str) -> T:
    """A record's value; fields that a later release added are left out. Raises ``StoreCorrupt``."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreCorrupt(f"{where} cannot be read: {error}") from error
