"""Requests counted in Redis or Valkey (extra ``daram[redis]``): one quota of a user for all processes.

One script counts a request, in one round trip. A running one has a lease, which its process renews: what a process that
died had running is free again within a minute. While Redis is slow or gone each process counts for itself: a limit that
is too high for a while is better than a service that is down.
"""

from __future__ import annotations

import asyncio
import logging
import time
from importlib.resources import files
from typing import Any, Final

from redis import exceptions

from daram.service.quota import LocalCounts, Taken

__all__ = ["SharedCounts"]

log = logging.getLogger(__name__)

_TAKE: Final = files("daram.service").joinpath("take.lua").read_text("utf-8")
_RENEW: Final = files("daram.service").joinpath("renew.lua").read_text("utf-8")
_TIMEOUT: Final = 0.5
# How long Redis is left alone after it failed, in seconds.
_PAUSE: Final = 1.0
# A cluster of which no node answers says so with an error that is no ``RedisError``.
_FAILURES: Final = (exceptions.RedisError, exceptions.RedisClusterException, OSError, TimeoutError)


class SharedCounts:
    """See ``daram.service.quota.Counts``. ``client``: an asynchronous one, closed with this; ``lease`` in seconds."""

    def __init__(self, client: Any, *, rate: int, most: int, lease: float = 60.0, prefix: str = "daram:quota:") -> None:
        self.rate = rate
        self.most = most
        self._client = client
        self._lease = lease
        self._prefix = prefix
        self._take = client.register_script(_TAKE)
        self._renew = client.register_script(_RENEW)
        self._local = LocalCounts(rate=rate, most=most)
        self._running: dict[int, set[str]] = {}  # of those that Redis counts
        self._renewing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._down_until = 0.0

    async def take(self, user: int, request: str) -> Taken:
        """See ``Counts``."""
        if time.monotonic() >= self._down_until:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    arguments = [self.rate, self.most, int(self._lease * 1000), request]
                    verdict, left, running = await self._take(keys=self._keys(user), args=arguments)
            except _FAILURES as error:
                self._failed(error)
                self._let_go(user, request)  # it may have been counted, late
            except asyncio.CancelledError:
                self._let_go(user, request)
                raise
            else:
                if verdict == b"ok":
                    self._running.setdefault(user, set()).add(request)
                    if self._renewing is None:
                        self._renewing = asyncio.create_task(self._renew_forever())
                return Taken(verdict.decode(), float(left), int(running))
        return await self._local.take(user, request)

    def give_back(self, user: int, request: str) -> None:
        """See ``Counts``."""
        here = self._running.get(user)
        if here is None or request not in here:
            self._local.give_back(user, request)
            return
        here.discard(request)
        if not here:
            del self._running[user]
        self._let_go(user, request)

    def _let_go(self, user: int, request: str) -> None:
        task = asyncio.ensure_future(self._give_back(user, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            self._renewing = None  # an application may be started again
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _give_back(self, user: int, request: str) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._client.zrem(self._keys(user)[1], request)
        except _FAILURES as error:  # its lease ends by itself
            self._failed(error)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            for user in list(self._running):
                await self._renew_those_of(user)

    async def _renew_those_of(self, user: int) -> None:
        told = list(self._running.get(user, ()))
        key = self._keys(user)[1]
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._renew(keys=[key], args=[int(self._lease * 1000), *told])
                # Of those that ended meanwhile Redis may have heard the end first.
                ended = set(told).difference(self._running.get(user, ()))
                if ended:
                    await self._client.zrem(key, *ended)
        except _FAILURES as error:
            self._failed(error)

    def _keys(self, user: int) -> list[str]:
        # In a cluster both must be in one slot.
        return [f"{self._prefix}{{{user}}}:left", f"{self._prefix}{{{user}}}:running"]

    def _failed(self, error: BaseException) -> None:
        if time.monotonic() >= self._down_until:
            log.warning("requests are counted by this process alone for now: %s: %s", type(error).__name__, error)
        self._down_until = time.monotonic() + _PAUSE
