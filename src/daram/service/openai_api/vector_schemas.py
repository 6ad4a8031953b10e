"""Vector stores and their files: what comes in, what goes out, and what the words of the one are in the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from ninja import Schema
from pydantic import ConfigDict, Field

from daram.errors import InvalidInput, UnsupportedDocument
from daram.knowledge.batches import Batch
from daram.knowledge.collections import Collection
from daram.knowledge.fuse import Found
from daram.knowledge.ingest import CANCELLED
from daram.knowledge.ingest import chunking_of as cut_of
from daram.knowledge.retrieve import Retrieval
from daram.service.openai_api.schemas import In, ListOut, Metadata
from daram.store import validate
from daram.store.documents import Document
from daram.store.validate import Limits
from daram.text.chunk import Chunking
from daram.text.load import kind_of

Json = dict[str, Any]
MOST_FILES: Final = 500
"""In one request."""
_RANKERS: Final = ("auto", "none", "default-2024-11-15", "default_2024_08_21")
State = Literal["in_progress", "completed", "failed", "cancelled"]

Attributes = dict[str, str | int | float | bool]

_STATES: Final[Mapping[str, State]] = {
    "waiting": "in_progress",
    "reading": "in_progress",
    "ready": "completed",
    "failed": "failed",
}


class ExpiresAfter(In):
    """After so many days without use what is in a vector store is deleted."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, Field(ge=1, le=365)]


class VectorStoreIn(In):
    """A new vector store."""

    name: str | None = None
    description: str | None = None
    file_ids: Annotated[list[str], Field(max_length=MOST_FILES)] | None = None
    expires_after: ExpiresAfter | None = None
    chunking_strategy: Json | None = None
    metadata: Metadata | None = None


class VectorStoreChanges(In):
    """What is given is changed."""

    name: str | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class FileCounts(Schema):
    """How many of its files are in which state."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStoreOut(Schema):
    """A vector store; ``description`` is beyond OpenAI. Times in seconds."""

    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    description: str
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: ExpiresAfter | None
    expires_at: int | None
    last_active_at: int | None
    metadata: dict[str, str]


class VectorStoreList(ListOut):
    """Vector stores."""

    data: list[VectorStoreOut]


class VectorStoreDeleted(Schema):
    """What is said of a deleted vector store."""

    id: str
    object: Literal["vector_store.deleted"]
    deleted: Literal[True]


class SearchIn(In):
    """What to look for. ``rewrite_query``: the question is also asked for its concept, its usage and its code."""

    query: str | Annotated[list[str], Field(min_length=1, max_length=10)]
    filters: Json | None = None
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None
    ranking_options: Json | None = None
    rewrite_query: bool | None = None


class ResultOut(Schema):
    """A passage that was found; the fields beyond OpenAI's say where it stands in its document."""

    model_config = ConfigDict(extra="allow")

    file_id: str
    filename: str
    score: float
    attributes: Attributes
    content: list[Json]


class SearchPage(Schema):
    """Passages, the best first."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[ResultOut]
    has_more: bool
    next_page: str | None


class StoreFileIn(In):
    """A file to put into a vector store; ``attributes``: at most 16 strings, numbers or truth values."""

    file_id: str
    attributes: Json | None = None
    chunking_strategy: Json | None = None


class StoreFileChanges(In):
    """What is said of a file in a vector store, in place of what was."""

    attributes: Json | None


class BatchIn(In):
    """Files to put into a vector store together: ``file_ids``, or ``files`` with what holds for each."""

    file_ids: Annotated[list[str], Field(min_length=1, max_length=MOST_FILES)] | None = None
    files: Annotated[list[StoreFileIn], Field(min_length=1, max_length=MOST_FILES)] | None = None
    attributes: Json | None = None
    chunking_strategy: Json | None = None


class BatchOut(Schema):
    """Files that were put into a vector store together."""

    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: State
    file_counts: FileCounts


class LastError(Schema):
    """Why a file could not be read."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class StoreFileOut(Schema):
    """A file in a vector store; ``filename`` and ``passages`` are beyond OpenAI."""

    id: str
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: State
    usage_bytes: int
    last_error: LastError | None
    attributes: Attributes
    chunking_strategy: Json
    filename: str
    passages: int


class StoreFileList(ListOut):
    """Files of a vector store."""

    data: list[StoreFileOut]


class StoreFileDeleted(Schema):
    """What is said of a file that was taken out."""

    id: str
    object: Literal["vector_store.file.deleted"]
    deleted: Literal[True]


class ContentPage(Schema):
    """What was read of a file."""

    object: Literal["vector_store.file_content.page"]
    data: list[Json]
    has_more: bool
    next_page: str | None


# --- in -------------------------------------------------------------------------------------------------------------


def chunking_of(strategy: Json | None) -> Chunking:
    """How the documents of a new vector store are cut. Raises ``InvalidInput``."""
    return given_chunking(strategy) or Chunking()


def given_chunking(strategy: Json | None, field: str = "chunking_strategy") -> Chunking | None:
    """How a file is cut; None as its vector store says. Raises ``InvalidInput``."""
    kind = "auto" if strategy is None else strategy.get("type")
    if kind == "auto":
        return None
    static = strategy.get("static") if strategy is not None and kind == "static" else None
    sizes = [static.get(key) for key in ("max_chunk_size_tokens", "chunk_overlap_tokens")] if static else []
    if len(sizes) != 2 or not all(type(size) is int for size in sizes):
        raise InvalidInput(
            field,
            "must be {'type': 'auto'} or {'type': 'static', 'static': {'max_chunk_size_tokens': N, "
            "'chunk_overlap_tokens': N}}",
        )
    how = Chunking(size=sizes[0], overlap=sizes[1], unit="tokens")
    try:
        how.check()
    except InvalidInput as error:
        raise InvalidInput(field, f"its {error.field} {error.problem}") from None
    return how


def attributes_of(given: Json | None, field: str = "attributes") -> Attributes:
    """The attributes of a file. Raises ``InvalidInput``."""
    return validate.attributes(given or {}, field, Limits())


def ranked(how: Retrieval, options: Json | None, most: int, field: str = "ranking_options") -> tuple[Retrieval, float]:
    """How to search, as ``ranking_options`` has it, for at most so many results; and the least score, from 0 to 1.

    Raises ``InvalidInput``.
    """
    options = {key: value for key, value in (options or {}).items() if value is not None}
    if unknown := sorted(options.keys() - {"ranker", "score_threshold", "hybrid_search"}):
        raise InvalidInput(f"{field}.{unknown[0]:.64}", "is not available here")
    ranker = options.get("ranker", "auto")
    if ranker not in _RANKERS:
        raise InvalidInput(f"{field}.ranker", f"must be one of {', '.join(_RANKERS)}, not {ranker!r:.40}")
    least = options.get("score_threshold", 0)
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise InvalidInput(f"{field}.score_threshold", "must be a number from 0 to 1")
    changed: Json = {"passages": most, "candidates": max(how.candidates, most)}
    if ranker == "none":
        changed["rerank"] = False
    if "hybrid_search" in options:
        changed |= _weights(options["hybrid_search"], f"{field}.hybrid_search")
    return msgspec.structs.replace(how, **changed), float(least)


def _weights(given: object, field: str) -> Json:
    names = {"text_weight": "words", "embedding_weight": "vectors"}
    if not isinstance(given, dict) or given.keys() != names.keys():
        raise InvalidInput(field, "must have an 'embedding_weight' and a 'text_weight'")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000:
            raise InvalidInput(f"{field}.{name}", "must be a number from 0 to 1,000")
    if not any(given.values()):
        raise InvalidInput(field, "must have a weight above 0")
    return {names[name]: float(value) for name, value in given.items()}


# --- out ------------------------------------------------------------------------------------------------------------


def state_of(document: Document) -> State:
    """How far a file is."""
    return "cancelled" if document.error == CANCELLED else _STATES[document.state]


def counts_of(files: Sequence[Document]) -> dict[str, int]:
    """How many files are in which state."""
    states = [state_of(document) for document in files]
    counts = {state: states.count(state) for state in ("in_progress", "completed", "failed", "cancelled")}
    return {**counts, "total": len(files)}


def store_object(found: Collection, id: str, files: Sequence[Document]) -> Json:
    """A vector store as the API shows it."""
    counts = counts_of(files)
    days = found.expires_days
    active = [document.updated_at for document in files if document.updated_at is not None]
    return {
        "id": id,
        "object": "vector_store",
        "created_at": int(found.created_at.timestamp()),
        "name": found.name,
        "description": found.description,
        "usage_bytes": sum(document.bytes for document in files),
        "file_counts": counts,
        "status": "expired" if found.expired else "in_progress" if counts["in_progress"] else "completed",
        "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
        "expires_at": None if found.expires_at is None else int(found.expires_at.timestamp()),
        "last_active_at": int((found.active_at or max([*active, found.created_at])).timestamp()),
        "metadata": found.metadata,
    }


def file_object(store: str, document: Document) -> Json:
    """A file of a vector store as the API shows it."""
    state = state_of(document)
    return {
        "id": document.id,
        "object": "vector_store.file",
        "created_at": 0 if document.created_at is None else int(document.created_at.timestamp()),
        "vector_store_id": store,
        "status": state,
        "usage_bytes": document.bytes,
        "last_error": _last_error(document) if state == "failed" else None,
        "attributes": document.metadata,
        "chunking_strategy": _strategy(document),
        "filename": document.name,
        "passages": document.passages,
    }


def batch_object(store: str, batch: Batch, files: Sequence[Document]) -> Json:
    """A batch of files as the API shows it; what was taken out of the vector store since is not counted."""
    counts = counts_of(files)
    if counts["in_progress"]:
        status = "in_progress"
    elif batch.cancelled:
        status = "cancelled"
    else:
        status = "failed" if files and counts["failed"] == len(files) else "completed"
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": int(batch.created_at.timestamp()),
        "vector_store_id": store,
        "status": status,
        "file_counts": counts,
    }


def _last_error(document: Document) -> Json:
    code = "invalid_file"
    try:
        kind_of(document.name, document.media_type)
    except UnsupportedDocument:
        code = "unsupported_file"
    return {"code": code, "message": document.error or "cannot be read"}


def _strategy(document: Document) -> Json:
    how = cut_of(document)
    if how is None or how.unit != "tokens":
        return {"type": "other"}
    static = {"max_chunk_size_tokens": how.size, "chunk_overlap_tokens": how.overlap}
    return {"type": "static", "static": static}


def result_object(found: Found, attributes: Attributes) -> Json:
    """A passage that was found as the API shows it."""
    return {
        "file_id": found.document,
        "filename": found.name,
        "score": found.score,
        "attributes": attributes,
        "content": [{"type": "text", "text": found.text}],
        "title": found.title,
        "page": found.page,
        "heading": list(found.heading),
        "start": found.start,
        "end": found.end,
        "seq": found.first,
    }
