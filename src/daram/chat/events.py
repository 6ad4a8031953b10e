"""What a turn tells while it runs: numbered events in a log, so that a client that left can come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol, runtime_checkable

import msgspec

from daram.model import Message

EventType = Literal["created", "delta", "completed", "incomplete", "cancelled", "failed"]
TERMINAL: frozenset[EventType] = frozenset({"completed", "incomplete", "cancelled", "failed"})


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of one answer. ``seq`` starts at 1 and rises by one; exactly one terminal event ends the log.

    ``created``: ``question`` is the id of the user's message (durable from here on). ``delta``: ``text`` is what was
    added. A terminal event has the ``message`` as stored, and for ``failed`` the ``error`` (one line) and its ``code``.
    """

    seq: int
    type: EventType
    answer: str
    text: str = ""
    question: str | None = None
    message: Message | None = None
    error: str | None = None
    code: str | None = None


@runtime_checkable
class EventLog(Protocol):
    """Keeps the events of running answers, and of finished ones for a while (default 10 minutes)."""

    async def publish(self, answer_id: str, event: Event) -> None:
        """Add an event; its ``seq`` must be the next one."""

    def follow(self, answer_id: str, after: int = 0) -> AsyncIterator[Event]:
        """The events with ``seq > after``, from the past and then live; ends behind the terminal event.

        Yields nothing where the log does not know the answer.
        """

    async def text(self, answer_id: str) -> tuple[str, int] | None:
        """The whole text so far and the last ``seq``, or None where the log does not know the answer."""

    async def close(self) -> None:
        """Let go of everything; followers end."""
