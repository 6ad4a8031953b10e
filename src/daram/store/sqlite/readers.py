"""Reading: a few threads with a connection each, so that a read waits neither for the writer nor on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import apsw

from daram.errors import StoreClosed
from daram.store.sqlite.errors import translate

T = TypeVar("T")


class Readers:
    """At most ``size`` connections, opened when needed; each read sees one moment of the store."""

    def __init__(self, path: str, connect: Callable[[], apsw.Connection], size: int = 4) -> None:
        self._path = path
        self._connect = connect
        self._size = size
        self._pool: ThreadPoolExecutor | None = None
        self._idle: list[apsw.Connection] = []
        self._busy = 0
        self._closed = False
        # Also held across a fork (see engine.py): then nothing is read and no connection is open.
        self.gate = threading.Condition()

    async def run(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run ``work`` in a read transaction on a thread of its own."""
        if self._closed:
            raise StoreClosed("this store was closed; open it again with daram.open(…)")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._size, thread_name_prefix="daram-reader")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)

    def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        with self.gate:
            self._busy += 1
            connection = self._idle.pop() if self._idle else None
        broken = True
        try:
            if connection is None:
                connection = self._connect()
            connection.execute("BEGIN")
            try:
                result = work(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
            broken = False
            return result
        except apsw.Error as error:
            raise translate(error, self._path) from error
        except Exception:
            broken = False  # a typed error of ours: the connection is as good as before
            raise
        finally:
            with self.gate:
                if connection is not None:
                    if broken:
                        connection.close(True)
                    else:
                        self._idle.append(connection)
                self._busy -= 1
                self.gate.notify_all()

    def drain(self) -> None:
        """Wait until nobody reads, and close all connections; the gate must be held."""
        while self._busy:
            self.gate.wait()
        while self._idle:
            self._idle.pop().close(True)

    def close(self) -> None:
        """End the threads and close the connections; blocks until the last read is done."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        with self.gate:
            self.drain()
