"""What a turn tells while it runs: numbered events in a log, so that a client that left can come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec

from daram.errors import ChatbotClosed, Conflict
from daram.model import Message, Status

EventType = Literal["created", "delta", "completed", "incomplete", "cancelled", "failed"]
TERMINAL: frozenset[EventType] = frozenset({"completed", "incomplete", "cancelled", "failed"})
_TERMINAL_OF: Final[dict[Status, EventType]] = {
    "complete": "completed",
    "incomplete": "incomplete",
    "cancelled": "cancelled",
    "failed": "failed",
}


def terminal_type(status: Status) -> EventType:
    """The type of the event that ends the log of an answer with that status."""
    return _TERMINAL_OF[status]


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
        """Add an event; its ``seq`` must be the next one.

        Raises ``Conflict`` where it is not, and behind a terminal event: whoever came second must not be heard.
        """

    def follow(self, answer_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events with ``seq > after``, from the past and then live; ends behind the terminal event.

        Yields nothing where the log does not know the answer. Raises ``StoreUnavailable`` where it was lost on the way.
        """

    async def text(self, answer_id: str) -> tuple[str, int] | None:
        """The whole text so far and the last ``seq``, or None where the log does not know the answer."""

    async def close(self) -> None:
        """Let go of everything; followers end."""


# What an event takes beside its text.
_EVENT_BYTES: Final = 200


class _Tape:
    """The events of one answer, and who waits for more of them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.bytes = 0
        self.ended_at: float | None = None
        self.waiters: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class MemoryEventLog:
    """An event log in the memory of one process, on one event loop.

    Logs of running answers are always kept; of finished ones those that ended less than ``keep`` seconds ago, the
    oldest of them given up first where all together hold more than about ``limit`` bytes.
    """

    def __init__(self, *, keep: float = 600.0, limit: int = 64 << 20) -> None:
        self._keep = keep
        self._limit = limit
        self._bytes = 0
        self._running: dict[str, _Tape] = {}
        self._ended: dict[str, _Tape] = {}  # in the order in which they ended
        self._closed = False

    async def publish(self, answer_id: str, event: Event) -> None:
        """Add an event and wake the followers; raises ``Conflict`` unless it is the next one of a log that goes on."""
        if self._closed:
            raise ChatbotClosed("the event log was closed")
        if answer_id in self._ended:
            raise Conflict(f"the log of answer {answer_id!r} has ended; event {event.seq} was not added")
        tape = self._running.get(answer_id)
        expected = len(tape.events) + 1 if tape else 1
        if event.seq != expected:
            raise Conflict(f"event {event.seq} of answer {answer_id!r} was not added: the next one is {expected}")
        if tape is None:
            tape = self._running[answer_id] = _Tape()
        tape.events.append(event)
        size = _EVENT_BYTES + len(event.text) + (len(event.message.text) if event.message else 0)
        tape.bytes += size
        self._bytes += size
        if event.type in TERMINAL:
            tape.ended_at = time.monotonic()
            self._ended[answer_id] = self._running.pop(answer_id)
        self._forget()
        tape.wake()

    async def follow(self, answer_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events with ``seq > after``, from the past and then live; ends behind the terminal event."""
        tape = self._find(answer_id)
        if tape is None:
            return
        seen = after
        loop = asyncio.get_running_loop()
        while True:
            while seen < len(tape.events):
                seen += 1
                yield tape.events[seen - 1]
            if tape.ended_at is not None or self._closed:
                return
            waiter: asyncio.Future[None] = loop.create_future()
            tape.waiters.add(waiter)
            try:
                await waiter
            finally:
                tape.waiters.discard(waiter)

    async def text(self, answer_id: str) -> tuple[str, int] | None:
        """The whole text so far and the last ``seq``, or None where the log does not know the answer."""
        tape = self._find(answer_id)
        return None if tape is None else ("".join(event.text for event in tape.events), len(tape.events))

    def events(self, answer_id: str) -> list[Event]:
        """What is there of an answer, in order."""
        tape = self._find(answer_id)
        return [] if tape is None else tape.events

    def forget(self, answer_id: str) -> None:
        """Give up the log of a running answer; its followers end."""
        tape = self._running.pop(answer_id, None)
        if tape is not None:
            tape.ended_at = time.monotonic()
            self._bytes -= tape.bytes
            tape.wake()

    async def close(self) -> None:
        """Forget everything; followers end. A second call is harmless."""
        self._closed = True
        for tape in (*self._running.values(), *self._ended.values()):
            tape.wake()
        self._running.clear()
        self._ended.clear()

    def _find(self, answer_id: str) -> _Tape | None:
        self._forget()
        return self._running.get(answer_id) or self._ended.get(answer_id)

    def _forget(self) -> None:
        horizon = time.monotonic() - self._keep
        while self._ended:
            oldest = next(iter(self._ended))
            tape = self._ended[oldest]
            if self._bytes <= self._limit and tape.ended_at is not None and tape.ended_at > horizon:
                return
            self._bytes -= tape.bytes
            del self._ended[oldest]
