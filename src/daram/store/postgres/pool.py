"""Statements through a pool of connections: one per event loop, with typed errors and the retries that are safe.

Nothing here depends on the state of a session, so that a pooler in transaction mode may stand between: no prepared
statements, no session settings, every statement a transaction of its own.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from daram.errors import ConfigError, OutcomeUnknown, StoreBusy, StoreClosed, StoreError, StoreUnavailable
from daram.store.postgres.errors import AGAIN, READ_ONLY, is_lost, translate
from daram.store.postgres.lanes import Full, Lane, Lanes, Row, Shut, cancellations, heed

# How often a statement that was undone because of others' (a deadlock, a serialization failure) is run again.
_TRIES = 8
# How long an attempt to connect to a host may take unless the URL says it, in seconds; less where callers wait less for
# a connection, but libpq's least.
_CONNECT = (2, 10)
# How long another event loop may take to close its connections, in seconds.
_GOODBYE = 10.0


class _Loop:
    """What belongs to one event loop."""

    def __init__(self, conninfo: str, size: int) -> None:
        self.setting_up = asyncio.Lock()
        self.lanes = Lanes(conninfo, size)


class Pool:
    """Runs statements. ``wait``: seconds for a free connection; ``timeout``: seconds for one statement."""

    def __init__(self, conninfo: str, *, size: int, wait: float, timeout: float) -> None:
        try:
            parts = {k: str(v) for k, v in conninfo_to_dict(conninfo).items()}
        except psycopg.ProgrammingError as error:
            # libpq may quote what it was given, with the password in it.
            said = str(error).partition(conninfo)[0].strip(' "\n')
            raise ConfigError(f"the URL of PostgreSQL cannot be used: {said}") from None
        least, most = _CONNECT
        limit = min(most, max(least, math.ceil(wait)))
        defaults = {"connect_timeout": str(limit), "application_name": "daram"}
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
            lanes, connection = await self._take(unknown if writes else None)
            before = cancellations()
            try:
                async with asyncio.timeout(self._timeout):
                    cursor = psycopg.AsyncRawCursor(connection)
                    await cursor.execute(query, values, binary=True)
                    rows = await cursor.fetchall()
                heed(before)
                return rows
            except TimeoutError:
                connection.hang_up()
                raise self._late(writes) from None
            except psycopg.Error as error:
                heed(before)
                lost = is_lost(connection, error)
                if lost or error.sqlstate == READ_ONLY:
                    # A failover leaves connections that are dead, or that lead to what is a replica now.
                    lanes.drop(connection)
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
                lanes.give_back(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncRawCursor[Row]]:
        """Several statements as one transaction, never run again by itself (administration; a turn needs one).

        ``UniqueViolation`` is passed on; a connection that is lost raises ``OutcomeUnknown``.
        """
        lanes, connection = await self._take(None)
        try:
            async with asyncio.timeout(self._timeout), connection.transaction():
                yield psycopg.AsyncRawCursor(connection)
        except TimeoutError:
            connection.hang_up()
            raise self._late(True) from None
        except psycopg.errors.UniqueViolation:
            raise
        except psycopg.Error as error:
            lost = is_lost(connection, error)
            if lost or error.sqlstate == READ_ONLY:
                lanes.drop(connection)
            raise (self._unknown(error) if lost else translate(error, self.where)) from error
        finally:
            lanes.give_back(connection)

    def opening(self) -> asyncio.Lock:
        """A lock of this event loop, for what is to be done once before everything else."""
        return self._home().setting_up

    async def _take(self, unknown: psycopg.Error | None) -> tuple[Lanes, Lane]:
        """A connection of this loop, and where it is given back; ``unknown``: see ``fetch``."""
        lanes = self._home().lanes
        try:
            return lanes, await lanes.take(self._wait)
        except Shut:
            raise self._over() from None
        except psycopg.Error as error:
            if unknown is not None:
                raise self._unknown(unknown) from error
            raise translate(error, self.where) from error
        except Full:
            if unknown is not None:
                raise self._unknown(unknown) from None
            if not lanes.connected:
                raise StoreUnavailable(
                    f"{self.where}: no connection within {self._wait:g} s; nothing was stored"
                ) from None
            raise StoreBusy(
                f"{self.where}: all {self.size} connections were in use for {self._wait:g} s; nothing was stored, "
                "try again, or give more (?pool_size=)"
            ) from None

    def _home(self) -> _Loop:
        loop = asyncio.get_running_loop()
        home = self._loops.get(loop)
        if home is None:
            with self._guard:
                if self._closed:
                    raise self._over()
                for other in [other for other in self._loops if other.is_closed()]:
                    self._loops.pop(other).lanes.hang_up()
                home = self._loops[loop] = _Loop(self.conninfo, self.size)
        return home

    @staticmethod
    def _over() -> StoreClosed:
        return StoreClosed("this store was closed; open it again with daram.open(…)")

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
                home.lanes.close()
            else:
                if loop.is_running():
                    await _close_elsewhere(loop, home.lanes)
                if not loop.is_running():  # or no longer
                    home.lanes.hang_up()

    def forget(self) -> None:
        """In a forked child: the connections are the parent's, and are left to it (psycopg closes none here)."""
        self._loops = weakref.WeakKeyDictionary()
        self._guard = threading.Lock()


async def _close_elsewhere(loop: asyncio.AbstractEventLoop, lanes: Lanes) -> None:
    done: Future[None] = Future()

    def work() -> None:
        lanes.close()
        done.set_result(None)

    with suppress(RuntimeError):  # "Event loop is closed", by now
        loop.call_soon_threadsafe(work)
        await asyncio.wait([asyncio.wrap_future(done)], timeout=_GOODBYE)


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
