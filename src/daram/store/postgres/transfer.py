"""Reading and writing conversations as a whole (``SupportsTransfer``)."""

from __future__ import annotations

import builtins
import json
from typing import Any, Final

from psycopg.errors import UniqueViolation

from daram import ids
from daram.codec import encode_body, encode_strings, from_micros, to_micros
from daram.errors import Conflict, NotFound, StoreClosed
from daram.model import Conversation, LogEntry, OwnedRecord, Record
from daram.store import conflicts
from daram.store.postgres import schema
from daram.store.postgres.index import terms
from daram.store.postgres.lanes import Row
from daram.store.postgres.pool import Pool
from daram.store.postgres.records import PostgresRecords
from daram.store.postgres.rows import to_conversation, to_message
from daram.store.postgres.schema import Found
from daram.store.primitives import Ref
from daram.store.queries import load_queries
from daram.store.transfer import HIDDEN, LOG_BYTES, Chunk, TransferEngine, load_was_lost

_QUERIES: Final = load_queries("daram.store.postgres", "transfer.sql")


class PostgresTransfer(PostgresRecords, TransferEngine):
    """The part of ``PostgresStore`` that moves conversations."""

    pool: Pool
    schema: str

    def _sql(self, name: str) -> bytes:
        return schema.compose(_QUERIES[name], self.schema)

    async def _look(self, name: str, *values: Any) -> builtins.list[Row]:
        return await self.pool.fetch(self._sql(name), values, writes=False)

    async def _scan(self, limit: int, after: bytes | None) -> tuple[builtins.list[Conversation], bytes | None]:
        rows = await self._look("scan", after or b"", limit)
        return [to_conversation(row) for row in rows], bytes(rows[-1][0]) if len(rows) == limit else None

    async def _place(self, ref: Ref) -> Row:
        rows = await self._look("place", ref.key)
        if not rows or rows[0][:2] != (ref.owner, ref.id) or not rows[0][7]:
            raise NotFound("conversation", ref.id)
        return rows[0]

    async def _log(self, ref: Ref, after: int, limit: int) -> builtins.list[LogEntry]:
        await self._place(ref)
        found = []
        size = 0
        for row in await self._look("log", ref.key, after, limit):
            found.append(
                LogEntry(message=to_message(row[:11], row[3]), parent=row[2], question=row[11], deleted=row[12])
            )
            size += len(row[5]) + len(row[6] or b"")
            if size > LOG_BYTES:
                break
        return found

    async def _leaves(self, ref: Ref) -> builtins.list[int]:
        place = await self._place(ref)
        if place[4]:
            return [row[0] for row in await self._look("leaves", ref.key)]
        return [place[8]] if place[8] else []

    async def _load(self, ref: Ref, chunk: Chunk) -> Conversation:
        try:
            return await self._load_once(ref, chunk)
        except UniqueViolation as error:
            name = error.diag.constraint_name
            if name in ("message_id", "message_pkey"):
                raise Conflict(
                    f"conversation {ref.id!r}: two messages have one id or one place; nothing of them was stored"
                ) from error
            raise conflicts.exists(ref.id) from error  # made by somebody else in the same moment

    async def _load_once(self, ref: Ref, chunk: Chunk) -> Conversation:
        async with self.pool.transaction() as cursor:

            async def run(name: str, *values: Any) -> None:
                await cursor.execute(self._sql(name), values, binary=True)

            await run("locked_place", ref.key)
            row = await cursor.fetchone()
            if chunk.first:
                have = row[2] if row is not None and row[7] else None
                if have != chunk.expect:
                    raise conflicts.not_as_loaded(ref.id, have, chunk.expect)
                branched = erased = False
                if row is None:
                    await run("begin", ref.key, ref.owner, ref.id, HIDDEN)
                else:
                    for part in ("messages", "leaves", "answers"):
                        await run(f"clear_{part}", ref.key)
            else:
                if (
                    row is None
                    or (row[0], row[1], row[2], row[6]) != (ref.owner, ref.id, chunk.expect, HIDDEN)
                    or row[3] != chunk.entries[0].message.seq - 1
                ):
                    raise load_was_lost(ref.id)
                branched, erased = row[4], row[5]
            if chunk.entries:
                await run("load_messages", ref.key, *_columns(ref, chunk.entries))
            branched = branched or chunk.branches
            erased = erased or any(entry.deleted for entry in chunk.entries)
            value = chunk.conversation
            end: int | None = HIDDEN
            if not chunk.more:
                end = None if value.expires_at is None else to_micros(value.expires_at)
                await run("clear_tombstone", ref.key)
                if branched:
                    used = builtins.list(range(len(chunk.leaves), 0, -1))
                    await run("load_leaves", ref.key, chunk.leaves, used)
            await run(
                "put",
                *(ref.key, value.title, encode_strings(value.metadata), value.pinned, value.archived),
                *(value.version, ids.etag(), chunk.last, chunk.leaves[0] if chunk.leaves else 0, branched, erased),
                *(to_micros(value.created_at), to_micros(value.updated_at), end),
            )
            done = await cursor.fetchone()
            assert done is not None
            return to_conversation(done)

    async def _scan_all_records(
        self, limit: int, after: bytes | None
    ) -> tuple[builtins.list[OwnedRecord], bytes | None]:
        place = ("", "", "") if after is None else tuple(json.loads(after))
        rows = await self._look("scan_all_records", *place, limit)
        page = []
        for owner, namespace, key, value, etag, expires_at in rows:
            end = None if expires_at is None else from_micros(expires_at)
            record = Record(namespace=namespace, key=key, value=value, etag=etag, expires_at=end)
            page.append(OwnedRecord(owner=owner, record=record))
        return page, json.dumps(rows[-1][:3]).encode() if len(rows) == limit else None

    async def schema_versions(self) -> tuple[int, int]:
        return max((await self._found()).applied, default=0), len(schema.MIGRATIONS)

    async def post_steps(self) -> builtins.list[int]:
        found = await self._found()
        if not found.applied:
            return []  # a new schema gets them when it is made
        return [m.number for m in schema.MIGRATIONS if schema.phase(m) == "post" and m.number not in found.applied]

    async def migrate(self) -> builtins.list[int]:
        await self._found()
        return await schema.migrate(self.pool, self.schema, post=True)

    async def _found(self) -> Found:
        if self._closed:
            raise StoreClosed("this store was closed; open it again with daram.open(…)")
        return await schema.look(self.pool, self.schema, schema.MIGRATIONS)


def _columns(ref: Ref, entries: builtins.list[LogEntry]) -> builtins.list[builtins.list[Any]]:
    rows = [
        (
            entry.message.seq,
            entry.message.id,
            entry.parent,
            entry.question,
            entry.message.role,
            entry.message.text,
            encode_body(entry.message),
            entry.message.status,
            entry.message.model,
            entry.message.tokens,
            None if entry.message.created_at is None else to_micros(entry.message.created_at),
            entry.deleted,
            terms(ref, entry.message.text),
        )
        for entry in entries
    ]
    return [builtins.list(column) for column in zip(*rows, strict=True)]
