"""Whose turn is next: within one process turns on one branch go in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

Lane = tuple[str, str, str | None]
"""(owner, conversation, parent): an edit opens a branch of its own, and does not wait for turns on others."""


class LaneTimeoutError(Exception):
    """The deadline came before the turn did."""


class Place:
    """A place in a queue, taken when it was made."""

    def __init__(self) -> None:
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def move_up(self) -> None:
        """Nobody stands before this one any more."""
        if not self._first.done():
            self._first.set_result(None)

    async def first(self, deadline: float) -> None:
        """Wait until nobody stands before; raises ``LaneTimeoutError`` at ``deadline`` (the loop's clock, seconds)."""
        if not self._first.done():
            await asyncio.wait([self._first], timeout=max(deadline - asyncio.get_running_loop().time(), 0))
        if not self._first.done():
            raise LaneTimeoutError


class Lanes:
    """One queue per lane, kept only while somebody stands in it."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Place]] = {}

    @contextmanager
    def queue(self, lane: Lane) -> Iterator[Place]:
        """Take a place at once, and leave it at the end."""
        queue = self._lanes.setdefault(lane, deque())
        place = Place()
        queue.append(place)
        queue[0].move_up()
        try:
            yield place
        finally:
            queue.remove(place)
            if queue:
                queue[0].move_up()
            else:
                del self._lanes[lane]
