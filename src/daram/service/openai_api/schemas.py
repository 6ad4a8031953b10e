"""What comes in and goes out, for the checks of the one and the OpenAPI document of both."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from ninja import Schema
from pydantic import ConfigDict, Field

Metadata = Annotated[
    dict[str, str],
    Field(description="At most 16 pairs; keys of at most 64 characters, values of at most 512."),
]
AnyItem = Annotated[
    dict[str, Any],
    Field(
        description="A message (`role` and `content`), a function call or its output, reasoning, or any other item "
        "with a `type`, which is kept as it is.",
        examples=[{"role": "user", "content": "Hello"}],
    ),
]
Items = Annotated[list[AnyItem], Field(max_length=20)]


class In(Schema):
    """A body: what is not known is refused, as OpenAI does."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ConversationIn(In):
    """A new conversation. ``title`` is beyond OpenAI."""

    items: Items | None = None
    metadata: Metadata | None = None
    title: str | None = None


class ConversationChanges(In):
    """What is given is changed. All but ``metadata`` is beyond OpenAI."""

    metadata: Metadata | None = None
    title: str | None = None
    pinned: bool | None = None
    archived: bool | None = None


class ItemsIn(In):
    """Items to append. ``beside`` is beyond OpenAI: they become another branch beside that item (an edit of it)."""

    items: Annotated[list[AnyItem], Field(min_length=1, max_length=20)]
    beside: str | None = None


class ConversationOut(Schema):
    """A conversation; ``title``, ``pinned``, ``archived`` and ``updated_at`` are beyond OpenAI. Times in seconds."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]
    title: str | None
    pinned: bool
    archived: bool
    updated_at: int


class Deleted(Schema):
    """What is said of a deleted conversation."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class ListOut(Schema):
    """A page of a list: the next one comes ``after`` its ``last_id``."""

    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ConversationList(ListOut):
    """Conversations, the one changed last first. ``next_cursor`` goes on where this page ended, whatever changes."""

    data: list[ConversationOut]
    next_cursor: str | None


class ItemOut(Schema):
    """An item: see OpenAI's reference for the fields of each ``type``."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: str


class ItemList(ListOut):
    """Items."""

    data: list[ItemOut]


class Branch(Schema):
    """One of several messages that follow the same one; ``in_use``: the conversation goes through it."""

    id: str
    object: Literal["conversation.branch"]
    in_use: bool
    created_at: int
    items: list[ItemOut]


class BranchList(ListOut):
    """Branches, the oldest first."""

    data: list[Branch]


class Found(Schema):
    """A place where the words stand: the items of a message, and its conversation."""

    object: Literal["search.result"]
    id: str
    conversation_id: str
    title: str | None
    score: float
    created_at: int
    items: list[ItemOut]


class FoundList(ListOut):
    """Results, the best first."""

    data: list[Found]


class ModelOut(Schema):
    """A language model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Schema):
    """All models."""

    object: Literal["list"]
    data: list[ModelOut]


class ErrorDetail(Schema):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorOut(Schema):
    """A refusal."""

    error: ErrorDetail


REFUSALS: Final[dict[Any, Any]] = dict.fromkeys(
    (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 501, 502, 503, 504), ErrorOut
)
"""How every operation may refuse."""
