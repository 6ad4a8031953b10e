"""What comes into and out of ``/api/collections``, ``/api/documents`` and ``/api/references``."""

from __future__ import annotations

from ninja import Schema
from pydantic import ConfigDict

from daram.service.openai_api.schemas import In, Metadata
from daram.text.chunk import Chunking, Unit


class ChunkingIn(In):
    """How documents are cut."""

    size: int = Chunking().size
    overlap: int = Chunking().overlap
    unit: Unit = Chunking().unit


class CollectionChanges(In):
    """What is given is changed. Another chunking holds for what is added from now on."""

    name: str | None = None
    description: str | None = None
    chunking: ChunkingIn | None = None
    metadata: Metadata | None = None


class CollectionIn(CollectionChanges):
    """A new collection; ``owner``: ``group:NAME`` or ``official``, without it the caller's own."""

    id: str | None = None
    owner: str | None = None


class CollectionOut(Schema):
    """A collection. Times in seconds."""

    id: str
    name: str
    description: str
    shared: str | None
    chunking: ChunkingIn
    metadata: dict[str, str]
    created_at: int


class CollectionList(Schema):
    """All that the caller may read."""

    data: list[CollectionOut]


class Progress(Schema):
    """How far a document is read."""

    passages: int
    page: int | None


class DocumentOut(Schema):
    """A document; ``error``: why it could not be read; ``revision``: of its passages; ``progress``: while somebody
    reads it. Times in seconds."""

    id: str
    collection: str
    name: str
    title: str | None
    media_type: str | None
    bytes: int
    state: str
    error: str | None
    revision: str | None
    passages: int
    progress: Progress | None
    created_at: int
    updated_at: int


class DocumentList(Schema):
    """Documents, the newest first; the next page comes at ``next_cursor``."""

    data: list[DocumentOut]
    next_cursor: str | None


class PassageOut(Schema):
    """A passage; ``start`` and ``end`` are characters of the document's text."""

    seq: int
    text: str
    start: int
    end: int
    page: int | None
    heading: list[str]


class PassageList(Schema):
    """Passages in order, with the document that they stand in."""

    document: DocumentOut
    data: list[PassageOut]
    has_more: bool


class FoundOut(Schema):
    """A passage that bears on a question, the ``score`` from 0 to 1."""

    model_config = ConfigDict(extra="allow")

    collection: str
    document: str
    name: str
    text: str
    score: float


class FoundList(Schema):
    """Passages, the best first; ``answers``: whether the documents say anything about the question."""

    data: list[FoundOut]
    answers: bool


class ReferenceIn(In):
    """A text to be stored, in place of what stands there; ``owner`` as for collections."""

    title: str
    text: str
    owner: str | None = None


class ReferenceItem(Schema):
    """What is said of a reference; ``chars``: its length."""

    category: str
    title_no: str
    title: str
    shared: str | None
    chars: int
    updated_at: int


class ReferenceOut(ReferenceItem):
    """A reference with its text."""

    text: str


class ReferenceList(Schema):
    """References."""

    data: list[ReferenceItem]
