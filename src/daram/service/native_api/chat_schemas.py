"""What comes into and out of ``/api/chats/``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ninja import Schema
from pydantic import ConfigDict, Field

from daram.service.openai_api.schemas import In

State = Literal["answered", "running", "delayed", "incomplete", "cancelled", "failed"]


class TurnIn(In):
    """The next question of a chat."""

    user_input: str


class ChatIn(TurnIn):
    """A new chat: about which title of which category, and its first question."""

    category: Annotated[str, Field(examples=["OFFICIAL_DOCS"])]
    title_no: int | str


class Source(Schema):
    """Where an answer comes from: ``n`` is the number in its words (``[1]``), ``url`` opens the passage."""

    model_config = ConfigDict(extra="allow")

    n: int
    kind: str
    title: str | None
    url: str


class Reply(Schema):
    """The answer to a question: ``id`` is the chat's. ``state``: ``delayed`` where it took its time."""

    id: str
    AI: str
    sources: list[Source]
    state: State


class ChatItem(Schema):
    """A chat; ``category`` and ``title_no`` are null where it was begun elsewhere. Times in seconds."""

    id: str
    category: str | None
    title_no: str | None
    title: str | None
    created_at: int
    updated_at: int


class ChatList(Schema):
    """Chats; the next page comes at ``next_cursor``."""

    chats: list[ChatItem]
    next_cursor: str | None


class Chat(ChatItem):
    """A chat with what was said: ``{"id_user", "USER"}`` and ``{"id_ai", "AI", "sources", "state"}``, in order."""

    conversation: list[dict[str, Any]]
    next_cursor: str | None
