"""Who is measured: Daram, and the same statements written by hand on apsw, with the same durability."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from time import time_ns
from typing import Any, NamedTuple, Protocol

import apsw

import daram
from daram import ids
from daram.store.sqlite.engine import SqliteStore
from daram.store.sqlite.index import feed
from daram.store.sqlite.rows import Q

OWNER = "owner"
TEXT = "A message of two hundred characters, as people and models write them to each other. ".ljust(200, "x")


class Contender(Protocol):
    """Somebody who keeps conversations, by number."""

    async def append(self, conversation: int, role: str, window: int) -> object:
        """Store one message of 200 characters; returns the last ``window`` messages, when it is on disk."""
        ...

    async def close(self) -> None:
        """Let go of the file."""
        ...


class Daram:
    """Daram itself."""

    name = "Daram"

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self.store = SqliteStore(path, vfs=vfs)

    async def append(self, conversation: int, role: str, window: int) -> object:
        message = daram.Message(role=role, text=TEXT)  # type: ignore[arg-type]  # "user" or "assistant"
        return await self.store.append(OWNER, f"c{conversation}", [message], window=window)

    async def close(self) -> None:
        await self.store.close()


async def prepared(path: Path, conversations: int, messages: int, vfs: str | None = None) -> Path:
    """A database with so many conversations of so many messages each."""
    async with SqliteStore(path, synchronous="OFF", vfs=vfs) as store:
        for number in range(conversations):
            await store.create(OWNER, id=f"c{number}")
            for start in range(0, messages, 100):
                batch = [daram.user(TEXT) for _ in range(min(100, messages - start))]
                await store.append(OWNER, f"c{number}", batch)
    return path


def connect(path: Path, vfs: str | None) -> apsw.Connection:
    """As Daram's writer has it."""
    db = apsw.Connection(str(path), vfs=vfs, statementcachesize=200)
    db.pragma("synchronous", "FULL")
    db.pragma("secure_delete", True)
    db.pragma("wal_autocheckpoint", 2000)
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    db.set_busy_timeout(10_000)
    return db


class Said(NamedTuple):
    """A message, as short as one would make it by hand."""

    id: str
    role: str
    text: str
    created_at: datetime


def append_by_hand(db: apsw.Connection, key: bytes, role: str, window: int) -> list[Said]:
    """What an append does to the tables, and nothing else: no checks, no branches, no parts or metadata."""
    now = time_ns() // 1000
    id = ids.message_id()
    row = db.execute(Q["find_conversation"], (key,)).fetchone()
    assert row is not None
    version, last, head = row[7], row[9], row[10]
    assert db.execute(Q["message_by_id"], (key, id)).fetchone() is None
    seq = last + 1
    db.execute(Q["insert_doc"], (key, seq))
    doc = db.last_insert_rowid()
    values = (key, seq, id, head, role, TEXT, None, "complete", None, None, now, doc, None)
    db.execute(Q["insert_message"], values)
    db.execute(Q["touch_conversation"], (version + 1, secrets.token_hex(8), seq, seq, 0, now, key))
    tail = db.execute(Q["run_desc"], (key, 1, seq, window)).fetchall() if window else []
    return [Said(row[1], row[3], row[4], datetime.fromtimestamp(row[9] / 1e6, UTC)) for row in reversed(tail)]


class OneByOne:
    """By hand: a transaction for each append, in the caller's thread."""

    name = "by hand, one by one"

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self._db = connect(path, vfs)
        self._keys: dict[int, bytes] = {}

    async def append(self, conversation: int, role: str, window: int) -> object:
        key = self._keys.setdefault(conversation, ids.conversation_key(OWNER, f"c{conversation}"))
        self._db.execute("BEGIN IMMEDIATE")
        tail = append_by_hand(self._db, key, role, window)
        self._db.execute("COMMIT")
        return tail

    async def close(self) -> None:
        self._db.close()


class Grouped:
    """By hand: a thread that commits whatever was queued meanwhile, and feeds the search index now and then.

    Each write has a savepoint, so that a bad one would fail alone.
    """

    name = "by hand, in groups"

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self._db = connect(path, vfs)
        self._keys: dict[int, bytes] = {}
        self._queue: deque[tuple[asyncio.Future[Any], bytes, str, int]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def append(self, conversation: int, role: str, window: int) -> object:
        key = self._keys.setdefault(conversation, ids.conversation_key(OWNER, f"c{conversation}"))
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._wake:
            self._queue.append((future, key, role, window))
            self._wake.notify()
        return await future

    def _run(self) -> None:
        waiting = 0
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if not self._queue:
                    return
                batch = list(self._queue)
                self._queue.clear()
            self._db.execute("BEGIN IMMEDIATE")
            tails = []
            for _, key, role, window in batch:
                self._db.execute("SAVEPOINT one")
                tails.append(append_by_hand(self._db, key, role, window))
                self._db.execute("RELEASE one")
            self._db.execute("COMMIT")
            waiting += len(batch)
            if waiting > 256:
                waiting = 0
                self._db.execute("BEGIN IMMEDIATE")
                feed(self._db)
                self._db.execute("COMMIT")
            done = [(future, tail) for (future, *_), tail in zip(batch, tails, strict=True)]
            self._loop.call_soon_threadsafe(_resolve, done)

    async def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        self._db.close()


def _resolve(done: list[tuple[asyncio.Future[Any], list[Any]]]) -> None:
    for future, tail in done:
        future.set_result(tail)
