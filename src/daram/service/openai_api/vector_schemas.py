"""Vector stores and their files: what comes in, what goes out, and what the words of the one are in the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from ninja import Schema
from pydantic import ConfigDict, Field

from daram.errors import InvalidInput
from daram.knowledge.collections import Collection
from daram.knowledge.fuse import Found
from daram.service.openai_api.schemas import In, ListOut, Metadata
from daram.store import validate
from daram.store.documents import Document
from daram.store.validate import Limits
from daram.text.chunk import Chunking

Json = dict[str, Any]
State = Literal["in_progress", "completed", "failed", "cancelled"]

STATES: Final[Mapping[str, State]] = {
    "waiting": "in_progress",
    "reading": "in_progress",
    "ready": "completed",
    "failed": "failed",
}


class VectorStoreIn(In):
    """A new vector store. ``expires_after`` is refused: what is stored stays until it is deleted."""

    name: str | None = None
    description: str | None = None
    file_ids: Annotated[list[str], Field(max_length=100)] | None = None
    chunking_strategy: Json | None = None
    metadata: Metadata | None = None


class VectorStoreChanges(In):
    """What is given is changed."""

    name: str | None = None
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
    status: Literal["in_progress", "completed"]
    expires_after: None
    expires_at: None
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
    """What to look for. ``filters`` are not available; the query is taken as it is, whatever ``rewrite_query`` says."""

    query: str | Annotated[list[str], Field(min_length=1, max_length=10)]
    max_num_results: Annotated[int, Field(ge=1, le=50)] = 10
    ranking_options: Json | None = None
    rewrite_query: bool | None = None


class ResultOut(Schema):
    """A passage that was found; the fields beyond OpenAI's say where it stands in its document."""

    model_config = ConfigDict(extra="allow")

    file_id: str
    filename: str
    score: float
    attributes: dict[str, str]
    content: list[Json]


class SearchPage(Schema):
    """Passages, the best first."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[ResultOut]
    has_more: bool
    next_page: str | None


class StoreFileIn(In):
    """A file to put into a vector store; ``attributes`` are strings."""

    file_id: str
    attributes: Json | None = None
    chunking_strategy: Json | None = None


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
    attributes: dict[str, str]
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
    kind = "auto" if strategy is None else strategy.get("type")
    if kind == "auto":
        return Chunking()
    static = strategy.get("static") if strategy is not None and kind == "static" else None
    sizes = [static.get(key) for key in ("max_chunk_size_tokens", "chunk_overlap_tokens")] if static else []
    if len(sizes) != 2 or not all(type(size) is int for size in sizes):
        raise InvalidInput(
            "chunking_strategy",
            "must be {'type': 'auto'} or {'type': 'static', 'static': {'max_chunk_size_tokens': N, "
            "'chunk_overlap_tokens': N}}",
        )
    how = Chunking(size=sizes[0], overlap=sizes[1], unit="tokens")
    try:
        how.check()
    except InvalidInput as error:
        raise InvalidInput("chunking_strategy", f"its {error.field} {error.problem}") from None
    return how


def attributes_of(given: Json | None) -> dict[str, str]:
    """The attributes of a file. Raises ``InvalidInput``."""
    for key, value in (given or {}).items():
        if not isinstance(value, str):
            raise InvalidInput(f"attributes.{key:.64}", "must be a string; numbers and booleans are not available here")
    return validate.metadata(given or {}, "attributes", Limits())


def threshold_of(options: Json | None) -> float:
    """The least score, from 0 to 1. Raises ``InvalidInput``."""
    least = (options or {}).get("score_threshold") or 0
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise InvalidInput("ranking_options.score_threshold", "must be a number from 0 to 1")
    return float(least)


# --- out ------------------------------------------------------------------------------------------------------------


def store_object(found: Collection, id: str, files: Sequence[Document]) -> Json:
    """A vector store as the API shows it."""
    states = [STATES[document.state] for document in files]
    counts = {state: states.count(state) for state in ("in_progress", "completed", "failed", "cancelled")}
    active = [document.updated_at for document in files if document.updated_at is not None]
    return {
        "id": id,
        "object": "vector_store",
        "created_at": int(found.created_at.timestamp()),
        "name": found.name,
        "description": found.description,
        "usage_bytes": sum(document.bytes for document in files),
        "file_counts": {**counts, "total": len(files)},
        "status": "in_progress" if counts["in_progress"] else "completed",
        "expires_after": None,
        "expires_at": None,
        "last_active_at": int(max([*active, found.created_at]).timestamp()),
        "metadata": found.metadata,
    }


def file_object(store: str, document: Document) -> Json:
    """A file of a vector store as the API shows it."""
    failed = document.state == "failed"
    return {
        "id": document.id,
        "object": "vector_store.file",
        "created_at": 0 if document.created_at is None else int(document.created_at.timestamp()),
        "vector_store_id": store,
        "status": STATES[document.state],
        "usage_bytes": document.bytes,
        "last_error": {"code": "invalid_file", "message": document.error or "cannot be read"} if failed else None,
        "attributes": document.metadata,
        "filename": document.name,
        "passages": document.passages,
    }


def result_object(found: Found) -> Json:
    """A passage that was found as the API shows it."""
    return {
        "file_id": found.document,
        "filename": found.name,
        "score": found.score,
        "attributes": {},
        "content": [{"type": "text", "text": found.text}],
        "title": found.title,
        "page": found.page,
        "heading": list(found.heading),
        "start": found.start,
        "end": found.end,
        "seq": found.first,
    }
