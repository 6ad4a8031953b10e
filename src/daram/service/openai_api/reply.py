"""What the operations share: who calls, what is asked of the store, how it is answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse

from daram.errors import InvalidInput
from daram.memory import Memory
from daram.model import Conversation
from daram.service import runtime
from daram.service.accounts.auth import caller_of

_json = msgspec.json.Encoder()
_MESSAGE = re.compile(r"^messages?\b(?:.*?\.data\.given\.(.+)|.*)", re.DOTALL)
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
    return _about(_BATCH.sub(lambda found: f"items{found[1] or ''}", error.field), error)


@contextmanager
def about_request(messages: str) -> Iterator[None]:
    """What is refused within is told of the field of the request that the message was made of: ``messages``, or one
    that is kept beside the question.
    """
    try:
        yield
    except InvalidInput as error:
        raise _about(_MESSAGE.sub(lambda found: found[1] or messages, error.field), error) from None


def _about(field: str, error: InvalidInput) -> InvalidInput:
    error.field = field
    error.args = (f"{field}: {error.problem}",)
    return error
