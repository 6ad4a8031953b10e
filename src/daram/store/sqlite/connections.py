"""Connections to one database file: made as the engine needs them, and never to another file than at first."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Literal

import apsw

from daram.errors import StoreReadOnly, StoreUnavailable
from daram.store.sqlite.schema import check_identity

Synchronous = Literal["FULL", "NORMAL", "OFF"]

# Held while a file is made. Closing any descriptor of a file lets go of all POSIX locks that this process has on it
# (https://sqlite.org/howtocorrupt.html section 2.2): nobody may have opened it with SQLite before ours is closed.
_making = threading.Lock()


class Connections:
    """Opens and closes connections to ``path``; knows nothing of what they are for."""

    def __init__(
        self, path: str, *, synchronous: Synchronous, busy_timeout: float, read_only: bool, vfs: str | None
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.synchronous = synchronous
        self._busy_timeout = int(busy_timeout * 1000)
        self._vfs = vfs
        self._file: tuple[int, int] | None = None

    def first(self) -> apsw.Connection:
        """Open the file, made if it is not there; from now on no other will do. Raises where it is not Daram's."""
        if self.read_only:
            flags = apsw.SQLITE_OPEN_READONLY
        elif self._vfs is None:
            flags = apsw.SQLITE_OPEN_READWRITE
            self._make()
        else:
            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = self._connect(flags)
        try:
            check_identity(connection, self.path)  # before anything could be changed
            if not self.read_only:
                self._prepare_for_writing(connection)
            self._file = self._found()
        except BaseException:
            connection.close(True)
            raise
        return connection

    def writing(self) -> apsw.Connection:
        """Another connection that writes."""
        connection = self._connect(apsw.SQLITE_OPEN_READWRITE)
        try:
            self._prepare_for_writing(connection)
        except BaseException:
            connection.close(True)
            raise
        return connection

    def reading(self) -> apsw.Connection:
        """A connection that cannot change anything."""
        # Not opened as read-only where it can be helped: the last connection to close tidies up the log.
        connection = self._connect(apsw.SQLITE_OPEN_READONLY if self.read_only else apsw.SQLITE_OPEN_READWRITE)
        connection.pragma("query_only", True)
        return connection

    def check(self) -> None:
        """Raise unless the file is still in its place: what is written into a deleted one is gone with the process."""
        if self._moved():
            raise StoreUnavailable(
                f"{self.path}: was deleted or replaced while it was open; nothing was stored. "
                "Put it back, or open the store again to use what is there now"
            )

    def close(self, connection: apsw.Connection) -> None:
        """Close; what was not committed is rolled back."""
        if self._moved():
            # The log beside the path may be that of another database now, which closing must not take for ours.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close(True)

    def _make(self) -> None:
        with _making:
            try:
                # The owner's alone; the log gets the same mode from SQLite.
                os.close(os.open(os.path.realpath(self.path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except FileExistsError:
                pass
            except FileNotFoundError:
                raise StoreUnavailable(
                    f"{self.path}: its directory does not exist; make it, or give another path"
                ) from None
            except OSError as error:
                raise StoreUnavailable(
                    f"{self.path}: cannot be made ({error.strerror}); check the path and its directory's permissions"
                ) from None

    def _connect(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(self.path, flags=flags, vfs=self._vfs, statementcachesize=200)
        connection.set_busy_timeout(self._busy_timeout)
        connection.pragma("trusted_schema", False)
        # Otherwise SQLite plans a query anew whenever another value is bound to its LIMIT, which takes longer than to
        # run it; and a plan that never changes is one that can be tested.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        return connection

    def _prepare_for_writing(self, connection: apsw.Connection) -> None:
        if connection.readonly("main"):
            # SQLite opens what it may not write for reading only, and says so at the first change.
            raise StoreReadOnly(f"{self.path}: cannot be written; check its permissions, or open it with read_only")
        if self._log_ahead(connection) != "wal":
            raise StoreUnavailable(f"{self.path}: its file system cannot hold a WAL database; use a local disk")
        connection.pragma("synchronous", self.synchronous)
        # On macOS an ordinary fsync leaves the data in the disk's own cache; elsewhere these two say nothing.
        connection.pragma("fullfsync", True)
        connection.pragma("checkpoint_fullfsync", True)
        connection.pragma("secure_delete", True)
        connection.pragma("wal_autocheckpoint", 0)  # the writer does it, when it has answered
        # Savepoints keep what they may have to undo in memory, not in a file among the temporary ones.
        connection.pragma("temp_store", "MEMORY")

    def _log_ahead(self, connection: apsw.Connection) -> object:
        # The one statement that does not wait as set_busy_timeout says: of several connections that want to bring a
        # new file into WAL mode, each holds the lock that the others need, and SQLite sends all but one away at once.
        deadline = time.monotonic() + self._busy_timeout / 1000
        while True:
            try:
                return connection.pragma("journal_mode", "wal")
            except apsw.BusyError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.01 + random.random() / 50)  # noqa: S311  # so that they do not meet again

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)  # noqa: PTH116  # a third of the time of Path.stat, and before each commit
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _moved(self) -> bool:
        return self._file is not None and self._found() != self._file
