"""The one writer of a database file in this process: a thread that commits queued writes in groups, one fsync each.

Group commit as in PostgreSQL's ``commit_siblings`` or LevelDB's write queue, without their waiting: whatever was queued
while the last commit was at the disk makes up the next one, so a lone writer waits for nobody and 32 share an fsync.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import apsw

from daram.errors import StoreBusy, StoreClosed
from daram.store.sqlite.connections import Connections
from daram.store.sqlite.errors import translate

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]
log = logging.getLogger("daram.sqlite")

MAX_BATCH = 256
MAX_QUEUE = 10_000
# The log is brought into the database when it has so many pages (of 4 KiB).
LOG_PAGES = 2000
# After so much silence the writer does what can wait (feeding the search index); after so long again if it failed; and
# so much time it takes for it before it closes. In seconds.
IDLE = 0.5
RETRY = 10.0
LAST = 2.0
# These may have ended the whole transaction, not only the statement: https://sqlite.org/lang_transaction.html
_FATAL = (apsw.FullError, apsw.IOError, apsw.NoMemError, apsw.BusyError, apsw.InterruptError)

# What became of a batch: it was answered for; or it was rolled back, to be run again with each write guarded, or each
# in a transaction of its own.
Outcome = Literal["done", "guard", "one by one"]


class _Write:
    """One queued write and the future that waits for it."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Work[Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.loop = loop
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class _Here(threading.local):
    """Of each thread: the event loop that is going to wake up the writer."""

    waking: asyncio.AbstractEventLoop | None = None


class Writer:
    """Runs writes in the order of their submission; each is all or nothing, and none is answered before its commit.

    ``chore`` is called in a transaction of its own behind a batch or when the queue has been silent; ``due`` tells
    whether there is something for it to do (True: while nobody waits).
    """

    def __init__(self, connections: Connections, chore: Work[None], due: Callable[[bool], bool]) -> None:
        self._connections = connections
        self._path = connections.path
        self._chore = chore
        self._chore_due = due
        self._no_chore_before = 0.0
        self._log_pages = 0
        self._no_checkpoint_before = 0.0
        self._connection: apsw.Connection | None = None
        self._queue: deque[_Write] = deque()
        # Held while a write is accepted: none is once ``_closing`` is set.
        self._door = threading.Lock()
        self._closing = False
        # Locked while there is nothing new. A plain lock, because it wakes a thread in half the time of a Condition.
        self._nothing_new = threading.Lock()
        self._nothing_new.acquire()
        self._is_crowded = False
        self._here = _Here()
        # Held while a batch runs, and across a fork.
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"daram-writer {self._path}", daemon=True)

    def start(self, connection: apsw.Connection) -> None:
        """Begin, with a connection that is open already."""
        self._use(connection)
        self._thread.start()

    async def submit(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction; returns when it is on disk. Cancelling the caller does not undo it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._door:
            if self._closing:
                raise StoreClosed("this store was closed; open it again with daram.open(…)")
            if len(self._queue) >= MAX_QUEUE:
                raise StoreBusy(
                    f"{self._path}: {MAX_QUEUE:,} writes are waiting already; nothing was stored, try again"
                )
            self._queue.append(_Write(work, loop, future))
        if not self._is_crowded:
            self._wake()
        elif self._here.waking is not loop:
            # Not at once: the tasks that the last commit woke up write in this turn of the loop, and are to share the
            # next one.
            self._here.waking = loop
            loop.call_soon(self._wake)
        return await future

    def _wake(self) -> None:
        self._here.waking = None
        try:
            self._nothing_new.release()
        except RuntimeError:
            pass  # it was woken up already, and has not looked yet

    def close(self) -> None:
        """Finish what is queued and end; blocks until then."""
        with self._door:
            self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()

    def park(self) -> None:
        """Wait for the batch that runs, close the connection and run nothing until ``unpark`` (for a fork)."""
        self._gate.acquire()
        self._drop_connection()

    def unpark(self) -> None:
        """Go on with what was queued."""
        self._gate.release()

    def _run(self) -> None:
        is_silent = False
        while True:
            is_silent = not self._queue and not self._nothing_new.acquire(timeout=self._patience(is_silent))
            is_last = self._closing  # asked before the look at the queue, to which nothing is added behind it
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            self._is_crowded = len(batch) > 1
            with self._gate:
                if batch:
                    self._commit(batch)
                # Behind a batch too: the wake-up of a close that came while this thread woke up is not given again.
                if is_last and not self._queue:
                    self._finish()
                    return
                if self._log_pages >= LOG_PAGES:
                    self._checkpoint()
                if self._is_due(idle=is_silent):
                    self._do_chore()

    def _finish(self) -> None:
        end = time.monotonic() + LAST
        while self._is_due(idle=True) and time.monotonic() < end:
            self._do_chore()
        self._drop_connection()

    def _is_due(self, *, idle: bool) -> bool:
        return self._chore_due(idle) and time.monotonic() >= self._no_chore_before

    def _patience(self, was_silent: bool) -> float:
        """How long to wait for the next write, in seconds: for ever (-1) while there is no chore."""
        if not self._chore_due(True):
            return -1
        return max(0 if was_silent else IDLE, self._no_chore_before - time.monotonic())

    def _do_chore(self) -> None:
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            self._chore(connection)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # nothing may end this thread, and nobody waits for the chore
            # What it did not do is done at the next chance, or by the search that needs it.
            log.warning("indexing %s, again in %g s: %s", self._path, RETRY, error)
            self._no_chore_before = time.monotonic() + RETRY
            self._drop_connection()

    def _checkpoint(self) -> None:
        """Bring the log into the database, as far as nobody reads an older state: it begins anew with the next write.

        SQLite would do it within a commit, whose waiters would wait for it, and not tell what went wrong.
        """
        if self._connection is None or time.monotonic() < self._no_checkpoint_before:
            return
        self._log_pages = 0  # the next commit tells
        try:
            self._connection.wal_checkpoint()
        except apsw.BusyError:
            pass  # another process is at it
        except apsw.Error as error:
            # Nothing is lost by it: the log grows meanwhile.
            log.warning("checkpoint of %s, again in %g s: %s", self._path, RETRY, error)
            self._no_checkpoint_before = time.monotonic() + RETRY

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _open(self) -> apsw.Connection:
        self._connections.check()
        if self._connection is None:
            self._use(self._connections.writing())
        assert self._connection is not None
        return self._connection

    def _use(self, connection: apsw.Connection) -> None:
        connection.set_wal_hook(self._committed)
        self._connection = connection

    def _commit(self, batch: list[_Write], *, guarded: bool = False) -> None:
        try:
            outcome = self._transaction(batch, guarded=guarded or len(batch) == 1)
        except Exception as error:  # noqa: BLE001
            # Nothing may end the writer thread: whoever waits for this batch would wait for ever.
            failure = self._failure(error)
            for write in batch:
                write.error = failure
            self._drop_connection()
            outcome = "done"
        if outcome == "done":
            self._answer(batch)
            return
        for write in batch:
            write.error = None
        if outcome == "guard":
            self._commit(batch, guarded=True)
        else:
            for write in batch:
                self._commit([write])

    def _transaction(self, batch: list[_Write], *, guarded: bool) -> Outcome:
        """Run and commit a batch. ``guarded``: each write can be undone by itself, which costs two statements more."""
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        savepoints = guarded and len(batch) > 1
        for write in batch:
            if savepoints:
                connection.execute("SAVEPOINT one")
            before = connection.total_changes()
            try:
                write.result = write.work(connection)
            except Exception as error:  # noqa: BLE001  # whatever it is belongs to the waiter
                write.error = self._failure(error)
                if isinstance(error, _FATAL) or not connection.in_transaction:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    return "done" if len(batch) == 1 else "one by one"
                if savepoints:
                    connection.execute("ROLLBACK TO one")
                elif connection.total_changes() != before:
                    connection.execute("ROLLBACK")
                    return "done" if len(batch) == 1 else "guard"
            if savepoints:
                connection.execute("RELEASE one")
        try:
            connection.execute("COMMIT")
        except apsw.Error as error:
            failure = translate(error, self._path, committing=True)
            for write in batch:
                write.error = failure
            self._drop_connection()
        return "done"

    def _failure(self, error: Exception) -> Exception:
        """What the waiter gets."""
        if isinstance(error, apsw.Error):
            return translate(error, self._path)
        if isinstance(error, StopIteration):
            return RuntimeError(f"{error!r} in a write")  # no future takes it as it is
        return error

    def _drop_connection(self) -> None:
        """Close the connection, which rolls back what it had not committed; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                self._connections.close(connection)
            except apsw.Error as error:
                log.warning("closing %s: %s", self._path, error)

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
