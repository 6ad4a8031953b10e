"""How much one user may ask of the API: so many requests in a minute, so many at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daram import ids
from daram.service.observe.request import noted

__all__ = ["Counts", "LocalCounts", "Quota", "Taken"]

_MINUTE = 60.0
_USERS = 10_000  # whose figures are kept; a bucket that was not used for a minute is full and can be forgotten


class Taken(NamedTuple):
    """Whether a request may be answered (``ok``), or which limit is in the way; how many requests are ``left`` in this
    minute, and how many were ``running`` before."""

    verdict: Literal["ok", "rate", "running"]
    left: float
    running: int


class Counts(Protocol):
    """Counts the requests of users. ``rate``: allowed in a minute, ``most``: at once; 0 is no limit."""

    rate: int
    most: int

    async def take(self, user: int, request: str) -> Taken:
        """Count a request, if it may be answered. What is refused counts for neither limit."""
        ...

    def give_back(self, user: int, request: str) -> None:
        """A request that was counted has ended."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class _Bucket:
    """What a user has left: refilled steadily, up to a minute's worth."""

    def __init__(self, full: float, now: float) -> None:
        self.left = full
        self.seen = now
        self.running = 0


class LocalCounts:
    """Counts what this process is asked."""

    def __init__(self, *, rate: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.most = most
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}

    async def take(self, user: int, request: str) -> Taken:
        """See ``Counts``."""
        bucket = self._bucket(user, self._clock())
        running = bucket.running
        if self.most and running >= self.most:
            return Taken("running", bucket.left, running)
        if self.rate and bucket.left < 1:
            return Taken("rate", bucket.left, running)
        bucket.left -= 1 if self.rate else 0
        bucket.running += 1
        return Taken("ok", bucket.left, running)

    def give_back(self, user: int, request: str) -> None:
        """See ``Counts``."""
        self._buckets[user].running -= 1

    async def close(self) -> None:
        """Nothing to let go of."""

    def _bucket(self, user: int, now: float) -> _Bucket:
        bucket = self._buckets.pop(user, None) or _Bucket(self.rate, now)
        bucket.left = min(float(self.rate), bucket.left + (now - bucket.seen) * self.rate / _MINUTE)
        bucket.seen = now
        self._buckets[user] = bucket  # the one used last stands last
        while len(self._buckets) > _USERS:
            oldest = next(iter(self._buckets))
            if self._buckets[oldest].running or now - self._buckets[oldest].seen < _MINUTE:
                break
            del self._buckets[oldest]
        return bucket


class Quota:
    """ASGI middleware for the API. Who calls is known only once the key was looked at: ``Note.admit`` is asked then."""

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note = noted.get()
        if note is None:
            await self._app(scope, receive, send)
            return
        held: list[tuple[int, str]] = []

        async def admit(user: int) -> str | None:
            request = ids.uuid7()
            taken = await self._counts.take(user, request)
            problem, headers = self._told(taken)
            note.headers |= headers
            if taken.verdict == "ok":
                held.append((user, request))
            return problem

        def free() -> None:
            while held:
                self._counts.give_back(*held.pop())

        async def sent(message: Message) -> None:
            # Before its end is on the way: who has a whole answer may ask again, whatever is tidied up behind it.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                free()
            await send(message)

        note.admit = admit
        try:
            await self._app(scope, receive, sent)
        finally:
            free()

    def _told(self, taken: Taken) -> tuple[str | None, dict[str, str]]:
        """Why the request is refused, if it is, and the headers that say how things stand."""
        rate = self._counts.rate
        headers = {}
        if rate:
            headers = {
                "x-ratelimit-limit-requests": str(rate),
                "x-ratelimit-remaining-requests": str(max(0, int(taken.left))),
                "x-ratelimit-reset-requests": f"{(rate - taken.left) * _MINUTE / rate:.3f}s",
            }
        if taken.verdict == "running":
            text = f"You have {taken.running} requests running, and no more are allowed at once. Wait until one ends."
            return text, {"retry-after": "1"} | headers
        if taken.verdict == "rate":
            wait = math.ceil((1 - taken.left) * _MINUTE / rate)
            text = f"You have made more than {rate} requests in a minute. Try again in {wait} s."
            return text, {"retry-after": str(wait)} | headers
        return None, headers
