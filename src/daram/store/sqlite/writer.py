"""The one writer of a database file in this process: a thread that commits queued writes in groups, one fsync each.

Group commit as in PostgreSQL's ``commit_siblings`` or LevelDB's write queue, without their waiting: whatever was queued
while the last commit was at the disk makes up the next one, so a lone writer waits for nobody and 32 share an fsync.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from daram.errors import DaramError, StoreBusy, StoreClosed
from daram.store.sqlite.errors import translate

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]
log = logging.getLogger("daram.sqlite")

MAX_BATCH = 256
MAX_QUEUE = 10_000
# After so much silence the writer does what can wait (feeding the search index), in seconds.
IDLE = 0.5
# These may have ended the whole transaction, not only the statement: https://sqlite.org/lang_transaction.html
_FATAL = (apsw.FullError, apsw.IOError, apsw.NoMemError, apsw.BusyError, apsw.InterruptError)


class _Write:
    """One queued write and the future that waits for it."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Work[Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.loop = loop
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Runs writes in the order of their submission; each is all or nothing, and none is answered before its commit.

    ``connect`` opens a connection; ``chore`` is called in a transaction of its own behind a batch or when the queue has
    been silent; ``due`` tells whether there is something for it to do (True: while nobody waits).
    """

    def __init__(
        self,
        path: str,
        connect: Callable[[], apsw.Connection],
        chore: Work[None],
        due: Callable[[bool], bool],
    ) -> None:
        self._path = path
        self._connect = connect
        self._chore = chore
        self._due = due
        self._connection: apsw.Connection | None = None
        self._queue: deque[_Write] = deque()
        self._wake = threading.Condition()
        self._closing = False
        # Held while a batch runs; a fork takes it, so that no connection is ever carried into a child.
        self.gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"daram-writer {path}", daemon=True)

    def start(self, connection: apsw.Connection) -> None:
        """Begin, with a connection that is open already."""
        self._connection = connection
        self._thread.start()

    async def submit(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction; returns when it is on disk. Cancelling the caller does not undo it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._wake:
            if self._closing:
                raise StoreClosed("this store was closed; open it again with daram.open(…)")
            if len(self._queue) >= MAX_QUEUE:
                raise StoreBusy(
                    f"{self._path}: {MAX_QUEUE:,} writes are waiting already; nothing was stored, try again"
                )
            self._queue.append(_Write(work, loop, future))
            self._wake.notify()
        return await future

    def close(self) -> None:
        """Finish what is queued and end; blocks until then."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def drop_connection(self) -> None:
        """Close the connection (before a fork; the gate is held); the next batch opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._queue and not self._closing:
                    self._wake.wait(IDLE if self._due(True) else None)
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
                stop = self._closing and not batch
            if stop:
                break
            with self.gate:
                if batch:
                    self._commit(batch)
                if self._due(not batch):
                    self._do_chore()
        with self.gate:
            try:
                self.drop_connection()
            except apsw.Error as error:
                log.warning("closing %s: %s", self._path, error)

    def _do_chore(self) -> None:
        try:
            connection = self._open()
            with connection:
                self._chore(connection)
        except (apsw.Error, DaramError) as error:
            # It can wait: what it did not do is done at the next chance, or by the search that needs it.
            log.warning("indexing %s: %s", self._path, error)

    def _open(self) -> apsw.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _commit(self, batch: list[_Write]) -> None:
        try:
            rerun = self._transaction(batch)
        except Exception as error:  # noqa: BLE001
            # Nothing may end the writer thread: whoever waits for this batch would wait for ever.
            failure = translate(error, self._path) if isinstance(error, apsw.Error) else error
            for write in batch:
                write.error = failure
            self._reopen()
            rerun = False
        if rerun:
            for write in batch:
                write.error = None
                self._commit([write])
            return
        self._answer(batch)

    def _transaction(self, batch: list[_Write]) -> bool:
        """Run and commit a batch; True where it was rolled back as a whole and each write must be run alone."""
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        alone = len(batch) == 1
        for write in batch:
            if not alone:
                connection.execute("SAVEPOINT one")
            try:
                write.result = write.work(connection)
            except Exception as error:  # noqa: BLE001  # whatever it is belongs to the waiter
                write.error = translate(error, self._path) if isinstance(error, apsw.Error) else error
                if not connection.in_transaction:
                    return not alone
                if isinstance(error, _FATAL):
                    connection.execute("ROLLBACK")
                    return not alone
                if alone:
                    connection.execute("ROLLBACK")
                    return False
                connection.execute("ROLLBACK TO one")
            if not alone:
                connection.execute("RELEASE one")
        try:
            connection.execute("COMMIT")
        except apsw.Error as error:
            failure = translate(error, self._path, committing=True)
            for write in batch:
                write.error = failure
            self._reopen()
        return False

    def _reopen(self) -> None:
        """Let go of a connection whose state is in doubt; closing it rolls back what it had not committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close(True)
            except apsw.Error as error:
                log.warning("closing %s after an error: %s", self._path, error)

    def _answer(self, batch: list[_Write]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
        for write in batch:
            loops.setdefault(write.loop, []).append(write)
        for loop, writes in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, writes)
            except RuntimeError:
                log.debug("a loop was closed before its %d writes returned", len(writes))


def _resolve(writes: list[_Write]) -> None:
    for write in writes:
        if write.future.done():
            continue  # its caller was cancelled; the write stands
        if write.error is not None:
            write.future.set_exception(write.error)
        else:
            write.future.set_result(write.result)
