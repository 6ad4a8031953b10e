"""What an engine that keeps documents promises: ``SupportsDocuments``, and its values.

A **document** stands in a **collection** of an owner, and is searched as **passages**. Everything else that belongs to
documents (uploaded files, what collections are called and who may read them, reference texts) is kept as records.

What every operation promises, beyond what ``daram.store.base`` says:

* passages are staged under a revision, which nothing finds until ``publish_document`` makes it the document's: from one
  moment to the next its passages are the new ones and no others;
* a document that was deleted, or a revision that was replaced, is found by nothing from the moment the call returns;
* a search sees the collections that it names, and costs by what is in those.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from daram.model import UNSET, Page, Unset

DocumentState = Literal["waiting", "reading", "ready", "failed"]
"""``waiting``: stored, not read yet; ``reading``: being made into passages; ``failed``: see ``Document.error``. A
document that was ready before goes on to be found while its next revision is read."""


MOST_SCOPES: Final = 100
"""So many collections one search may name."""

Attribute = str | int | float | bool
"""What a document's metadata may say of it under one name."""


class Scope(NamedTuple):
    """A collection to search: whose, and which."""

    owner: str
    collection: str


Only = Mapping[Scope, Collection[str]]
"""Of these collections only the documents with these ids are searched; of others all."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document. ``etag``, ``revision``, ``passages``, ``created_at`` and ``updated_at`` are given by the store, and
    ``embedder`` by the operations that store vectors (``publish_document``, ``put_vectors``).

    ``digest``: of the bytes that its passages were made from and of how they were cut; what has the same digest need
    not be read again. ``bytes``: the length of the original. ``source``: the id of the file, or the URL, that it came
    from. ``revision``: of the passages that are found now (None: nothing is). ``embedder``: which model made their
    vectors (its name and dimensions, as ``name:512``), None where not all have one.
    """

    id: str
    owner: str
    collection: str
    name: str
    title: str | None = None
    media_type: str | None = None
    source: str | None = None
    digest: str = ""
    bytes: int = 0
    state: DocumentState = "waiting"
    error: str | None = None
    metadata: dict[str, Attribute] = {}
    embedder: str | None = None
    revision: str | None = None
    passages: int = 0
    etag: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a document. ``seq`` counts from 0; ``start`` and ``end`` are characters of the document's whole text.

    ``page`` counts from 1, where the format has pages; ``heading`` is the path of headings above, the outermost first.
    ``vector``: float32 values of unit length, little-endian; only on the way into the store.
    """

    seq: int
    text: str
    start: int
    end: int
    page: int | None = None
    heading: tuple[str, ...] = ()
    vector: bytes | None = None


class PassageHit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that a search found, and where. ``score``: higher is better; comparable within one search only for
    words, the cosine for vectors. ``revision``: the document's, of which the passage is."""

    scope: Scope
    document: str
    revision: str
    name: str
    title: str | None
    passage: Passage
    score: float


class Unembedded(msgspec.Struct, frozen=True, kw_only=True):
    """A published passage that has no vector of a given model."""

    scope: Scope
    document: str
    revision: str
    seq: int
    text: str


class PassageVector(NamedTuple):
    """The vector of a passage, and the model that made it."""

    seq: int
    embedder: str
    vector: bytes


@runtime_checkable
class SupportsDocuments(Protocol):
    """An engine that keeps documents and finds their passages by words, and by vectors where they have some."""

    async def put_document(self, document: Document, *, expect: str | Unset | None = UNSET) -> Document:
        """Store what is said of a document (all but what the store gives); returns it with its new etag.

        ``expect``: the etag that must be stored now, None for "must not exist". Raises ``Conflict``, ``InvalidInput``.
        """

    async def get_document(self, owner: str, collection: str, id: str) -> Document:
        """The document. Raises ``NotFound``."""

    async def list_documents(
        self, owner: str, collection: str, *, limit: int = 20, cursor: str | None = None
    ) -> Page[Document]:
        """The documents of a collection, the newest first; none where there is no such collection."""

    async def unfinished_documents(self, *, limit: int = 100, cursor: str | None = None) -> Page[Document]:
        """For administration: the documents of all owners that are waiting or being read, the oldest first."""

    async def stage_passages(
        self, owner: str, collection: str, id: str, revision: str, passages: Sequence[Passage]
    ) -> None:
        """Keep passages of a revision (at most 500 in a call), unseen until it is published; the same ``seq`` again
        replaces what was staged. What is not published within a day goes with the next ``purge``.

        Raises ``NotFound`` where the document is gone, ``Conflict`` where this revision is published already.
        """

    async def publish_document(self, document: Document, revision: str, *, expect: str) -> Document:
        """Make the staged ``revision`` the document's, and store what is said of it, in one transaction.

        ``document.embedder``: the model that made the vectors staged with it.

        What was found of it before is not any more; other staged revisions of it go. ``expect``: the etag that must
        be stored now; of two who read the document at once, one gets ``Conflict``. Raises ``NotFound``.
        """

    async def discard_revision(self, owner: str, collection: str, id: str, revision: str) -> None:
        """Remove what was staged; harmless where nothing was."""

    async def delete_document(self, owner: str, collection: str, id: str) -> None:
        """Delete a document with all of its passages. Raises ``NotFound``."""

    async def delete_collection(self, owner: str, collection: str) -> int:
        """Delete all documents of a collection; returns how many there were. Repeating it is harmless."""

    async def passages(
        self, owner: str, collection: str, id: str, *, after: int = -1, limit: int = 100
    ) -> list[Passage]:
        """The published passages with a ``seq`` above ``after``, in order, without vectors. Raises ``NotFound``."""

    async def search_passages(
        self,
        scopes: Sequence[Scope],
        query: str,
        *,
        limit: int = 20,
        any_word: bool = True,
        only: Only | None = None,
    ) -> list[PassageHit]:
        """The passages that best match the words, by BM25 or what the engine has nearest to it. Terms are those of
        ``daram.text.analyzer``, in the same way on every engine.

        ``any_word``: those that have any word; else those that have every word, and where there is none, any.
        ``only``: the best of these documents, as if there were no others.
        """

    async def nearest_passages(
        self,
        scopes: Sequence[Scope],
        vector: Sequence[float],
        embedder: str,
        *,
        limit: int = 20,
        only: Only | None = None,
    ) -> list[PassageHit]:
        """The passages whose vectors by ``embedder`` are nearest by cosine; those of other models are not looked at.

        ``only``: as for ``search_passages``. Raises ``Unsupported`` where this installation cannot search vectors.
        """

    async def unembedded(self, embedder: str, *, limit: int = 100) -> list[Unembedded]:
        """For administration: published passages of all owners without a vector of this model, at most ``limit``."""

    async def put_vectors(self, embedder: str, vectors: Sequence[tuple[Unembedded, bytes]]) -> None:
        """Give published passages their vectors (in place of another model's); what is gone meanwhile is left out.

        A document of whose passages all have one gets ``embedder`` set; its etag stays, since nothing else changes.
        """

    # --- moving; for administration, as in ``SupportsTransfer`` ---

    async def scan_documents(self, *, limit: int = 100, cursor: str | None = None) -> Page[Document]:
        """The documents of all owners, in an order of the engine's own."""

    async def passage_vectors(
        self, owner: str, collection: str, id: str, *, after: int = -1, limit: int = 100
    ) -> list[PassageVector]:
        """The vectors of the published passages with a ``seq`` above ``after``, in order. Raises ``NotFound``."""

    async def load_document(self, document: Document, *, expect: str | None) -> Document:
        """Store a document as it was elsewhere, with its times and its revision, but a new etag, in one transaction.

        Its passages are those staged under ``document.revision``, or those found of it already under that name;
        without a revision nothing is found of it. ``embedder``: the model that made the vectors staged with them.
        ``expect``: as for ``put_document``. Raises ``Conflict``, also where ``document.passages`` are not there.
        """
