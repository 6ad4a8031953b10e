"""The handle of a turn, and how an answer is followed: live in this process, from a log, or by asking the store."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final, Literal

from daram.chat.events import TERMINAL, Event, EventLog, terminal_type
from daram.chat.generation import Generation
from daram.errors import (
    ChatbotClosed,
    Conflict,
    ContextOverflow,
    DaramError,
    ModelBroken,
    ModelError,
    ModelRateLimited,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    StoreClosed,
    StoreUnavailable,
)
from daram.model import Answer, Message
from daram.store.base import Store

log = logging.getLogger(__name__)

State = Literal["started", "running", "finished"]

_FAILURES: Final[dict[str, type[ModelError]]] = {
    kind.code: kind
    for kind in (
        ModelUnavailable,
        ModelRefused,
        ModelRateLimited,
        ModelTimeout,
        ModelBroken,
        ContextOverflow,
    )
}
# How often the store is asked for an answer that another process makes, in seconds.
_FIRST_POLL: Final = 0.1
_SLOWEST_POLL: Final = 1.0
# Reads that may fail in a row before a poll gives up.
_PATIENCE: Final = 10


class Running:
    """A turn whose question is stored. ``started``: this call began its answer; ``running``: an earlier call did, the
    answer goes on; ``finished``: the answer is stored.
    """

    def __init__(
        self,
        answer_id: str,
        question: Message,
        state: State,
        events: Callable[[int], AsyncGenerator[Event, None]],
        message: Callable[[], Awaitable[Message]],
    ) -> None:
        self.answer_id = answer_id
        self.question = question
        self.state = state
        self._events = events
        self._message = message

    def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events of the answer with ``seq > after``; the last one is terminal. Leaving it does not stop the answer.

        Of an answer that this process has no log of there is one event, the terminal one.
        """
        return self._events(after)

    async def message(self) -> Message:
        """Wait for the end: the answer as stored, be it ``complete``, ``incomplete`` or ``cancelled``.

        Raises the ``ModelError`` if it failed, a ``StoreError`` or ``LeaseLost`` if it could not be stored. Cancelling
        the wait does not stop the answer.
        """
        return await self._message()


def failure(message: Message) -> ModelError | None:
    """What went wrong with a stored answer that failed; None for all others."""
    if message.status != "failed":
        return None
    code = message.metadata.get("error", ModelError.code)
    return _FAILURES.get(code, ModelError)(f"the model gave no usable answer ({code}); the turn can be retried")


def terminal(message: Message, seq: int) -> Event:
    """The event that ends the log of a stored answer."""
    error = failure(message)
    return Event(
        seq=seq,
        type=terminal_type(message.status),
        answer=message.id,
        message=message,
        error=None if error is None else str(error),
        code=None if error is None else message.metadata.get("error", error.code),
    )


async def end_log(events: EventLog, message: Message) -> None:
    """End the log of an answer that is stored, where there is one that nobody has ended."""
    known = await events.text(message.id)
    if known is not None:
        with suppress(Conflict):  # it has ended
            await events.publish(message.id, terminal(message, known[1] + 1))


class Follower:
    """Follows answers. ``recover`` closes the dead answers of a conversation (see ``daram.chat.recover``)."""

    def __init__(self, memory: Store, events: EventLog, recover: Callable[[str, str], Awaitable[object]]) -> None:
        self._memory = memory
        self._log = events
        self._recover = recover

    async def here(self, generation: Generation, after: int) -> AsyncGenerator[Event, None]:
        """The events of an answer that this process makes."""
        seen = after
        async with aclosing(self._from_log(generation.id, after)) as found:
            async for event in found:
                seen = event.seq
                yield event
                if event.type in TERMINAL:
                    return
        if seen == after and await self._log.text(generation.id) is not None:
            return  # all had been seen
        await generation.finished.wait()
        error = generation.error
        if generation.message is not None:
            yield terminal(generation.message, seen + 1)
        elif error is not None:
            yield Event(seq=seen + 1, type="failed", answer=generation.id, error=str(error), code=error.code)

    async def stored(self, owner: str, conversation: str, answer_id: str, after: int) -> AsyncGenerator[Event, None]:
        """The events of any other answer: from the log where it knows them, else the terminal one alone.

        Raises ``NotFound`` unless the answer is in that conversation of that owner.
        """
        message = await self._find(owner, conversation, answer_id)
        if message is None and not await self._is_running(owner, conversation, answer_id):
            message = await self._find(owner, conversation, answer_id)  # it may have ended between the two reads
            if message is None:
                raise NotFound("answer", answer_id)
        if await self._log.text(answer_id) is None:
            yield terminal(message or await self.wait(owner, conversation, answer_id), after + 1)
            return
        seen, ended, lost = after, False, False
        ending = asyncio.create_task(self._see_to_the_end(owner, conversation, answer_id))
        try:
            async with aclosing(self._log.follow(answer_id, after)) as found:
                async for event in found:
                    seen, ended = event.seq, event.type in TERMINAL
                    yield event
        except StoreUnavailable as error:
            log.warning("the event log was lost for answer %s: %s", answer_id, error)
            lost = True
        finally:
            ending.cancel()
        if not ended and (lost or await self._log.text(answer_id) is None):
            with suppress(ChatbotClosed, StoreClosed):  # the end of this process: whoever is next has the answer
                yield terminal(await self.wait(owner, conversation, answer_id), seen + 1)

    async def wait(self, owner: str, conversation: str, answer_id: str) -> Message:
        """Wait until an answer that is made elsewhere is stored. Raises ``NotFound`` if there is none."""
        pause, failures = _FIRST_POLL, 0
        while True:
            try:
                message = await self._find(owner, conversation, answer_id)
                if message is None and not await self._is_running(owner, conversation, answer_id):
                    message = await self._find(owner, conversation, answer_id)
                    if message is None:
                        raise NotFound("answer", answer_id)
                if message is not None:
                    return message
                await self._recover(owner, conversation)
                failures = 0
            except DaramError as error:
                failures += 1
                if not error.retryable or failures > _PATIENCE:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter, not a secret
            pause = min(pause * 1.5, _SLOWEST_POLL)

    async def result(self, owner: str, conversation: str, answer_id: str) -> Message:
        """As ``wait``; raises a ``ModelError`` if the answer failed."""
        message = await self.wait(owner, conversation, answer_id)
        error = failure(message)
        if error is not None:
            raise error
        return message

    async def _see_to_the_end(self, owner: str, conversation: str, answer_id: str) -> None:
        """End the log when the answer is stored: its maker may have died in between."""
        with suppress(DaramError):  # deleted, or the store is gone: the log ends by its maker or not at all
            await end_log(self._log, await self.wait(owner, conversation, answer_id))

    async def _from_log(self, answer_id: str, after: int) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(self._log.follow(answer_id, after)) as found:
                async for event in found:
                    yield event
        except DaramError:
            log.exception("the event log failed for answer %s", answer_id)

    async def _find(self, owner: str, conversation: str, answer_id: str) -> Message | None:
        try:
            message = await self._memory.message(owner, conversation, answer_id)
        except NotFound:
            return None
        return message if message.role == "assistant" else None

    async def _is_running(self, owner: str, conversation: str, answer_id: str) -> bool:
        try:
            running: list[Answer] = await self._memory.answers(owner, conversation)
        except NotFound:
            return False
        return any(answer.id == answer_id for answer in running)
