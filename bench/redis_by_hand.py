"""Who is measured on Redis: Daram, one Lua script by hand with the same guarantees, and bare lists without any.

The script by hand is what a careful developer writes for one turn on one server, on the same driver: the question is
stored once whatever is retried, with a version and an etag, while no other answer's lease runs; the owner's list of
conversations and the list of leases change with it, and the end of the conversation comes back in the same call. It has
no branches, deletions, titles or expiry, which Daram has.

The bare lists are RPUSH and LRANGE: a retry stores twice, and nobody knows who writes. They are the floor.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from hashlib import blake2b
from time import time_ns
from typing import Any, Protocol

import redis.asyncio

from bench.contenders import OWNER, TEXT, Said
from daram import ids
from daram.model import user
from daram.store.redis.engine import RedisStore

WINDOW = 20
LEASE = 60

_BEGIN = """
local conversation, messages, ids, answers, index, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, digest, value, etag, updated, member = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local answer, token, lease, window = ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', conversation, 'version', 'etag', 'last_seq')
local version, previous, last = tonumber(found[1] or 0), found[2] or '', tonumber(found[3] or 0)
local stored = redis.call('HGET', ids, id)
if stored then
    local seq, had = string.match(stored, '^(%d+):(%x+)$')
    if had ~= digest then
        return redis.error_reply('CONFLICT the id holds another message')
    end
    local tail = redis.call('LRANGE', messages, math.max(0, seq - window), seq - 1)
    return { version, previous, previous, tonumber(seq), tail }
end
local running = redis.call('HGETALL', answers)
for n = 2, #running, 2 do
    if tonumber(string.match(running[n], '^(%d+):')) > now then
        return redis.error_reply('BUSY an answer is being made')
    end
end
local tail = redis.call('LRANGE', messages, 1 - window, -1)
redis.call('RPUSH', messages, value)
redis.call('HSET', ids, id, (last + 1) .. ':' .. digest)
redis.call('HSET', conversation, 'version', version + 1, 'etag', etag, 'last_seq', last + 1, 'updated', updated)
redis.call('ZADD', index, updated, member)
redis.call('HSET', answers, answer, (now + lease) .. ':' .. token .. ':' .. id)
redis.call('ZADD', leases, now + lease, member)
return { version + 1, etag, previous, last + 1, tail }
"""

_FINISH = """
local conversation, messages, ids, answers, index, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, digest, value, etag, updated, member, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local row = redis.call('HGET', answers, id)
local found = redis.call('HMGET', conversation, 'version', 'etag', 'last_seq')
local version, previous, last = tonumber(found[1]), found[2], tonumber(found[3])
if not row or string.match(row, '^%d+:(%x+)') ~= token then
    local seq, had = string.match(redis.call('HGET', ids, id) or '', '^(%d+):(%x+)$')
    if had ~= digest then
        return redis.error_reply('LOST the lease went to somebody else')
    end
    return { version, previous, previous, tonumber(seq), {} }
end
redis.call('HDEL', answers, id)
redis.call('ZREM', leases, member)
redis.call('RPUSH', messages, value)
redis.call('HSET', ids, id, (last + 1) .. ':' .. digest)
redis.call('HSET', conversation, 'version', version + 1, 'etag', etag, 'last_seq', last + 1, 'updated', updated)
redis.call('ZADD', index, updated, member)
return { version + 1, etag, previous, last + 1, {} }
"""


class Contender(Protocol):
    """Somebody who keeps conversations, by name."""

    name: str

    async def turn(self, id: str) -> int:
        """A question with the last 20 messages, then the answer; returns how many messages came."""
        ...

    async def fill(self, id: str, length: int) -> None:
        """Make a conversation of so many messages, all but the last as fast as it goes."""
        ...

    async def close(self) -> None: ...


class Daram:
    """Daram itself."""

    name = "Daram"

    def __init__(self, url: str) -> None:
        self.store = RedisStore(url)

    async def turn(self, id: str) -> int:
        begun = await self.store.begin_turn(OWNER, id, [user(TEXT)], create=True, window=WINDOW, lease=LEASE)
        assert begun.answer is not None
        await self.store.finish_turn(OWNER, id, begun.answer.id, begun.answer.token, text=TEXT)
        return len(begun.appended.tail)

    async def fill(self, id: str, length: int) -> None:
        for start in range(0, length, 100):
            batch = [user(TEXT) for _ in range(min(100, length - start))]
            await self.store.append(OWNER, id, batch, create=True)

    async def close(self) -> None:
        await self.store.close()


class Script:
    """By hand, a script for each half of the turn."""

    name = "a script by hand"

    def __init__(self, port: int) -> None:
        self._client: Any = redis.asyncio.Redis(port=port, protocol=2)
        self._begin = self._client.register_script(_BEGIN)
        self._finish = self._client.register_script(_FINISH)

    def _keys(self, id: str) -> list[str]:
        parts = [f"hand:{{{OWNER}:{id}}}:{part}" for part in ("c", "m", "i", "a")]
        return [*parts, f"hand:{OWNER}:index", "hand:leases"]

    @staticmethod
    def _message(role: str) -> tuple[str, str, str]:
        id = ids.message_id()
        digest = blake2b(f"{id}\n{role}\n{TEXT}".encode(), digest_size=16).hexdigest()
        return id, digest, json.dumps({"id": id, "role": role, "text": TEXT, "at": time_ns() // 1000})

    async def turn(self, id: str) -> int:
        question, digest, value = self._message("user")
        answer, answer_digest, answer_value = self._message("assistant")
        token, member = secrets.token_hex(16), f"{OWNER}:{id}"
        now = time_ns() // 1000
        args = [question, digest, value, secrets.token_hex(8), now, member, answer, token, LEASE * 1000, WINDOW]
        _, _, _, seq, stored = await self._begin(keys=self._keys(id), args=args)
        tail = [_said(json.loads(each)) for each in stored]
        tail.append(Said(question, "user", TEXT, datetime.fromtimestamp(now / 1e6, UTC)))
        now = time_ns() // 1000
        args = [answer, answer_digest, answer_value, secrets.token_hex(8), now, member, token]
        done = await self._finish(keys=self._keys(id), args=args)
        assert done[3] == seq + 1
        return len(tail)

    async def fill(self, id: str, length: int) -> None:
        conversation, messages, known, *_ = self._keys(id)
        for start in range(0, length, 1000):
            batch = [self._message("user") for _ in range(min(1000, length - start))]
            await self._client.rpush(messages, *(value for _, _, value in batch))
            places = {id: f"{start + n}:{digest}" for n, (id, digest, _) in enumerate(batch, 1)}
            await self._client.hset(known, mapping=places)
        await self._client.hset(conversation, mapping={"version": length, "etag": "x", "last_seq": length})

    async def close(self) -> None:
        await self._client.aclose()


class Lists:
    """By hand, bare lists of JSON."""

    name = "bare lists"

    def __init__(self, port: int) -> None:
        self._client: Any = redis.asyncio.Redis(port=port, protocol=2)

    async def turn(self, id: str) -> int:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.rpush(f"list:{id}", json.dumps({"role": "user", "text": TEXT}))
            pipe.lrange(f"list:{id}", -WINDOW, -1)
            _, stored = await pipe.execute()
        tail = [json.loads(each) for each in stored]
        await self._client.rpush(f"list:{id}", json.dumps({"role": "assistant", "text": TEXT}))
        return len(tail)

    async def fill(self, id: str, length: int) -> None:
        for start in range(0, length, 1000):
            batch = [json.dumps({"role": "user", "text": TEXT})] * min(1000, length - start)
            await self._client.rpush(f"list:{id}", *batch)

    async def close(self) -> None:
        await self._client.aclose()


def _said(value: dict[str, Any]) -> Said:
    return Said(value["id"], value["role"], value["text"], datetime.fromtimestamp(value["at"] / 1e6, UTC))
