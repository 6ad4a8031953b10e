"""Connections to the server for one event loop: as many as are in use at once, ``limit`` at most.

They are made, used and closed in the tasks of those who need them. Nothing runs in the background, so that a loop which
ends has nothing to wait for.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

Row = tuple[Any, ...]

# How long a connection may be of no use to anybody, and how long it may live, in seconds. A server gives memory back
# when a session ends, and the addresses behind a name change.
_IDLE = 600.0
_LIFETIME = 3600.0


class Full(Exception):
    """None became free within the time."""


class Shut(Exception):
    """There are no connections any more."""


class Lane(psycopg.AsyncConnection[Row]):
    """A connection, and what ``Lanes`` knows of it."""

    generation = 0
    free_since = 0.0
    end = 0.0

    def hang_up(self) -> None:
        """Close it; unlike ``close`` without an event loop."""
        self.pgconn.finish()

    def __del__(self, *_: Any) -> None:
        """Say nothing, as a loop may end without closing what it opened; libpq's part is closed with its own object."""


def cancellations() -> int:
    """How often the running task has been told to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def heed(before: int) -> None:
    """Raise the cancellation that came since there were ``before``, and was lost on the way.

    Python 3.11's ``wait_for`` loses one that meets the end of what it waits for; older releases of the driver use it.
    """
    if cancellations() > before:
        raise asyncio.CancelledError


class Lanes:
    """Connections, lent to one task at a time; who waits for one gets it before those who come later."""

    def __init__(self, conninfo: str, limit: int) -> None:
        self._conninfo = conninfo
        self._room = limit  # for connections that are neither there nor being made
        self._all: set[Lane] = set()
        self._free: deque[Lane] = deque()  # the one that was used last is at the end
        self._waiting: deque[asyncio.Future[Lane | None]] = deque()  # None is room for a connection
        self._generation = 0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection that is not known to be lost."""
        return not all(lane.closed for lane in self._all)

    async def take(self, wait: float) -> Lane:
        """A connection, to be given back: a free one, else a new one, else the next that somebody gives back.

        Raises ``Full`` where none was given back within ``wait`` seconds (an attempt to connect is not cut short),
        ``Shut``, and ``psycopg.Error`` where none can be made, and none is in use for which to wait.
        """
        if self._closed:
            raise Shut
        lane = self._pick()
        if lane is not None:
            return lane
        deadline = asyncio.get_running_loop().time() + wait
        failure: psycopg.Error | None = None
        has_room = self._room > 0
        if has_room:
            self._room -= 1
        while True:
            if has_room:
                try:
                    return await self._make()
                except psycopg.Error as error:
                    failure = error
                if not self.connected:
                    self._pass_on(None)  # the others cannot hope either; each of them sees for itself
                    raise failure
                self._room += 1
                if self._closed:
                    raise Shut
                lane = self._pick()  # one may have come back meanwhile
                if lane is not None:
                    return lane
            try:
                lane = await self._turn(deadline)
            except TimeoutError:
                raise (Full() if failure is None else failure) from None
            if lane is not None:
                return lane
            if self._closed:
                raise Shut
            has_room = True

    def give_back(self, lane: Lane) -> None:
        """Lend it to the next; not where it is lost, or was left in the middle of something."""
        is_idle = lane.pgconn.transaction_status == TransactionStatus.IDLE
        if is_idle and lane.generation == self._generation and not self._closed:
            self._pass_on(lane)
        else:
            self._close(lane)

    def drop(self, lane: Lane) -> None:
        """Let go of a connection that is of no use, and of the others of its time: they will be of none either."""
        lane.hang_up()
        if lane.generation == self._generation:
            self._generation += 1
            while self._free:
                self._close(self._free.pop())

    def close(self) -> None:
        """Close what is free, send those away who wait; what is in use is closed when it is given back."""
        self._closed = True
        while self._free:
            self._close(self._free.pop())
        while self._waiting:
            self._pass_on(None)

    def hang_up(self) -> None:
        """Close all connections, where the event loop has ended, and can do nothing any more."""
        self._closed = True
        for lane in list(self._all):
            lane.hang_up()

    def _pick(self) -> Lane | None:
        now = monotonic()
        while self._free and now - self._free[0].free_since > _IDLE:
            self._close(self._free.popleft())
        while self._free:
            lane = self._free.pop()
            if now < lane.end:
                return lane
            self._close(lane)
        return None

    async def _make(self) -> Lane:
        """A new connection, in room that is the caller's. After a ``psycopg.Error`` it still is."""
        generation = self._generation
        before = cancellations()
        try:
            # Unnamed statements only: what is prepared belongs to a session, and a pooler changes that under us.
            lane = await Lane.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.Error:
            raise
        except Exception as error:  # such as of a host whose name cannot be one
            raise psycopg.OperationalError(str(error)) from error
        except BaseException as error:
            self._pass_on(None)
            error.__traceback__ = None  # the half-made connection is in its frames, and is closed with them
            raise
        lane.generation = generation
        lane.end = monotonic() + _LIFETIME * random.uniform(0.9, 1)  # noqa: S311  # not all at the same time
        self._all.add(lane)
        try:
            heed(before)
            if self._closed:
                raise Shut
        except BaseException:
            self.give_back(lane)
            raise
        return lane

    async def _turn(self, deadline: float) -> Lane | None:
        """What somebody passes on to this caller: a connection, or room for one. Raises ``TimeoutError``."""
        turn: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(turn)
                raise
            # It was this caller's turn in the same moment.
            lane = turn.result()
            if isinstance(error, TimeoutError):
                return lane
            if lane is None:
                self._pass_on(None)
            else:
                self.give_back(lane)
            raise

    def _pass_on(self, lane: Lane | None) -> None:
        """Hand a connection, or room for one, to the one who waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # it was cancelled
                turn.set_result(lane)
                return
        if lane is None:
            self._room += 1
        else:
            lane.free_since = monotonic()
            self._free.append(lane)

    def _close(self, lane: Lane) -> None:
        lane.hang_up()
        self._all.discard(lane)
        self._pass_on(None)
