"""Reading and writing conversations as a whole (``SupportsTransfer``)."""

from __future__ import annotations

import builtins
import json
from abc import abstractmethod

import apsw

from daram import ids
from daram.codec import encode_body, encode_strings, from_micros, to_micros
from daram.errors import NotFound
from daram.model import Conversation, LogEntry, OwnedRecord, Record
from daram.store import conflicts
from daram.store.primitives import Ref
from daram.store.sqlite import rows
from daram.store.sqlite.changes import clear
from daram.store.sqlite.records import SqliteRecords
from daram.store.sqlite.rows import Q, Stored, fetch, one, run
from daram.store.sqlite.upkeep import Upkeep
from daram.store.transfer import HIDDEN, LOG_BYTES, Chunk, TransferEngine, load_was_lost


class SqliteTransfer(SqliteRecords, TransferEngine):
    """The part of ``SqliteStore`` that moves conversations."""

    _upkeep: Upkeep

    @abstractmethod
    def _now(self) -> int: ...

    async def _scan(self, limit: int, after: bytes | None) -> tuple[builtins.list[Conversation], bytes | None]:
        found = await self._read(lambda db: fetch(db, "scan", (after or b"", self._clock(), limit)))
        page = [Stored(*row[:-1]).value(row[-1]) for row in found]
        return page, found[-1][0] if len(found) == limit else None

    async def _log(self, ref: Ref, after: int, limit: int) -> builtins.list[LogEntry]:
        return await self._read(lambda db: log(db, ref, after, limit, self._clock()))

    async def _leaves(self, ref: Ref) -> builtins.list[int]:
        return await self._read(lambda db: leaves(db, ref, self._clock()))

    async def _load(self, ref: Ref, chunk: Chunk) -> Conversation:
        def work(db: apsw.Connection, now: int) -> Conversation:
            if chunk.first:
                self._upkeep.removed()
            self._upkeep.added(len(chunk.entries))
            return load(db, ref, now, chunk)

        return await self._write(work)

    async def _scan_all_records(
        self, limit: int, after: bytes | None
    ) -> tuple[builtins.list[OwnedRecord], bytes | None]:
        place = ("", "", "") if after is None else tuple(json.loads(after))
        found = await self._read(lambda db: fetch(db, "scan_all_records", (*place, self._clock(), limit)))
        page = [
            OwnedRecord(
                owner=owner,
                record=Record(
                    namespace=namespace,
                    key=key,
                    value=value,
                    etag=etag,
                    expires_at=None if expires_at is None else from_micros(expires_at),
                ),
            )
            for owner, namespace, key, value, etag, expires_at in found
        ]
        return page, json.dumps(found[-1][:3]).encode() if len(found) == limit else None


def _require(db: apsw.Connection, ref: Ref, now: int) -> Stored:
    found = rows.find(db, ref, now)
    if found is None:
        raise NotFound("conversation", ref.id)
    return found


def log(db: apsw.Connection, ref: Ref, after: int, limit: int, now: int) -> list[LogEntry]:
    """A page of the log, ended early where it becomes large."""
    found = _require(db, ref, now)
    entries: list[LogEntry] = []
    size = 0
    for row in db.execute(Q["log"], (found.key, after, limit)):
        message = rows.to_message(row[:11], row[12])
        entries.append(LogEntry(message=message, parent=row[2], question=row[11], deleted=bool(row[10])))
        size += len(row[4]) + len(row[5] or b"")
        if size > LOG_BYTES:
            break
    return entries


def leaves(db: apsw.Connection, ref: Ref, now: int) -> list[int]:
    """The ends of the branches; the head is the one last used."""
    found = _require(db, ref, now)
    if found.branched:
        return [seq for seq, _ in fetch(db, "leaves", (found.key,))]
    return [found.head] if found.head else []


def load(db: apsw.Connection, ref: Ref, now: int, chunk: Chunk) -> Conversation:
    """Write one chunk; with the last one the conversation becomes visible."""
    row = one(db, "find_conversation", (ref.key,))
    stored = None if row is None else Stored(*row)
    if chunk.first:
        seen = rows.find(db, ref, now)
        have = None if seen is None else seen.etag
        if have != chunk.expect:
            raise conflicts.not_as_loaded(ref.id, have, chunk.expect)
        if stored is not None:
            clear(db, ref)
        branched = 0
    else:
        if (
            stored is None
            or (stored.owner, stored.id, stored.etag, stored.expires_at) != (ref.owner, ref.id, chunk.expect, HIDDEN)
            or stored.last_seq != chunk.entries[0].message.seq - 1
        ):
            raise load_was_lost(ref.id)
        branched = stored.branched
    for entry in chunk.entries:
        _insert(db, ref.key, entry)
    branched = int(branched or chunk.branches)
    value = chunk.conversation
    end: int | None = HIDDEN
    if not chunk.more:
        end = None if value.expires_at is None else to_micros(value.expires_at)
        run(db, "delete_tombstone", (ref.key,))
        if branched:
            for used, seq in enumerate(reversed(chunk.leaves), 1):
                run(db, "put_leaf", (ref.key, seq, used))
    loaded = Stored(
        key=ref.key,
        owner=ref.owner,
        id=ref.id,
        title=value.title,
        metadata=encode_strings(value.metadata),
        pinned=int(value.pinned),
        archived=int(value.archived),
        version=value.version,
        etag=ids.etag(),
        last_seq=chunk.last,
        head=chunk.leaves[0] if chunk.leaves else 0,
        branched=branched,
        created_at=to_micros(value.created_at),
        updated_at=to_micros(value.updated_at),
        expires_at=end,
    )
    run(
        db,
        "put_conversation",
        (
            loaded.key,
            loaded.owner,
            loaded.id,
            loaded.title,
            loaded.metadata,
            loaded.pinned,
            loaded.archived,
            loaded.version,
            loaded.etag,
            loaded.last_seq,
            loaded.head,
            loaded.branched,
            loaded.created_at,
            loaded.updated_at,
            loaded.expires_at,
        ),
    )
    return rows.conversation(db, loaded)


def _insert(db: apsw.Connection, key: bytes, entry: LogEntry) -> None:
    m = entry.message
    assert m.created_at is not None
    if one(db, "message_by_id", (key, m.id)) is not None:
        raise conflicts.id_is_taken(m.id)
    doc = None
    if m.text:
        run(db, "insert_doc", (key, m.seq))
        doc = db.last_insert_rowid()
    row = (m.seq, m.id, entry.parent, m.role, m.text, encode_body(m), m.status, m.model, m.tokens)
    run(db, "load_message", (key, *row, to_micros(m.created_at), doc, entry.question, int(entry.deleted)))
