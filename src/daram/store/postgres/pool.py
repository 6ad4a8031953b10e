"""Statements through a pool of connections: one per event loop, with typed errors and the retries that are safe.

Nothing here depends on the state of a session, so that a pooler in transaction mode may stand between: no prepared
statements, no session settings, every statement a transaction of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from daram.errors import ConfigError, OutcomeUnknown, StoreBusy, StoreClosed, StoreError, StoreUnavailable
from daram.store.postgres.errors import AGAIN, READ_ONLY, is_lost, translate

Row = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]
# What the pool has to say of connections that fail is in our errors; without a handler it would be printed as well.
logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())

# How often a statement that was undone because of others' (a deadlock, a serialization failure) is run again.
_TRIES = 8
# How long a caller waits before it looks whether there is a server at all, in seconds.
_SLICE = 0.25
# How long another event loop may take to close its connections, in seconds.
_GOODBYE = 10.0


class _Loop:
    """The pool of one event loop, and what became of its attempts to connect."""

    def __init__(self, conninfo: str, size: int) -> None:
        self.opening = asyncio.Lock()
        self.setting_up = asyncio.Lock()
        self.opened = False
        self.failure: psycopg.Error | None = None
        self.since: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()
        self.drained = 0.0
        home = self

        class Watched(psycopg.AsyncConnection[Row]):
            @classmethod
            async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
                try:
                    connection = await super().connect(conninfo, **kwargs)
                except psycopg.Error as error:
                    home.failure = error
                    raise
                home.failure = None
                # Python 3.11's wait_for loses a cancellation that meets the end of what it waits for; the pool's worker
                # would then go on for ever, and asyncio.run, which waits for it at the end of a loop, too.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    await connection.close()
                    raise asyncio.CancelledError
                home.since[connection] = monotonic()
                return connection

        self.pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            conninfo,
            connection_class=Watched,
            # Unnamed statements only: what is prepared belongs to a session, and a pooler changes that under us.
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=0,
            max_size=size,
            # An attempt that fails is given up at once; whoever needs a connection makes the next.
            reconnect_timeout=0.001,
            open=False,
        )

    async def drop(self, connection: Connection) -> None:
        """Let go of a connection that is of no use, and of the others of its time: they will be of none either."""
        await connection.close()
        if self.since[connection] > self.drained:
            self.drained = monotonic()
            await self.pool.drain()

    def hang_up(self) -> None:
        """Close the connections of an event loop that has ended, and can do nothing any more."""
        for connection in list(self.since):
            connection.pgconn.finish()


class Pool:
    """Runs statements. ``wait``: seconds for a free connection; ``timeout``: seconds for one statement."""

    def __init__(self, conninfo: str, *, size: int, wait: float, timeout: float) -> None:
        try:
            parts = {k: str(v) for k, v in conninfo_to_dict(conninfo).items()}
        except psycopg.ProgrammingError as error:
            # libpq may quote what it was given, with the password in it.
            said = str(error).partition(conninfo)[0].strip(' "\n')
            raise ConfigError(f"the URL of PostgreSQL cannot be used: {said}") from None
        defaults = {"connect_timeout": "10", "application_name": "daram"}
        self.conninfo = make_conninfo(conninfo, **{k: v for k, v in defaults.items() if k not in parts})
        host = parts.get("host") or parts.get("hostaddr") or "the default host"
        self.where = f"PostgreSQL {host}:{parts.get('port', '5432')}/{parts.get('dbname') or parts.get('user') or ''}"
        self.size = size
        self._wait = wait
        self._timeout = timeout
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()
        self._guard = threading.Lock()
        self._closed = False
        _pools.add(self)

    async def fetch(
        self, query: bytes, values: Sequence[Any] = (), *, writes: bool = True, repeatable: bool = True
    ) -> list[Row]:
        """Run one statement, return its rows.

        ``repeatable``: it may be run again where the connection was lost before its outcome was known (a read, or a
        write whose repetition is recognised). Else, or where that fails too, a write raises ``OutcomeUnknown``.
        """
        unknown: psycopg.Error | None = None  # why a try may have been committed although it was not answered
        tries = 0
        pause = 0.0
        while True:
            if pause:
                await asyncio.sleep(pause)
            tries += 1
            home, connection = await self._take(unknown if writes else None)
            try:
                async with asyncio.timeout(self._timeout):
                    cursor = psycopg.AsyncRawCursor(connection)
                    await cursor.execute(query, values, binary=True)
                    return await cursor.fetchall()
            except TimeoutError:
                await connection.close()
                raise self._late(writes) from None
            except psycopg.Error as error:
                lost = is_lost(connection, error)
                if lost or error.sqlstate == READ_ONLY:
                    # A failover leaves connections that are dead, or that lead to what is a replica now.
                    await home.drop(connection)
                    if lost and writes:
                        unknown = error
                    if tries == 1 and (repeatable or not lost):
                        continue
                elif error.sqlstate in AGAIN and tries < _TRIES:
                    pause = random.uniform(0, 0.01 * 2**tries)  # noqa: S311  # to part those who collided
                    continue
                if unknown is not None:
                    raise self._unknown(unknown) from error
                raise translate(error, self.where) from error
            finally:
                await home.pool.putconn(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncRawCursor[Row]]:
        """Several statements as one transaction, never run again by itself (administration; a turn needs one).

        ``UniqueViolation`` is passed on; a connection that is lost raises ``OutcomeUnknown``.
        """
        home, connection = await self._take(None)
        try:
            async with asyncio.timeout(self._timeout), connection.transaction():
                yield psycopg.AsyncRawCursor(connection)
        except TimeoutError:
            await connection.close()
            raise self._late(True) from None
        except psycopg.errors.UniqueViolation:
            raise
        except psycopg.Error as error:
            lost = is_lost(connection, error)
            if lost or error.sqlstate == READ_ONLY:
                await home.drop(connection)
            raise (self._unknown(error) if lost else translate(error, self.where)) from error
        finally:
            await home.pool.putconn(connection)

    async def opening(self) -> asyncio.Lock:
        """A lock of this event loop, for what is to be done once before everything else."""
        return (await self._home()).setting_up

    async def _take(self, unknown: psycopg.Error | None) -> tuple[_Loop, Connection]:
        """A connection of this loop's pool; ``unknown``: see ``fetch``."""
        home = await self._home()
        deadline = monotonic() + self._wait
        while True:
            left = deadline - monotonic()
            try:
                return home, await home.pool.getconn(max(0.001, min(left, _SLICE)))
            except PoolClosed:
                raise StoreClosed("this store was closed; open it again with daram.open(…)") from None
            except PoolTimeout:
                nobody = all(connection.closed for connection in home.since)
                failure = home.failure if nobody else None
                if failure is None and left > _SLICE:
                    continue
            if unknown is not None:
                raise self._unknown(unknown)
            if failure is not None:
                raise translate(failure, self.where) from failure
            if nobody:
                raise StoreUnavailable(f"{self.where}: no connection within {self._wait:g} s; nothing was stored")
            raise StoreBusy(
                f"{self.where}: all {self.size} connections were in use for {self._wait:g} s; nothing was stored, "
                "try again, or give more (?pool_size=)"
            )

    async def _home(self) -> _Loop:
        loop = asyncio.get_running_loop()
        home = self._loops.get(loop)
        if home is None:
            with self._guard:
                if self._closed:
                    raise StoreClosed("this store was closed; open it again with daram.open(…)")
                for other in [other for other in self._loops if other.is_closed()]:
                    self._loops.pop(other).hang_up()
                home = self._loops[loop] = _Loop(self.conninfo, self.size)
        if not home.opened:
            async with home.opening:
                if not home.opened:
                    await home.pool.open()
                    home.opened = True
        return home

    def _late(self, writes: bool) -> StoreError:
        text = f"{self.where}: no answer within {self._timeout:g} s"
        if writes:
            return OutcomeUnknown(f"{text}; the write may or may not be there. Repeat it with the same ids")
        return StoreBusy(f"{text}; try again")

    def _unknown(self, error: psycopg.Error) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self.where}: the connection was lost ({str(error).strip() or type(error).__name__}); "
            "the write may or may not be there. Repeat it with the same ids: nothing is stored twice"
        )

    async def close(self) -> None:
        """Close the connections of all loops."""
        self._closed = True
        with self._guard:
            homes = list(self._loops.items())
            self._loops.clear()
        for loop, home in homes:
            if loop is asyncio.get_running_loop():
                await home.pool.close()
            else:
                if loop.is_running():
                    closing = asyncio.run_coroutine_threadsafe(home.pool.close(), loop)
                    await asyncio.wait([asyncio.wrap_future(closing)], timeout=_GOODBYE)
                if not loop.is_running():  # or no longer
                    home.hang_up()

    def forget(self) -> None:
        """In a forked child: the connections are the parent's, and are left to it (psycopg closes none here)."""
        _left_behind.extend(self._loops.values())
        self._loops = weakref.WeakKeyDictionary()
        self._guard = threading.Lock()


# Their tasks belong to the parent; asyncio would complain of those that are let go of while they wait.
_left_behind: list[_Loop] = []
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
