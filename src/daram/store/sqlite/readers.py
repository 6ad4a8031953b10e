"""Reading: a few threads with a connection each, so that a read waits neither for the writer nor on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import apsw

from daram.errors import StoreClosed
from daram.store.sqlite.connections import Connections
from daram.store.sqlite.errors import translate

T = TypeVar("T")


class Readers:
    """At most ``size`` connections, opened when needed; each read sees one moment of the store."""

    def __init__(self, connections: Connections, size: int = 4) -> None:
        self._connections = connections
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="daram-reader")
        self._idle: list[apsw.Connection] = []
        self._busy = 0
        # Also held across a fork: then nothing is read and no connection is open.
        self._gate = threading.Condition()

    async def run(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run ``work`` in a read transaction on a thread of its own."""
        try:
            reading = self._pool.submit(self._read, work)
        except RuntimeError:  # it was shut down
            raise StoreClosed("this store was closed; open it again with daram.open(…)") from None
        return await asyncio.wrap_future(reading)

    def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        with self._gate:
            self._busy += 1
            connection = self._idle.pop() if self._idle else None
        broken = True
        try:
            self._connections.check()
            if connection is None:
                connection = self._connections.reading()
            connection.execute("BEGIN")
            try:
                result = work(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
            broken = False
            return result
        except apsw.Error as error:
            raise translate(error, self._connections.path) from error
        except Exception:
            broken = False  # a typed error of ours: the connection is as good as before
            raise
        finally:
            with self._gate:
                if connection is not None:
                    if broken:
                        self._connections.close(connection)
                    else:
                        self._idle.append(connection)
                self._busy -= 1
                self._gate.notify_all()

    def park(self) -> None:
        """Wait until nobody reads, close all connections and let nobody read until ``unpark`` (for a fork)."""
        self._gate.acquire()
        self._drain()

    def unpark(self) -> None:
        """Go on reading; to be called by the thread that called ``park``."""
        self._gate.release()

    def close(self) -> None:
        """End the threads and close the connections; blocks until the last read is done."""
        self._pool.shutdown(wait=True)
        with self._gate:
            self._drain()

    def _drain(self) -> None:
        while self._busy:
            self._gate.wait()
        while self._idle:
            self._connections.close(self._idle.pop())
