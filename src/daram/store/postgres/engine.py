"""The PostgreSQL engine: each operation of a turn is one statement and one round trip."""

from __future__ import annotations

import builtins
import secrets
from datetime import datetime
from typing import Any, Final

from daram import ids
from daram.codec import encode_strings, to_micros
from daram.errors import LeaseLost, NotFound, StoreClosed
from daram.model import Answer, Appended, Conversation, Hit, Message, Turn, Unset
from daram.store import conflicts
from daram.store.base import Order
from daram.store.documents_engine import STAGED_SECONDS
from daram.store.postgres import changes
from daram.store.postgres.check import PostgresCare
from daram.store.postgres.documents import PostgresDocuments
from daram.store.postgres.index import COMMON, Search
from daram.store.postgres.lanes import Row
from daram.store.postgres.pool import Pool
from daram.store.postgres.rows import batch, replies, tail, to_answer, to_conversation, to_message
from daram.store.postgres.schema import compose, migrate
from daram.store.primitives import AnswerSpec, AppendSpec, Changes, Ref
from daram.store.process import identity, is_dead
from daram.store.queries import load_queries
from daram.store.validate import Limits

_QUERIES: Final = load_queries("daram.store.postgres") | load_queries("daram.store.postgres", "documents.sql")
_MICROS: Final = 1_000_000


class PostgresStore(PostgresCare, PostgresDocuments):
    """Conversations in a schema of a PostgreSQL database (14 or later, UTF-8), which is made if it is not there.

    ``conninfo``: a libpq URL or connection string. ``pool_size``: connections per process (and event loop) at most;
    ``pool_wait``: seconds to wait for one of them; ``timeout``: seconds that a statement may take.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        schema: str = "daram",
        pool_size: int = 10,
        pool_wait: float = 10.0,
        timeout: float = 30.0,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(limits=limits)
        self.schema = schema
        self.pool = Pool(conninfo, size=pool_size, wait=pool_wait, timeout=timeout)
        self._queries = {name: compose(text, self.schema) for name, text in _QUERIES.items()}

    # --- life ---

    async def _open(self) -> None:
        # Not as in the template, whose lock belongs to one event loop.
        if self._closed:
            raise StoreClosed("this store was closed; open it again with daram.open(…)")
        if not self._is_set_up:
            async with self.pool.opening():
                if not self._is_set_up:
                    await self._set_up()
                    self._is_set_up = True

    async def _set_up(self) -> None:
        await migrate(self.pool, self.schema)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._tear_down()  # also where opening failed: there may be a connection

    async def _tear_down(self) -> None:
        await self.pool.close()

    async def describe(self) -> dict[str, str]:
        await self._open()
        rows = await self._read("describe", self.schema)
        version, synchronous, fsync, full_pages, replica, size, step, documents = rows[0]
        losses = [
            f"{name}=off"
            for name, value in (("synchronous_commit", synchronous), ("fsync", fsync), ("full_page_writes", full_pages))
            if value == "off"
        ]
        durability = f"the server's: synchronous_commit={synchronous}, fsync={fsync}"
        if losses:
            durability += f" (with {', '.join(losses)} a power cut can lose what was acknowledged)"
        return {
            "engine": f"PostgreSQL {version}",
            "location": self.pool.where.removeprefix("PostgreSQL "),
            "durability": "read only: a replica" if replica else durability,
            "schema": f"{self.schema} {step}",
            "documents": f"{documents:,}, found by words and vectors",
            "connections": f"at most {self.pool.size}",
            "size": f"{size:,} bytes",
        }

    # --- running statements ---

    async def _read(self, name: str, *values: Any) -> builtins.list[Row]:
        return await self.pool.fetch(self._queries[name], values, writes=False)

    async def _write(self, name: str, *values: Any, repeatable: bool = True) -> builtins.list[Row]:
        return await self.pool.fetch(self._queries[name], values, repeatable=repeatable)

    # --- conversations ---

    async def _create(
        self, ref: Ref, title: str | None, metadata: dict[str, str], expires_at: datetime | None
    ) -> Conversation:
        end = None if expires_at is None else to_micros(expires_at)
        rows = await self._write(
            "create_conversation", ref.key, ref.owner, ref.id, ids.etag(), title, encode_strings(metadata), end
        )
        kind, *conversation = rows[0]
        if kind == "exists":
            raise conflicts.exists(ref.id)
        return to_conversation(tuple(conversation))

    async def _get(self, ref: Ref) -> Conversation:
        return self._one(ref, await self._read("find_conversation", ref.key, ref.owner, ref.id))

    async def _list(self, owner: str, limit: int, before: tuple[int, bytes] | None) -> builtins.list[Conversation]:
        if before is None:
            rows = await self._read("list_conversations", owner, limit)
        else:
            rows = await self._read("list_conversations_before", owner, limit, *before)
        return [to_conversation(row) for row in rows]

    async def _update(self, ref: Ref, wanted: Changes) -> Conversation:
        def given(value: object) -> bool:
            return not isinstance(value, Unset)

        metadata = None if isinstance(wanted.metadata, Unset) else encode_strings(wanted.metadata)
        end = None if isinstance(wanted.expires_at, Unset | None) else to_micros(wanted.expires_at)
        rows = await self._write(
            "update_conversation",
            *(ref.key, ref.owner, ref.id, ids.etag()),
            *(given(wanted.title), None if isinstance(wanted.title, Unset) else wanted.title),
            *(given(wanted.metadata), metadata),
            None if isinstance(wanted.pinned, Unset) else wanted.pinned,
            None if isinstance(wanted.archived, Unset) else wanted.archived,
            *(given(wanted.expires_at), end),
        )
        return self._one(ref, rows)

    async def _delete(self, ref: Ref) -> None:
        rows = await self._write("delete_conversation", ref.key, ref.owner, ref.id, ids.etag())
        if rows[0][0] == "missing":
            raise NotFound("conversation", ref.id)

    async def _delete_owner(self, owner: str) -> int:
        return int((await self._write("delete_owner", owner, ids.etag(), repeatable=False))[0][0])

    async def _purge(self, limit: int) -> int:
        return int((await self._write("purge", limit, STAGED_SECONDS, repeatable=False))[0][0])

    def _one(self, ref: Ref, rows: builtins.list[Row]) -> Conversation:
        if not rows:
            raise NotFound("conversation", ref.id)
        return to_conversation(rows[0])

    # --- messages ---

    async def _append(self, ref: Ref, spec: AppendSpec) -> Appended:
        query = "append_one" if len(spec.messages) == 1 else "append_many"
        return changes.appended(ref, spec, replies(await self._write(query, *_append_values(ref, spec))))

    async def _tail(self, ref: Ref, limit: int) -> builtins.list[Message]:
        found = replies(await self._read("tail", ref.key, ref.owner, ref.id, limit))
        if found[0].kind == "missing":
            raise NotFound("conversation", ref.id)
        return tail(found, limit)

    async def _messages(
        self, ref: Ref, limit: int, order: Order, after: tuple[int, int] | None
    ) -> tuple[builtins.list[Message], int]:
        rows = await self._read("page", ref.key, ref.owner, ref.id, limit, order == "desc", *(after or (0, 0)))
        first, *found = replies(rows)
        if first.kind == "missing":
            raise NotFound("conversation", ref.id)
        if order == "desc":
            return tail(found, limit)[::-1], first.seq
        return [reply.message() for reply in found], first.seq

    async def _message(self, ref: Ref, message_id: str) -> Message:
        rows = await self._read("message", ref.key, ref.owner, ref.id, message_id)
        if not rows:
            raise NotFound("conversation", ref.id)
        if rows[0][0] is None:
            raise NotFound("message", message_id)
        return to_message(rows[0], rows[0][3])

    async def _delete_message(self, ref: Ref, message_id: str) -> Conversation:
        rows = await self._write("delete_message", ref.key, ref.owner, ref.id, ids.etag(), message_id)
        return changes.changed(ref, rows, message_id)

    async def _branches(self, ref: Ref, message_id: str) -> builtins.list[Message]:
        first, *found = replies(await self._read("siblings", ref.key, ref.owner, ref.id, message_id))
        if first.kind == "missing":
            raise NotFound("conversation", ref.id)
        if first.kind == "no message":
            raise NotFound("message", message_id)
        return [reply.message() for reply in found]

    async def _use_branch(self, ref: Ref, message_id: str) -> Conversation:
        rows = await self._write("use_branch", ref.key, ref.owner, ref.id, ids.etag(), message_id)
        return changes.changed(ref, rows, message_id)

    # --- turns ---

    async def _begin_turn(self, ref: Ref, spec: AppendSpec, answer: AnswerSpec) -> Turn:
        query = "begin_one" if len(spec.messages) == 1 else "begin_many"
        values = _append_values(ref, spec)
        token = secrets.token_hex(16)
        known: str | None = None
        while True:
            made = (known, answer.id, token, identity(), answer.model, int(answer.lease * _MICROS))
            found = replies(await self._write(query, *values, *made))
            turn = changes.turn(ref, spec, found)
            if turn is not None:
                return turn
            # What is stored is what the caller has: now the server may act on it, if nothing has changed since.
            known = found[0].etag

    async def _checkpoint(self, ref: Ref, answer_id: str, token: str, text: str, lease: float) -> bool:
        rows = await self._write("checkpoint", ref.key, answer_id, token, text, int(lease * _MICROS))
        if not rows:
            raise LeaseLost(answer_id)
        return bool(rows[0][0])

    async def _finish_turn(self, ref: Ref, token: str, message: Message) -> Appended:
        rows = await self._write("finish_turn", ref.key, ref.owner, ref.id, ids.etag(), token, *batch(ref, [message]))
        done = changes.finished(ref, message, replies(rows))
        if done is None:
            raise LeaseLost(message.id)
        return done

    async def _cancel_turn(self, ref: Ref, answer_id: str | None) -> int:
        found, asked = (await self._write("cancel_turn", ref.key, ref.owner, ref.id, answer_id))[0]
        if not found:
            raise NotFound("conversation", ref.id)
        return int(asked)

    async def _answers(self, ref: Ref) -> builtins.list[Answer]:
        rows = await self._read("answers", ref.key, ref.owner, ref.id)
        if not rows:
            raise NotFound("conversation", ref.id)
        return [to_answer(ref.owner, ref.id, row) for row in rows if row[0] is not None]

    async def _claim_dead(self, ref: Ref | None, limit: int, lease: float) -> builtins.list[Answer]:
        # Who is dead only this machine can tell: the rows are looked at, and taken over as they were seen.
        rows = await self._read("all_answers") if ref is None else await self._read("answers_of", ref.key)
        dead = [row[:4] for row in rows if row[5] or is_dead(row[4])][:limit]
        if not dead:
            return []
        token = secrets.token_hex(16)
        columns = [list(column) for column in zip(*dead, strict=True)]
        claimed = await self._write("claim_answers", *columns, token, identity(), int(lease * _MICROS))
        return [to_answer(owner, id, tuple(answer), token) for owner, id, *answer in claimed]

    # --- search ---

    async def _search(
        self, owner: str, query: str, conversation: Ref | None, limit: int, any_word: bool
    ) -> builtins.list[Hit]:
        search = Search(owner, query, conversation)
        if not search.parsed.words:
            return []
        key = None if conversation is None else conversation.key
        wanted = limit
        hits: builtins.list[Hit] = []
        while not any_word:
            rows = await self._read("search_all", owner, key, search.all_words(), wanted)
            hits = [_hit(row) for row in rows if search.has_all_words(row[8])]
            if len(hits) >= limit or len(rows) < wanted:
                break
            wanted *= 4  # some only had the same character pairs
        if hits:
            return hits[:limit]
        return [_hit(row) for row in await self._read("search_any", owner, key, search.any_word(), COMMON, limit)]


def _append_values(ref: Ref, spec: AppendSpec) -> builtins.list[Any]:
    version, etag = changes.expectation(spec.expect)
    place = (ref.key, ref.owner, ref.id, ids.etag(), spec.create, version, etag, spec.parent, spec.window)
    return [*place, *batch(ref, spec.messages)]


def _hit(row: Row) -> Hit:
    conversation, title, score, *message = row
    return Hit(message=to_message(message, message[3]), conversation=conversation, title=title, score=score)
