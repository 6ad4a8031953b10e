"""What the official SDK sends once more is the same turn, in whatever process it arrives.

The SDK repeats a request when its connection breaks or the server fails. It has no idempotency key, but it counts its
tries (``x-stainless-retry-count``). So a first try leaves a record beside its turn: the seed of all ids that it draws,
under a digest of the request. It goes when the answer has reached the client. A later try that finds one draws the
same ids, and the store knows them: the turn that is running is joined, the one that has ended is read, and one that was
never begun begins. Two equal requests that both came to their end are two turns.

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

from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from daram import ids
from daram.errors import DaramError
from daram.memory import Memory
from daram.service.accounts.auth import Caller
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
            # Of several the oldest; whichever it is, one answer is given twice and none made twice.
            for record in (await memory.scan_records(caller.owner, NAMESPACE, f"{digest}.")).items:
                if record.key not in _forgetting:
                    return cls(Draw(record.value.decode(), again=True), memory, caller.owner, record.key)
        seed = ids.uuid7()
        return cls(Draw(seed), memory, caller.owner, f"{digest}.{seed}")

    async def beside(self, work: Awaitable[T]) -> T:
        """What the work returns; what a later try needs to know this one is durable by then, too."""
        keeping = asyncio.ensure_future(self._keep())
        try:
            return await work
        finally:
            await keeping

    def delivered(self) -> None:
        """The client has the end of the answer: the same request again is a new turn."""
        if self._memory is not None:
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
