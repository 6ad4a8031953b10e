"""What engines with documents share: validation and paging of ``SupportsDocuments``. An engine fills in the rest.

The underscored methods get clean values only, as those of ``daram.store.template`` do.
"""

from __future__ import annotations

import builtins
import math
from abc import abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, get_args

import msgspec

from daram import ids
from daram.codec import decode_cursor, encode_cursor, to_micros
from daram.errors import InvalidInput, TooLarge
from daram.model import UNSET, Page, Unset
from daram.store import validate
from daram.store.documents import (
    MOST_SCOPES,
    Document,
    DocumentState,
    Only,
    Passage,
    PassageHit,
    PassageVector,
    Scope,
    Unembedded,
)
from daram.store.template import Engine

MAX_SEQ = (1 << 24) - 1
"""The highest ``seq`` of a passage: an engine may make one number of a revision's and this one."""
STAGED_SECONDS = 24 * 3600
"""What was staged and not published for so long is removed by ``purge``."""
_STATES = get_args(DocumentState)
_DIMENSIONS = 4096
_HEADINGS = 16
_BATCH = 500


class DocumentRef(NamedTuple):
    """A document by its owner, its collection and its id."""

    owner: str
    collection: str
    id: str


class DocumentsEngine(Engine):
    """An ``Engine`` that ``SupportsDocuments``."""

    # --- what an engine fills in ---

    @abstractmethod
    async def _put_document(self, document: Document, expect: str | Unset | None) -> Document: ...

    @abstractmethod
    async def _get_document(self, ref: DocumentRef) -> Document: ...

    @abstractmethod
    async def _list_documents(
        self, scope: Scope, limit: int, before: tuple[int, str] | None
    ) -> builtins.list[Document]:
        """By ``created_at`` and id, falling, behind the position (µs since 1970, id)."""

    @abstractmethod
    async def _unfinished_documents(
        self, limit: int, after: tuple[int, str, str, str] | None
    ) -> builtins.list[Document]:
        """By ``created_at``, owner, collection and id, behind the position (µs since 1970 and these)."""

    @abstractmethod
    async def _stage_passages(self, ref: DocumentRef, revision: str, passages: builtins.list[Passage]) -> None: ...

    @abstractmethod
    async def _publish_document(self, document: Document, revision: str, expect: str) -> Document: ...

    @abstractmethod
    async def _discard_revision(self, ref: DocumentRef, revision: str) -> None:
        """Harmless where it is the published one too: that is not staged."""

    @abstractmethod
    async def _delete_document(self, ref: DocumentRef) -> None: ...

    @abstractmethod
    async def _delete_collection(self, scope: Scope) -> int: ...

    @abstractmethod
    async def _passages(self, ref: DocumentRef, after: int, limit: int) -> builtins.list[Passage]: ...

    @abstractmethod
    async def _search_passages(
        self, scopes: builtins.list[Scope], query: str, limit: int, any_word: bool, only: Only | None
    ) -> builtins.list[PassageHit]: ...

    @abstractmethod
    async def _nearest_passages(
        self, scopes: builtins.list[Scope], vector: array[float], embedder: str, limit: int, only: Only | None
    ) -> builtins.list[PassageHit]:
        """``vector`` has unit length and 32-bit floats."""

    @abstractmethod
    async def _unembedded(self, embedder: str, limit: int) -> builtins.list[Unembedded]: ...

    @abstractmethod
    async def _put_vectors(self, embedder: str, vectors: builtins.list[tuple[Unembedded, bytes]]) -> None: ...

    @abstractmethod
    async def _scan_documents(self, limit: int, after: tuple[str, str, str] | None) -> builtins.list[Document]:
        """By owner, collection and id (of bytes or of code points, it is the same order), behind the position."""

    @abstractmethod
    async def _passage_vectors(self, ref: DocumentRef, after: int, limit: int) -> builtins.list[PassageVector]: ...

    @abstractmethod
    async def _load_document(self, document: Document, expect: str | None) -> Document:
        """``document``: with all that it had but its etag."""

    # --- the public operations ---

    async def put_document(self, document: Document, *, expect: str | Unset | None = UNSET) -> Document:
        clean = self._document(document)
        if expect is not None and not isinstance(expect, Unset):
            validate.name(expect, "expect", 64)
        await self._open()
        return await self._put_document(clean, expect)

    async def get_document(self, owner: str, collection: str, id: str) -> Document:
        ref = self._document_ref(owner, collection, id)
        await self._open()
        return await self._get_document(ref)

    async def list_documents(
        self, owner: str, collection: str, *, limit: int = 20, cursor: str | None = None
    ) -> Page[Document]:
        where = self._scope(owner, collection)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        key = ids.conversation_key(*where)
        before: tuple[int, str] | None = None
        if cursor is not None:
            before = tuple(decode_cursor(cursor, "documents", key, int, str))
        await self._open()
        found = await self._list_documents(where, limit + 1, before)
        if len(found) <= limit:
            return Page(found)
        last = found[limit - 1]
        return Page(found[:limit], encode_cursor("documents", key, _made(last), last.id))

    async def unfinished_documents(self, *, limit: int = 100, cursor: str | None = None) -> Page[Document]:
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        after: tuple[int, str, str, str] | None = None
        if cursor is not None:
            after = tuple(decode_cursor(cursor, "unfinished", b"", int, str, str, str))
        await self._open()
        found = await self._unfinished_documents(limit + 1, after)
        if len(found) <= limit:
            return Page(found)
        last = found[limit - 1]
        position = (_made(last), last.owner, last.collection, last.id)
        return Page(found[:limit], encode_cursor("unfinished", b"", *position))

    async def stage_passages(
        self, owner: str, collection: str, id: str, revision: str, passages: Sequence[Passage]
    ) -> None:
        ref = self._document_ref(owner, collection, id)
        validate.name(revision, "revision", 64)
        clean = self._passage_batch(passages)
        await self._open()
        await self._stage_passages(ref, revision, clean)

    async def publish_document(self, document: Document, revision: str, *, expect: str) -> Document:
        clean = self._document(document)
        validate.name(revision, "revision", 64)
        validate.name(expect, "expect", 64)
        await self._open()
        return await self._publish_document(clean, revision, expect)

    async def discard_revision(self, owner: str, collection: str, id: str, revision: str) -> None:
        ref = self._document_ref(owner, collection, id)
        validate.name(revision, "revision", 64)
        await self._open()
        await self._discard_revision(ref, revision)

    async def delete_document(self, owner: str, collection: str, id: str) -> None:
        ref = self._document_ref(owner, collection, id)
        await self._open()
        await self._delete_document(ref)

    async def delete_collection(self, owner: str, collection: str) -> int:
        where = self._scope(owner, collection)
        await self._open()
        return await self._delete_collection(where)

    async def passages(
        self, owner: str, collection: str, id: str, *, after: int = -1, limit: int = 100
    ) -> builtins.list[Passage]:
        ref = self._document_ref(owner, collection, id)
        validate.whole(after, "after", -1, MAX_SEQ)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        await self._open()
        return await self._passages(ref, after, limit)

    async def search_passages(
        self,
        scopes: Sequence[Scope],
        query: str,
        *,
        limit: int = 20,
        any_word: bool = True,
        only: Only | None = None,
    ) -> builtins.list[PassageHit]:
        where = self._scopes(scopes)
        among = self._only(only)
        validate.text(query, "query", self.limits.query_chars, "characters")
        if not query.strip():
            raise InvalidInput("query", "must not be empty")
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        any_word = validate.flag(any_word, "any_word")
        await self._open()
        return await self._search_passages(where, query, limit, any_word, among) if where else []

    async def nearest_passages(
        self,
        scopes: Sequence[Scope],
        vector: Sequence[float],
        embedder: str,
        *,
        limit: int = 20,
        only: Only | None = None,
    ) -> builtins.list[PassageHit]:
        where = self._scopes(scopes)
        among = self._only(only)
        asked = _unit(vector)
        validate.name(embedder, "embedder", 128)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        await self._open()
        return await self._nearest_passages(where, asked, embedder, limit, among)

    async def unembedded(self, embedder: str, *, limit: int = 100) -> builtins.list[Unembedded]:
        validate.name(embedder, "embedder", 128)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        await self._open()
        return await self._unembedded(embedder, limit)

    async def put_vectors(self, embedder: str, vectors: Sequence[tuple[Unembedded, bytes]]) -> None:
        validate.name(embedder, "embedder", 128)
        if len(vectors) > _BATCH:
            raise TooLarge("vectors", len(vectors), _BATCH, "vectors")
        clean = [(place, _vector(vector, f"vectors[{i}]")) for i, (place, vector) in enumerate(vectors)]
        await self._open()
        await self._put_vectors(embedder, clean)

    async def scan_documents(self, *, limit: int = 100, cursor: str | None = None) -> Page[Document]:
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        after: tuple[str, str, str] | None = None
        if cursor is not None:
            after = tuple(decode_cursor(cursor, "all documents", b"", str, str, str))
        await self._open()
        found = await self._scan_documents(limit + 1, after)
        if len(found) <= limit:
            return Page(found)
        last = found[limit - 1]
        return Page(found[:limit], encode_cursor("all documents", b"", last.owner, last.collection, last.id))

    async def passage_vectors(
        self, owner: str, collection: str, id: str, *, after: int = -1, limit: int = 100
    ) -> builtins.list[PassageVector]:
        ref = self._document_ref(owner, collection, id)
        validate.whole(after, "after", -1, MAX_SEQ)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        await self._open()
        return await self._passage_vectors(ref, after, limit)

    async def load_document(self, document: Document, *, expect: str | None) -> Document:
        clean = self._document(document)
        made, changed = (validate.moment(getattr(document, name), name) for name in ("created_at", "updated_at"))
        if made is None or changed is None:
            raise InvalidInput("created_at, updated_at", "must be given")
        if document.revision is not None:
            validate.name(document.revision, "revision", 64)
        elif document.passages:
            raise InvalidInput("passages", "must be 0 where there is no revision")
        if expect is not None:
            validate.name(expect, "expect", 64)
        loaded = msgspec.structs.replace(
            clean,
            revision=document.revision,
            passages=validate.whole(document.passages, "passages", 0, MAX_SEQ + 1),
            created_at=made,
            updated_at=changed,
        )
        await self._open()
        return await self._load_document(loaded, expect)

    # --- helpers ---

    def _scope(self, owner: str, collection: str) -> Scope:
        self._owner(owner)
        return Scope(owner, validate.name(collection, "collection", self.limits.collection_chars))

    def _scopes(self, scopes: Sequence[Scope]) -> builtins.list[Scope]:
        """Each once."""
        found = list(dict.fromkeys(self._scope(*scope) for scope in scopes))
        if len(found) > MOST_SCOPES:
            raise TooLarge("scopes", len(found), MOST_SCOPES, "collections")
        return found

    def _only(self, only: Only | None) -> dict[Scope, frozenset[str]] | None:
        if only is None:
            return None
        if not isinstance(only, Mapping):
            raise InvalidInput("only", f"must be a mapping of scopes to ids, not {type(only).__name__}")
        return {
            self._scope(*scope): frozenset(validate.name(id, "only", self.limits.document_id_chars) for id in ids)
            for scope, ids in only.items()
        }

    def _document_ref(self, owner: str, collection: str, id: str) -> DocumentRef:
        where = self._scope(owner, collection)
        return DocumentRef(*where, validate.name(id, "id", self.limits.document_id_chars))

    def _document(self, value: object) -> Document:
        """A document that may be stored, without what the store gives."""
        if not isinstance(value, Document):
            raise InvalidInput("document", f"must be a Document, not {type(value).__name__}")
        self._document_ref(value.owner, value.collection, value.id)
        validate.text(value.name, "name", 512, "characters")
        for field, limit in (("title", self.limits.title_chars), ("source", 4096), ("error", 4096)):
            if (given := getattr(value, field)) is not None:
                validate.text(given, field, limit, "characters")
        if value.media_type is not None:
            validate.name(value.media_type, "media_type", 256)
        if value.embedder is not None:
            validate.name(value.embedder, "embedder", 128)
        validate.text(value.digest, "digest", 256, "characters")
        validate.whole(value.bytes, "bytes", 0, 1 << 53)
        if value.state not in _STATES:
            raise InvalidInput("state", f"must be one of {', '.join(_STATES)}, not {value.state!r:.40}")
        return msgspec.structs.replace(
            value,
            metadata=validate.attributes(value.metadata, "metadata", self.limits),
            revision=None,
            passages=0,
            etag="",
            created_at=None,
            updated_at=None,
        )

    def _passage_batch(self, passages: Sequence[Passage]) -> builtins.list[Passage]:
        if len(passages) > _BATCH:
            raise TooLarge("passages", len(passages), _BATCH, "passages")
        clean = [self._passage(passage, f"passages[{i}]") for i, passage in enumerate(passages)]
        if len({passage.seq for passage in clean}) != len(clean):
            raise InvalidInput("passages", "must each have a seq of its own")
        return clean

    def _passage(self, value: object, field: str) -> Passage:
        if not isinstance(value, Passage):
            raise InvalidInput(field, f"must be a Passage, not {type(value).__name__}")
        validate.whole(value.seq, f"{field}.seq", 0, MAX_SEQ)
        validate.text(value.text, f"{field}.text", self.limits.passage_bytes)
        validate.whole(value.start, f"{field}.start", 0, 1 << 53)
        validate.whole(value.end, f"{field}.end", value.start, 1 << 53)
        if value.page is not None:
            validate.whole(value.page, f"{field}.page", 1, 1 << 31)
        headings: object = value.heading
        if not isinstance(headings, tuple) or len(headings) > _HEADINGS:
            raise InvalidInput(f"{field}.heading", f"must be a tuple of at most {_HEADINGS} strings")
        for heading in headings:
            validate.text(heading, f"{field}.heading", self.limits.title_chars, "characters")
        if value.vector is not None:
            _vector(value.vector, f"{field}.vector")
        return value


def expected(found: Document | None, expect: str | Unset | None) -> bool:
    """Whether what is stored is what the caller believed."""
    return isinstance(expect, Unset) or expect == (None if found is None else found.etag)


def bare(passage: Passage) -> Passage:
    """The passage as it comes out of a store: without its vector."""
    return passage if passage.vector is None else msgspec.structs.replace(passage, vector=None)


def floats(vector: bytes) -> array[float]:
    """A stored vector as numbers; on every machine that Daram runs on, its order of bytes is the stored one."""
    found = array("f")
    found.frombytes(vector)
    return found


def _made(document: Document) -> int:
    moment: datetime | None = document.created_at
    assert moment is not None  # the store gave it
    return to_micros(moment)


def _vector(value: object, field: str) -> bytes:
    """32-bit floats of unit length: not a number, infinity and zeros are none, and would spoil a whole search."""
    if not isinstance(value, bytes) or not value or len(value) % 4:
        raise InvalidInput(field, "must be the bytes of 32-bit floats")
    if len(value) > 4 * _DIMENSIONS:
        raise TooLarge(field, len(value) // 4, _DIMENSIONS, "dimensions")
    length = math.hypot(*floats(value))
    if not 0.99 < length < 1.01:
        raise InvalidInput(field, f"must have unit length, not {length:g}")
    return value


def _unit(vector: Sequence[float]) -> array[float]:
    try:
        numbers = [float(x) for x in vector]
    except (TypeError, ValueError):
        raise InvalidInput("vector", "must be a sequence of numbers") from None
    length = math.hypot(*numbers)
    if not math.isfinite(length) or length == 0:  # of no numbers at all too
        raise InvalidInput("vector", "must have a direction: numbers that are finite, and not all of them 0")
    if len(numbers) > _DIMENSIONS:
        raise TooLarge("vector", len(numbers), _DIMENSIONS, "dimensions")
    return array("f", (x / length for x in numbers))
