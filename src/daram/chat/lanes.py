"""Whose turn is next: within one process turns on one branch go in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Lane = tuple[str, str, str | None]
"""(owner, conversation, parent): an edit opens a branch of its own, and does not wait for turns on others."""


class LaneTimeoutError(Exception):
    """The deadline came before the turn did."""


class Lanes:
    """One fair lock per lane, kept only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def first(self, lane: Lane, deadline: float) -> AsyncIterator[None]:
        """Wait until nobody stands before; raises ``LaneTimeoutError`` at ``deadline`` (the loop's clock, seconds)."""
        lock, waiting = self._lanes.get(lane, (asyncio.Lock(), 0))
        self._lanes[lane] = lock, waiting + 1
        try:
            if waiting:
                try:
                    async with asyncio.timeout_at(deadline):
                        await lock.acquire()
                except TimeoutError:
                    raise LaneTimeoutError from None
            else:
                await lock.acquire()  # free: granted at once, also where there is no time to wait
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, waiting = self._lanes[lane]
            if waiting > 1:
                self._lanes[lane] = lock, waiting - 1
            else:
                del self._lanes[lane]
