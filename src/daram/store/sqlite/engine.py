"""The embedded engine: one SQLite file in WAL mode, a writer thread with group commit, a few reading threads."""

from __future__ import annotations

import asyncio
import builtins
import os
import threading
import time
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

import apsw

from daram.codec import to_micros
from daram.errors import ConfigError, NotFound, StoreReadOnly, StoreUnavailable
from daram.model import Answer, Appended, Conversation, Hit, Message, Turn
from daram.store.base import Order
from daram.store.sqlite import changes, index, reads, records, rows, turns
from daram.store.sqlite.errors import translate
from daram.store.sqlite.readers import Readers
from daram.store.sqlite.rows import Q
from daram.store.sqlite.schema import APPLICATION_ID, MIGRATIONS, check_identity, migrate
from daram.store.sqlite.writer import Writer
from daram.store.template import TOMBSTONE_SECONDS, AnswerSpec, AppendSpec, Changes, Ref
from daram.store.validate import Limits

T = TypeVar("T")
Synchronous = Literal["FULL", "NORMAL", "OFF"]

# So many documents wait for the search index at most before a commit takes them along.
_PENDING = 256


class SqliteStore(records.SqliteRecords):
    """Conversations in one file. Several processes may open it at once (on a local disk, not on a network share).

    ``path``: the file, made if it is not there (its directory must be). ``synchronous``: FULL keeps P1 through a power
    cut; NORMAL and OFF do not, and are for measuring and testing. ``busy_timeout``: seconds to wait for another
    process.     ``vfs``: the name of an apsw VFS (tests). ``clock``: gives microseconds since 1970 (tests).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "FULL",
        busy_timeout: float = 10.0,
        read_only: bool = False,
        vfs: str | None = None,
        clock: Callable[[], int] | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(limits=limits)
        if synchronous not in ("FULL", "NORMAL", "OFF"):
            raise ConfigError(f"synchronous must be FULL, NORMAL or OFF, not {synchronous!r}")
        self.path = str(Path(path).absolute())
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._read_only = read_only
        self._vfs = vfs
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._last_now = 0
        self._unindexed = 0
        self._writer: Writer | None = None
        self._readers: Readers | None = None

    # --- life ---

    async def _set_up(self) -> None:
        await asyncio.to_thread(self._prepare)
        _forks.add(self)

    def _prepare(self) -> None:
        if not Path(self.path).parent.is_dir():
            raise StoreUnavailable(f"{self.path}: its directory does not exist; make it, or give another path")
        try:
            connection = self._connect(first=True)
            try:
                if self._read_only:
                    if check_identity(connection, self.path) != len(MIGRATIONS):
                        raise StoreReadOnly(f"{self.path}: has an older schema; open it once without read_only")
                else:
                    migrate(connection, self.path)
                    self._unindexed = int(str(connection.execute(Q["count_unindexed"]).get))
            except BaseException:
                connection.close(True)
                raise
        except apsw.Error as error:
            raise translate(error, self.path) from error
        self._readers = Readers(self.path, self._connect_reader)
        if self._read_only:
            connection.close()
        else:
            self._writer = Writer(self.path, self._connect, self._feed, self._feed_is_due)
            self._writer.start(connection)

    def _connect(self, *, first: bool = False) -> apsw.Connection:
        """A connection as the writer needs it. A new file is the owner's alone (0600)."""
        if first and not self._read_only and self._vfs is None:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        flags = apsw.SQLITE_OPEN_READONLY if self._read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(self.path, flags=flags, vfs=self._vfs, statementcachesize=200)
        try:
            connection.set_busy_timeout(int(self._busy_timeout * 1000))
            if first:
                check_identity(connection, self.path)  # before anything could be changed
            if not self._read_only:
                if connection.pragma("journal_mode", "wal") != "wal":
                    raise StoreUnavailable(f"{self.path}: its file system cannot hold a WAL database; use a local disk")
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")  # a pragma takes no parameter
                connection.pragma("secure_delete", True)
                connection.pragma("wal_autocheckpoint", 2000)
            connection.pragma("trusted_schema", False)
        except BaseException:
            connection.close(True)
            raise
        return connection

    def _connect_reader(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if self._read_only else apsw.SQLITE_OPEN_READWRITE
        connection = apsw.Connection(self.path, flags=flags, vfs=self._vfs, statementcachesize=100)
        connection.set_busy_timeout(int(self._busy_timeout * 1000))
        connection.pragma("query_only", True)
        connection.pragma("trusted_schema", False)
        return connection

    async def _tear_down(self) -> None:
        _forks.discard(self)
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        if self._readers is not None:
            self._readers.close()
        if self._writer is not None:
            self._writer.close()

    async def describe(self) -> dict[str, str]:
        await self._open()

        def look(db: apsw.Connection) -> dict[str, str]:
            return {
                "engine": f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})",
                "location": self.path,
                "durability": "read only"
                if self._read_only
                else f"WAL, synchronous={self._synchronous}"
                + ("" if self._synchronous == "FULL" else " (a power cut can lose what was acknowledged)"),
                "schema": str(db.execute("PRAGMA user_version").get),
                "application_id": f"{APPLICATION_ID:#x}",
                "size": f"{Path(self.path).stat().st_size:,} bytes",
            }

        return await self._read(look)

    # --- running work ---

    def _now(self) -> int:
        """Microseconds since 1970, rising within this process, so that two changes are never of the same moment."""
        self._last_now = max(self._clock(), self._last_now + 1)
        return self._last_now

    async def _write(self, work: Callable[[apsw.Connection, int], T]) -> T:
        if self._writer is None:
            raise StoreReadOnly(f"{self.path}: was opened read-only")
        return await self._writer.submit(lambda db: work(db, self._now()))

    async def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        assert self._readers is not None
        return await self._readers.run(work)

    def _feed(self, db: apsw.Connection) -> None:
        if index.feed(db) < index.GROUP:
            self._unindexed = 0

    def _feed_is_due(self, idle: bool) -> bool:
        return self._unindexed > (0 if idle else _PENDING)

    # --- conversations ---

    async def _create(
        self, ref: Ref, title: str | None, metadata: dict[str, str], expires_at: datetime | None
    ) -> Conversation:
        end = None if expires_at is None else to_micros(expires_at)
        return await self._write(lambda db, now: changes.create(db, ref, now, title, metadata, end).value(None))

    async def _get(self, ref: Ref) -> Conversation:
        return await self._read(lambda db: reads.get(db, ref, self._clock()))

    async def _list(self, owner: str, limit: int, before: tuple[int, bytes] | None) -> builtins.list[Conversation]:
        return await self._read(lambda db: reads.listing(db, owner, limit, before, self._clock()))

    async def _update(self, ref: Ref, wanted: Changes) -> Conversation:
        return await self._write(lambda db, now: changes.update(db, ref, now, wanted))

    async def _delete(self, ref: Ref) -> None:
        def work(db: apsw.Connection, now: int) -> None:
            if rows.find(db, ref, now) is None:
                raise NotFound("conversation", ref.id)
            changes.delete(db, ref, now)

        await self._write(work)

    async def _delete_owner(self, owner: str) -> int:
        return await self._write(lambda db, now: changes.delete_owner(db, owner, now))

    async def _purge(self, limit: int) -> int:
        return await self._write(lambda db, now: changes.purge(db, now, now - TOMBSTONE_SECONDS * 1_000_000, limit))

    # --- messages ---

    async def _append(self, ref: Ref, spec: AppendSpec) -> Appended:
        def work(db: apsw.Connection, now: int) -> Appended:
            done, _ = changes.append(db, ref, now, spec)
            self._unindexed += len(spec.messages)
            return done

        return await self._write(work)

    async def _tail(self, ref: Ref, limit: int) -> builtins.list[Message]:
        return await self._read(lambda db: reads.tail(db, ref, limit, self._clock()))

    async def _messages(
        self, ref: Ref, limit: int, order: Order, after: tuple[int, int] | None
    ) -> tuple[builtins.list[Message], int]:
        return await self._read(lambda db: reads.messages(db, ref, limit, order, after, self._clock()))

    async def _message(self, ref: Ref, message_id: str) -> Message:
        return await self._read(lambda db: reads.message(db, ref, message_id, self._clock()))

    async def _delete_message(self, ref: Ref, message_id: str) -> Conversation:
        return await self._write(lambda db, now: changes.delete_message(db, ref, now, message_id))

    async def _branches(self, ref: Ref, message_id: str) -> builtins.list[Message]:
        return await self._read(lambda db: reads.branches(db, ref, message_id, self._clock()))

    async def _use_branch(self, ref: Ref, message_id: str) -> Conversation:
        return await self._write(lambda db, now: changes.use_branch(db, ref, now, message_id))

    # --- turns ---

    async def _begin_turn(self, ref: Ref, spec: AppendSpec, answer: AnswerSpec) -> Turn:
        def work(db: apsw.Connection, now: int) -> Turn:
            turn = turns.begin(db, ref, now, spec, answer)
            self._unindexed += len(spec.messages)
            return turn

        return await self._write(work)

    async def _checkpoint(self, ref: Ref, answer_id: str, token: str, text: str, lease: float) -> bool:
        return await self._write(lambda db, now: turns.checkpoint(db, ref, now, answer_id, token, text, lease))

    async def _finish_turn(self, ref: Ref, token: str, message: Message) -> Appended:
        def work(db: apsw.Connection, now: int) -> Appended:
            done = turns.finish(db, ref, now, token, message)
            self._unindexed += 1
            return done

        return await self._write(work)

    async def _cancel_turn(self, ref: Ref, answer_id: str | None) -> int:
        return await self._write(lambda db, now: turns.cancel(db, ref, now, answer_id))

    async def _answers(self, ref: Ref) -> builtins.list[Answer]:
        return await self._read(lambda db: reads.answers(db, ref, self._clock()))

    async def _claim_dead(self, ref: Ref | None, limit: int, lease: float) -> builtins.list[Answer]:
        # Looked at without the write lock first: a sweep that finds nothing costs no transaction and no fsync.
        if not await self._read(lambda db: turns.any_over(db, ref, self._clock())):
            return []
        return await self._write(lambda db, now: turns.claim_dead(db, ref, now, limit, lease))

    # --- search ---

    async def _search(self, owner: str, query: str, conversation: Ref | None, limit: int) -> builtins.list[Hit]:
        while self._writer is not None and await self._read(reads.has_unindexed):
            # What was appended last, here or by another process, is found too.
            await self._write(lambda db, _: index.feed(db))
        return await self._read(lambda db: index.search(db, owner, query, conversation, self._clock(), limit))

    # --- forks ---

    def _park(self) -> None:
        if self._writer is not None:
            self._writer.gate.acquire()
            self._writer.drop_connection()
        if self._readers is not None:
            self._readers.gate.acquire()
            self._readers.drain()

    def _unpark(self) -> None:
        if self._readers is not None:
            self._readers.gate.release()
        if self._writer is not None:
            self._writer.gate.release()

    def _begin_anew(self) -> None:
        # In the child: the threads stayed in the parent. What is queued there is the parent's to answer.
        self._is_set_up = False
        self._ready = None
        self._writer = None
        self._readers = None


# SQLite forbids to carry a connection across a fork (https://sqlite.org/howtocorrupt.html section 2.6), even to close
# it in the child. So all of them are closed before every fork; parent and child open their own when they go on.
_forks: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_parked: builtins.list[SqliteStore] = []
_fork_lock = threading.Lock()


def _before_fork() -> None:
    _fork_lock.acquire()
    _parked.extend(_forks)
    for store in _parked:
        store._park()


def _after_in_parent() -> None:
    for store in _parked:
        store._unpark()
    _parked.clear()
    _fork_lock.release()


def _after_in_child() -> None:
    for store in _parked:
        store._begin_anew()
    _parked.clear()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
