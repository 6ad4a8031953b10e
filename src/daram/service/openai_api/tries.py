"""What the official SDK sends once more is the same turn, in whatever process it arrives.

The SDK repeats a request when its connection breaks or the server fails. It has no idempotency key, but it counts its
tries (``x-stainless-retry-count``). So a first try leaves a record beside its turn: the seed of all ids that it draws,
under a digest of the request. It goes when the answer has reached the client. A later try that finds one draws the
same ids, and the store knows them: the turn that is running is joined, the one that has ended is read, and one that was
never begun begins; one that has ended and was followed by another is past, and not meant. Two equal requests that both
came to their end are two turns.

The digest is keyed with the secret of the service: from what is left for an hour of a turn that was deleted meanwhile,
nobody can tell what was asked, not even by trying.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac

from daram import ids
from daram.errors import DaramError, NotFound
from daram.memory import Memory
from daram.service.accounts.auth import Caller
from daram.service.openai_api.errors import is_final
from daram.service.openai_api.idempotency import Draw

T = TypeVar("T")
log = logging.getLogger(__name__)

NAMESPACE: Final = "tries"
KEPT: Final = timedelta(hours=1)
"""Far longer than a client waits for an answer: the SDK's own time-out is 10 minutes."""
_SALT: Final = "daram.service.openai_api.tries"


class Try:
    """One try of a request: ``draw`` gives the ids of all that it makes. See ``of``."""

    def __init__(self, draw: Draw, memory: Memory | None = None, owner: str = "", key: str = "") -> None:
        self.draw = draw
        self._memory = memory
        self._owner = owner
        self._key = key
        self._kept = draw.again  # whether there may be a record

    @classmethod
    async def of(cls, memory: Memory, caller: Caller, request: HttpRequest) -> Try:
        """The try that this request is: one that goes on where an earlier one broke off, or a new one.

        Requests of others than the SDK, which do not count, are always new.
        """
        count = request.headers.get("x-stainless-retry-count")
        if count is None:
            return cls(Draw())
        told = f"{caller.key_id} {request.path} ".encode() + request.body
        digest = salted_hmac(_SALT, told, algorithm="sha256").hexdigest()
        if count not in ("", "0"):
            # Of several the newest: older ones are of turns with the same words that nobody waited for. Of two that are
            # at work it may be either: one answer is given twice, none is made twice.
            for record in reversed((await memory.scan_records(caller.owner, NAMESPACE, f"{digest}.")).items):
                if record.key not in _forgetting:
                    return cls(Draw(record.value.decode(), again=True), memory, caller.owner, record.key)
        seed = ids.uuid7()
        return cls(Draw(seed), memory, caller.owner, f"{digest}.{seed}")

    async def is_past(self, conversation: str, question: str, answer: str = "") -> bool:
        """Whether the earlier try has ended, and more was said since: who sends its words now begins another turn.

        ``answer``: its id, where only an answer was asked for. An earlier try leaves its record for an hour where its
        client went away, and the words may be as short as "Go on.".
        """
        if self._memory is None or not self.draw.again:
            return False
        try:
            tail = await self._memory.tail(self._owner, conversation, 2)
            if any(message.id in (question, answer) for message in tail):
                return False
            await self._memory.message(self._owner, conversation, question)
        except NotFound:
            return False
        running = await self._memory.answers(self._owner, conversation)
        return all(made.question != question for made in running)

    def begin_anew(self) -> Draw:
        """Be a first try after all; returns what draws its ids."""
        seed = ids.uuid7()
        self.draw = Draw(seed)
        self._key = f"{self._key.rpartition('.')[0]}.{seed}"
        self._kept = False
        return self.draw

    async def beside(self, work: Awaitable[T]) -> T:
        """What the work returns; what a later try needs to know this one is durable by then, too."""
        keeping = asyncio.ensure_future(self._keep())
        try:
            return await work
        finally:
            await keeping

    async def answering(self, work: Awaitable[HttpResponse]) -> HttpResponse:
        """The response that the work returns; unless it is a stream, this delivers it, or the refusal in its place."""
        try:
            response = await work
        except DaramError as error:
            if is_final(error):
                self.delivered()
            raise
        if not response.streaming:
            self.delivered()
        return response

    def delivered(self) -> None:
        """The client has the end of the answer: the same request again is a new turn."""
        if self._memory is not None and self._kept:
            _forgetting[self._key] = asyncio.ensure_future(self._forget(self._memory))

    async def delivering(self, frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The frames; if the client takes them all, they are delivered."""
        async with aclosing(frames):
            async for frame in frames:
                yield frame
        self.delivered()

    async def _keep(self) -> None:
        if self._memory is None or self.draw.again:
            return
        self._kept = True
        value, until = self._key.rpartition(".")[2].encode(), datetime.now(UTC) + KEPT
        try:
            await self._memory.put_record(self._owner, NAMESPACE, self._key, value, expires_at=until)
        except DaramError as error:  # the turn is worth more than that a second try finds it
            log.warning("a try was not recorded; if it breaks, the next one will be another turn: %s", error)

    async def _forget(self, memory: Memory) -> None:
        try:
            await memory.delete_record(self._owner, NAMESPACE, self._key)
        except DaramError as error:
            log.info("the record of a try stays until it expires: %s", error)
        finally:
            _forgetting.pop(self._key, None)


_forgetting: Final[dict[str, asyncio.Task[None]]] = {}
"""Tries that have been delivered, while their records are being deleted."""
