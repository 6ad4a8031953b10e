"""A cache that is slow or down is given one short budget per operation, then none at all for a while."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger("daram.cache")


class Budget:
    """What one operation on the store may still spend on its cache.

    ``left``: seconds. Only the time inside the cache's calls is taken off, not what the engine takes between them; one
    that failed or was too late leaves nothing, so that a cache that is down is waited for once.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    @property
    def spent(self) -> bool:
        """Whether the cache has had its chance."""
        return self.left <= 0


class Breaker:
    """A circuit breaker (M. Nygard, "Release It!"): after ``failures`` in a row it is open for ``pause`` seconds,
    doubled each time up to ``longest``; then one call is let through to try.

    ``budget``: seconds that one operation on the store may spend on its cache in all.
    """

    def __init__(
        self,
        *,
        budget: float = 0.05,
        failures: int = 3,
        pause: float = 1.0,
        longest: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self._failures = failures
        self._first_pause = self._pause = pause
        self._longest = longest
        self._clock = clock
        self._in_a_row = 0
        self._closed_until = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused now."""
        return self._clock() < self._closed_until

    def operation(self) -> Budget:
        """The budget of an operation that begins now."""
        return Budget(self.budget)

    async def call(self, work: Callable[[], Awaitable[T]], budget: Budget) -> T | None:
        """What ``work`` returns, or None where it failed, was too slow, or is not let through."""
        if budget.spent or self.is_open or self._trying:
            return None
        trying = self._trying = self._in_a_row >= self._failures
        begun = self._clock()
        try:
            async with asyncio.timeout(budget.left):
                result = await work()
        except Exception as error:  # noqa: BLE001  # a cache may fail in any way; all of them are a miss
            budget.left = 0.0
            self._failed(error)
            return None
        finally:
            if trying:
                self._trying = False
        budget.left -= self._clock() - begun
        self._in_a_row = 0
        self._pause = self._first_pause
        return result

    def _failed(self, error: Exception) -> None:
        if self.is_open:
            return  # it began before the others failed: one trouble that hits many at once counts once
        self._in_a_row += 1
        if self._in_a_row >= self._failures:
            self._closed_until = self._clock() + self._pause
            log.warning(
                "the cache failed %d times in a row (%s: %s); going on without it for %g s",
                self._in_a_row,
                type(error).__name__,
                error,
                self._pause,
            )
            self._pause = min(self._pause * 2, self._longest)
