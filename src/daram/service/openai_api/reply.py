"""What the operations share: who calls, what is asked of the store, how it is answered."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse

from daram.errors import InvalidInput, TooLarge
from daram.memory import Memory
from daram.model import Conversation
from daram.service import runtime
from daram.service.accounts.auth import caller_of

_json = msgspec.json.Encoder()
_BATCH = re.compile(r"messages(\[\d+\])[^ ]*|messages")


def memory_of(request: HttpRequest) -> tuple[Memory, str]:
    """The store, and whose conversations the request is about."""
    return runtime.current().memory, caller_of(request).owner


def reply(value: Any, status: int = 200) -> HttpResponse:
    """A value as JSON."""
    return HttpResponse(_json.encode(value), status=status, content_type="application/json")


def conversation_object(conversation: Conversation) -> dict[str, Any]:
    """A conversation as the API shows it."""
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": conversation.metadata,
        "title": conversation.title,
        "pinned": conversation.pinned,
        "archived": conversation.archived,
        "updated_at": int(conversation.updated_at.timestamp()),
    }


def about_items(error: InvalidInput) -> InvalidInput:
    """The same refusal, about the item that the client sent instead of the message that was made of it."""
    field = _BATCH.sub(lambda found: f"items{found[1] or ''}", error.field)
    if isinstance(error, TooLarge):
        return TooLarge(field, error.actual, error.limit, error.unit)
    return InvalidInput(field, error.problem)
