"""How much one user may ask of the API: so many requests in a minute, so many at once, in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from daram.service.observe.request import noted

__all__ = ["Quota"]

_MINUTE = 60.0
_USERS = 10_000  # whose figures are kept; a bucket that was not used for a minute is full and can be forgotten


class _Bucket:
    """What a user has left: refilled steadily, up to a minute's worth."""

    def __init__(self, full: float, now: float) -> None:
        self.left = full
        self.seen = now
        self.running = 0


class Quota:
    """ASGI middleware for the API. The caller is known only once the key was looked at: ``Note.admit`` is asked then.

    ``rate``: requests a minute, ``running``: at once; 0 is no limit. What is refused counts for neither.
    """

    def __init__(self, app: ASGIApp, *, rate: int, running: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._rate = rate
        self._running = running
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note = noted.get()
        if note is None:
            await self._app(scope, receive, send)
            return
        held: list[_Bucket] = []

        def admit(user: int) -> str | None:
            problem, headers, bucket = self._take(user)
            note.headers |= headers
            if bucket is not None:
                held.append(bucket)
            return problem

        note.admit = admit
        try:
            await self._app(scope, receive, send)
        finally:
            for bucket in held:
                bucket.running -= 1

    def _take(self, user: int) -> tuple[str | None, dict[str, str], _Bucket | None]:
        now = self._clock()
        bucket = self._bucket(user, now)
        if self._running and bucket.running >= self._running:
            text = f"You have {bucket.running} requests running, and no more are allowed at once. Wait until one ends."
            return text, {"retry-after": "1"} | self._headers(bucket), None
        if self._rate and bucket.left < 1:
            wait = (1 - bucket.left) * _MINUTE / self._rate
            text = f"You have made more than {self._rate} requests in a minute. Try again in {math.ceil(wait)} s."
            return text, {"retry-after": str(math.ceil(wait))} | self._headers(bucket), None
        bucket.left -= 1 if self._rate else 0
        bucket.running += 1
        return None, self._headers(bucket), bucket

    def _bucket(self, user: int, now: float) -> _Bucket:
        bucket = self._buckets.pop(user, None) or _Bucket(self._rate, now)
        bucket.left = min(float(self._rate), bucket.left + (now - bucket.seen) * self._rate / _MINUTE)
        bucket.seen = now
        self._buckets[user] = bucket  # the one used last stands last
        while len(self._buckets) > _USERS:
            oldest = next(iter(self._buckets))
            if self._buckets[oldest].running or now - self._buckets[oldest].seen < _MINUTE:
                break
            del self._buckets[oldest]
        return bucket

    def _headers(self, bucket: _Bucket) -> dict[str, str]:
        if not self._rate:
            return {}
        return {
            "x-ratelimit-limit-requests": str(self._rate),
            "x-ratelimit-remaining-requests": str(max(0, int(bucket.left))),
            "x-ratelimit-reset-requests": f"{(self._rate - bucket.left) * _MINUTE / self._rate:.3f}s",
        }
