"""The embedded engine: one SQLite file in WAL mode, a writer thread with group commit, a few reading threads."""

from __future__ import annotations

import asyncio
import builtins
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from daram.codec import to_micros
from daram.errors import ConfigError, NotFound, StoreClosed, StoreError, StoreReadOnly
from daram.model import Answer, Appended, Conversation, Hit, Message, Turn
from daram.store.base import Order
from daram.store.primitives import AnswerSpec, AppendSpec, Changes, Ref
from daram.store.sqlite import changes, forks, index, reads, rows, turns, vectors
from daram.store.sqlite.care import SqliteCare
from daram.store.sqlite.connections import Connections, Synchronous
from daram.store.sqlite.documents import SqliteDocuments
from daram.store.sqlite.errors import translate
from daram.store.sqlite.readers import Readers
from daram.store.sqlite.rows import value
from daram.store.sqlite.schema import APPLICATION_ID, MIGRATIONS, check_identity, migrate
from daram.store.sqlite.signs import SignPages
from daram.store.sqlite.upkeep import Upkeep
from daram.store.sqlite.writer import Writer
from daram.store.validate import Limits

T = TypeVar("T")

# How often a search has the index fed before it looks through the rest itself: others may write without end.
_FEEDS = 20


class SqliteStore(SqliteCare, SqliteDocuments):
    """Conversations in one file. Several processes may open it at once (on a local disk, not on a network share).

    ``path``: the file, made if it is not there (its directory must be). ``synchronous``: FULL keeps P1 through a power
    cut; NORMAL and OFF do not, and are for measuring and testing. ``busy_timeout``: seconds to wait for another
    process. ``vfs``: the name of an apsw VFS (tests). ``clock``: gives microseconds since 1970 (tests).

    It may be used from several event loops and threads, and on both sides of a fork.
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
        self._connections = Connections(
            self.path, synchronous=synchronous, busy_timeout=busy_timeout, read_only=read_only, vfs=vfs
        )
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._last_now = 0
        self._upkeep = Upkeep()
        self._signs = SignPages()
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        # Held while the file is opened and closed, and across a fork.
        self._opening = threading.Lock()
        self._stopped = False
        forks.register(self)

    # --- life ---

    async def _open(self) -> None:
        # Not as in the template, whose lock belongs to one event loop.
        if self._closed:
            raise StoreClosed("this store was closed; open it again with daram.open(…)")
        if not self._is_set_up:
            await self._set_up()

    async def _set_up(self) -> None:
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        with self._opening:
            if self._is_set_up:
                return  # another call was faster, or one whose caller was cancelled
            if self._stopped:
                raise StoreClosed("this store was closed while it was being opened")
            try:
                connection = self._connections.first()
                try:
                    self._look(connection)
                except BaseException:
                    connection.close(True)
                    raise
            except apsw.Error as error:
                raise translate(error, self.path) from error
            self._readers = Readers(self._connections)
            if self._connections.read_only:
                connection.close()
            else:
                self._writer = Writer(self._connections, self._upkeep.run, self._upkeep.is_due)
                self._writer.start(connection)
            self._is_set_up = True

    def _look(self, connection: apsw.Connection) -> None:
        if not self._connections.read_only:
            migrate(connection, self.path)
            self._upkeep.look(connection)
        elif check_identity(connection, self.path) != len(MIGRATIONS):
            raise StoreReadOnly(f"{self.path}: has an older schema; open it once without read_only")

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._tear_down()

    async def _tear_down(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        with self._opening:
            self._stopped = True
            if self._readers is not None:
                self._readers.close()
            if self._writer is not None:
                self._writer.close()

    async def describe(self) -> dict[str, str]:
        await self._open()

        def look(db: apsw.Connection) -> dict[str, str]:
            synchronous = self._connections.synchronous
            documents = value(db, "count_documents")
            return {
                "engine": f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})",
                "location": self.path,
                "durability": "read only"
                if self._connections.read_only
                else f"WAL, synchronous={synchronous}"
                + ("" if synchronous == "FULL" else " (a power cut can lose what was acknowledged)"),
                "schema": str(db.execute("PRAGMA user_version").get),
                "application_id": f"{APPLICATION_ID:#x}",
                "documents": f"{documents:,}, found by words" + (" and vectors" if vectors.has_numpy() else " only"),
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
            self._upkeep.removed()

        await self._write(work)

    async def _delete_owner(self, owner: str) -> int:
        count = 0
        while step := await self._write(lambda db, now: changes.delete_owner(db, owner, now)):
            self._upkeep.removed()
            count += step
        self._upkeep.unpublished()
        return count

    async def _purge(self, limit: int) -> int:
        left = limit
        while left and (step := await self._write(partial(changes.purge, limit=left))):
            self._upkeep.removed()
            left -= step
        self._upkeep.unpublished()
        return limit - left

    # --- messages ---

    async def _append(self, ref: Ref, spec: AppendSpec) -> Appended:
        def work(db: apsw.Connection, now: int) -> Appended:
            done, _ = changes.append(db, ref, now, spec)
            self._upkeep.added(len(spec.messages))
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
        def work(db: apsw.Connection, now: int) -> Conversation:
            self._upkeep.removed()
            return changes.delete_message(db, ref, now, message_id)

        return await self._write(work)

    async def _branches(self, ref: Ref, message_id: str) -> builtins.list[Message]:
        return await self._read(lambda db: reads.branches(db, ref, message_id, self._clock()))

    async def _use_branch(self, ref: Ref, message_id: str) -> Conversation:
        return await self._write(lambda db, now: changes.use_branch(db, ref, now, message_id))

    # --- turns ---

    async def _begin_turn(self, ref: Ref, spec: AppendSpec, answer: AnswerSpec) -> Turn:
        def work(db: apsw.Connection, now: int) -> Turn:
            turn = turns.begin(db, ref, now, spec, answer)
            self._upkeep.added(len(spec.messages))
            return turn

        return await self._write(work)

    async def _checkpoint(self, ref: Ref, answer_id: str, token: str, text: str, lease: float) -> bool:
        return await self._write(lambda db, now: turns.checkpoint(db, ref, now, answer_id, token, text, lease))

    async def _finish_turn(self, ref: Ref, token: str, message: Message) -> Appended:
        def work(db: apsw.Connection, now: int) -> Appended:
            done = turns.finish(db, ref, now, token, message)
            self._upkeep.added(1)
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

    async def _search(
        self, owner: str, query: str, conversation: Ref | None, limit: int, any_word: bool
    ) -> builtins.list[Hit]:
        steps = 0 if self._writer is None else _FEEDS
        while steps and await self._read(reads.has_unindexed):
            steps -= 1
            try:
                await self._write(lambda db, _: self._upkeep.feed(db))
            except StoreError:
                break  # a full disk or a busy one: then what is not indexed is looked through
        return await self._read(lambda db: index.search(db, owner, query, conversation, self._clock(), limit, any_word))

    # --- forks (see forks.py) ---

    def park(self) -> None:
        """Close all connections and stand still."""
        self._opening.acquire()
        if self._writer is not None:
            self._writer.park()
        if self._readers is not None:
            self._readers.park()

    def unpark(self) -> None:
        """Go on, in the parent."""
        if self._readers is not None:
            self._readers.unpark()
        if self._writer is not None:
            self._writer.unpark()
        self._opening.release()

    def begin_anew(self) -> None:
        """In the child: the threads stayed in the parent. What is queued there is the parent's to answer."""
        self._is_set_up = False
        self._writer = None
        self._readers = None
        self._opening = threading.Lock()
