"""What is known of the request that is being answered, for whoever is called on its behalf."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["Note", "admit", "noted"]


@dataclass
class Note:
    """``id`` is what the client and the log know the request by; ``user`` is known once its key was looked at.

    ``headers`` are added to the response. ``admit`` says whether that user may have this request answered now.
    """

    id: str
    user: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    admit: Callable[[int], Awaitable[str | None]] | None = None


noted: ContextVar[Note | None] = ContextVar("daram_request", default=None)


async def admit(user: int) -> str | None:
    """This request is that user's: None if it may be answered, else why not, in a sentence."""
    note = noted.get()
    if note is None:
        return None
    note.user = user
    return None if note.admit is None else await note.admit(user)
