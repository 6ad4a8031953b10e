"""Who is measured on PostgreSQL: Daram, and the same job by statements written by hand on the same driver.

By hand means one statement for each half of a turn, prepared by the driver, on Daram's tables with all of their indexes
(the search's too, whose terms are made as Daram makes them): what is stored is the same, and found the same. There are
no checks of ids that are stored already, no refusals, no branches, no deleted messages, no expiry, no second look.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from time import time_ns
from typing import Any, NamedTuple, Protocol

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

import daram
from bench.contenders import OWNER, TEXT
from daram import ids
from daram.store.postgres.engine import PostgresStore
from daram.store.postgres.index import terms
from daram.store.primitives import Ref

CONNECTIONS = 10


class Contender(Protocol):
    """Somebody who keeps conversations, by their names."""

    async def append(self, conversation: str, role: str, window: int) -> int:
        """Store one message of 200 characters; returns how many of the last ``window`` messages came back."""
        ...

    async def turn(self, conversation: str, window: int) -> int:
        """Store a question and the row of its answer, read the last messages, then store the answer in its place."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


class Daram:
    """Daram itself."""

    def __init__(self, url: str) -> None:
        self.store = PostgresStore(url, pool_size=CONNECTIONS)

    async def append(self, conversation: str, role: str, window: int) -> int:
        message = daram.Message(role=role, text=TEXT)  # type: ignore[arg-type]  # "user" or "assistant"
        return len((await self.store.append(OWNER, conversation, [message], window=window)).tail)

    async def turn(self, conversation: str, window: int) -> int:
        turn = await self.store.begin_turn(OWNER, conversation, [daram.user(TEXT)], window=window)
        assert turn.answer is not None
        await self.store.finish_turn(OWNER, conversation, turn.answer.id, turn.answer.token, text=TEXT)
        return len(turn.appended.tail)

    async def close(self) -> None:
        await self.store.close()


_APPEND = """
WITH c AS (
    UPDATE daram.conversation
    SET version = version + 1, etag = %(etag)s, last_seq = last_seq + 1, head = last_seq + 1, head_id = %(id)s,
        updated_at = %(now)s
    WHERE key = %(key)s RETURNING last_seq
), m AS (
    INSERT INTO daram.message (conversation, seq, id, parent, role, text, status, created_at, terms)
    SELECT %(key)s, last_seq, %(id)s, last_seq - 1, %(role)s, %(text)s, 'complete', %(now)s,
           array_to_tsvector(string_to_array(%(terms)s, ' '))
    FROM c
)
"""
_TAIL = """
SELECT seq, id, role, text, created_at FROM daram.message
WHERE conversation = %(key)s ORDER BY seq DESC LIMIT %(older)s
"""
_ASKED = """, a AS (
    INSERT INTO daram.answer
        (conversation, id, question, sibling, text, token, process, created_at, lease_until)
    SELECT %(key)s, %(answer)s, last_seq, false, '', %(token)s, '', %(now)s, %(now)s + 60000000 FROM c
)
"""
_ANSWERED = """, a AS (
    DELETE FROM daram.answer WHERE conversation = %(key)s AND id = %(id)s AND token = %(token)s
)
"""
_DONE = "SELECT last_seq FROM c"
# Statements are put together from constants alone.
APPEND_AND_READ = (_APPEND + _TAIL).encode()
APPEND_ONLY = (_APPEND + _DONE).encode()
BEGIN = (_APPEND + _ASKED + _TAIL).encode()
FINISH = (_APPEND + _ANSWERED + _DONE).encode()


class Said(NamedTuple):
    """A message, as short as one would make it by hand."""

    seq: int
    id: str
    role: str
    text: str
    created_at: datetime


class ByHand:
    """psycopg 3 and its pool, every statement a transaction of its own."""

    def __init__(self, url: str) -> None:
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs={"autocommit": True}, open=False
        )
        self._keys: dict[str, Ref] = {}

    async def append(self, conversation: str, role: str, window: int) -> int:
        if not window:
            await self._run(APPEND_ONLY, self._values(conversation, role))
            return 0
        rows = await self._run(APPEND_AND_READ, self._values(conversation, role), older=window - 1)
        return 1 + len(messages(rows))

    async def turn(self, conversation: str, window: int) -> int:
        answer, token = ids.message_id(), secrets.token_hex(16)
        question = self._values(conversation, "user")
        rows = await self._run(BEGIN, question, older=window - 1, answer=answer, token=token)
        await self._run(FINISH, self._values(conversation, "assistant") | {"id": answer}, token=token)
        return 1 + len(messages(rows))

    def _values(self, conversation: str, role: str) -> dict[str, Any]:
        ref = self._keys.get(conversation)
        if ref is None:
            key = ids.conversation_key(OWNER, conversation)
            ref = self._keys[conversation] = Ref(OWNER, conversation, key)
        return {
            "key": ref.key,
            "etag": secrets.token_hex(8),
            "id": ids.message_id(),
            "role": role,
            "text": TEXT,
            "terms": terms(ref, TEXT),
            "now": time_ns() // 1000,
        }

    async def _run(self, query: bytes, values: dict[str, Any], **more: Any) -> list[Any]:
        await self._pool.open()
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, values | more, binary=True)
            return await cursor.fetchall()

    async def close(self) -> None:
        await self._pool.close()


def messages(rows: list[Any]) -> list[Said]:
    """The rows, oldest first, as values."""
    return [
        Said(seq, id, role, text, datetime.fromtimestamp(created_at / 1e6, UTC))
        for seq, id, role, text, created_at in reversed(rows)
    ]
