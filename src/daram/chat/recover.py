"""After a crash: answers whose maker died are closed, their logs ended, and what was to follow them is made up for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from daram.chat.events import EventLog
from daram.chat.generation import Generation
from daram.chat.running import end_log
from daram.errors import ChatbotClosed, DaramError
from daram.model import Answer, Message
from daram.store.base import Store

log = logging.getLogger(__name__)

_BATCH: Final = 100
_PURGED: Final = 1000


class Closing:
    """The text that the event log still holds of dead answers (``partial``: what ``Store.recover`` asks for), and which
    answers they were.
    """

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self.answers: list[Answer] = []

    async def partial(self, answer: Answer) -> str | None:
        """The text of a dead answer, None where the log does not know it."""
        self.answers.append(answer)
        known = await self._events.text(answer.id)
        return None if known is None else known[0]


async def end_dead(
    closing: Closing, memory: Store, events: EventLog, generations: Mapping[str, Generation]
) -> list[Message]:
    """End the logs of the answers that were closed, and stop those of this process that were taken for dead."""
    closed = []
    for answer in closing.answers:
        generation = generations.get(answer.id)
        try:
            message = await memory.message(answer.owner, answer.conversation, answer.id)
            closed.append(message)
            if generation is None:
                await end_log(events, message)
        except DaramError as error:  # deleted meanwhile, or closed by somebody who will end the log
            log.info("the log of answer %s was not ended: %s", answer.id, error)
        if generation is not None:
            generation.stop("lost")  # it ends its log itself
    return closed


async def sweep(
    memory: Store, events: EventLog, generations: Mapping[str, Generation]
) -> tuple[list[Message], list[Answer]]:
    """Close all dead answers of the store; returns them as stored, and as they were while they were made."""
    messages: list[Message] = []
    answers: list[Answer] = []
    while True:
        closing = Closing(events)
        messages += await memory.recover(limit=_BATCH, partial=closing.partial)
        await end_dead(closing, memory, events, generations)
        answers += closing.answers
        if len(closing.answers) < _BATCH:
            return messages, answers


async def purge_all(memory: Store) -> int:
    """Delete everything that has expired; returns how many conversations."""
    count = 0
    while True:
        step = await memory.purge(limit=_PURGED)
        count += step
        if step < _PURGED:
            return count


async def purge_forever(memory: Store, interval: float = 3600.0) -> None:
    """Purge every ``interval`` seconds until cancelled: what a server does beside its work."""
    await again_and_again(lambda: purge_all(memory), interval)


async def again_and_again(sweep_once: Callable[[], Awaitable[object]], interval: float) -> None:
    """Sweep every ``interval`` seconds until cancelled or closed; a sweep that fails is tried again at the next."""
    while True:
        try:
            await sweep_once()
        except ChatbotClosed:
            return
        except Exception:
            log.exception("a sweep failed; the next is in %g s", interval)
        await asyncio.sleep(interval)
