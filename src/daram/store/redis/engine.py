"""Redis or Valkey as the engine: every change of a conversation is one script in one slot.

How durable an acknowledged write is, is the server's promise: ``appendonly yes`` with ``appendfsync always`` keeps it
through a crash of the server, other settings lose what ``describe`` says.
"""

from __future__ import annotations

import builtins
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from daram import ids
from daram.codec import encode_strings, to_micros
from daram.errors import Conflict, ConversationBusy, Gone, LeaseLost, NotFound, StoreCorrupt, Unsupported
from daram.model import Answer, Appended, Conversation, Hit, Message, Turn, Unset
from daram.store import conflicts
from daram.store.base import Order
from daram.store.primitives import TOMBSTONE_SECONDS, AnswerSpec, AppendSpec, Changes, Ref
from daram.store.process import identity, is_dead
from daram.store.redis import keys, values
from daram.store.redis.client import Server
from daram.store.redis.records import RedisRecords
from daram.store.validate import Limits
from daram.text.analyzer import index_terms, matches, parse_query

log = logging.getLogger("daram.redis")
_MICROS = 1_000_000
# An entry of an index without a conversation may be that of one that is just being made.
_YOUNG = 600 * _MICROS
# How many of the newest messages a search looks at.
SEARCHED = 2000


class RedisStore(RedisRecords):
    """Conversations on a server, a cluster or behind Sentinel (``redis://``, ``rediss://``, ``unix://``,
    ``redis+cluster://``, ``redis+sentinel://``).

    ``wait``: how many replicas must have a write before it is acknowledged (``WAIT``; not on a cluster);
    ``timeout``: seconds for one command; ``clock_offset``: moves the server's clock, in microseconds (tests).
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        wait: int = 0,
        clock_offset: Callable[[], int] | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(limits=limits)
        self.server = Server(url, timeout=timeout, wait=wait)
        self._offset = clock_offset or (lambda: 0)
        self._last_now = 0

    # --- life ---

    async def _set_up(self) -> None:
        await self.server.call(lambda: self.server.client().ping(), writes=False)
        _, warnings = await self.server.durability()
        for warning in warnings:
            log.warning("%s: %s", self.server.where, warning)

    async def _tear_down(self) -> None:
        await self.server.close()

    async def describe(self) -> dict[str, str]:
        await self._open()
        options: dict[str, Any] = {"target_nodes": "random"} if self.server.is_cluster else {}
        info = await self.server.call(lambda: self.server.client().info("server", **options), writes=False)
        name = "Valkey" if "valkey_version" in info else "Redis"
        durability, _ = await self.server.durability()
        return {
            "engine": f"{name} {info.get('valkey_version') or info.get('redis_version')}",
            "location": self.server.where,
            "durability": durability,
            "schema": "1",
            "search": f"within one conversation, its newest {SEARCHED:,} messages",
        }

    # --- scripts ---

    def _now(self) -> int:
        """Microseconds by which lists are sorted: this process's clock, rising; a conversation keeps the latest."""
        self._last_now = max(time.time_ns() // 1000 + self._offset(), self._last_now + 1)
        return self._last_now

    async def _run(self, script: str, ref: Ref, *args: Any, writes: bool = True) -> Any:
        reply = await self.server.run(script, keys.of_conversation(ref.key), [self._offset(), *args], writes=writes)
        if reply and reply[0] == b"!":
            raise _refusal(ref, [part.decode() for part in reply[1:]])
        return reply

    async def _read(self, script: str, ref: Ref, *args: Any) -> Any:
        return await self._run(script, ref, *args, writes=False)

    async def _enlist(self, ref: Ref, now: int) -> None:
        """Write the owner's index: before the conversation, so that none is ever missing from it."""
        client = self.server.client()
        member = keys.index_member(ref.key, ref.id)
        await self.server.call(lambda: client.zadd(keys.index(ref.owner), {member: now}, gt=True))

    # --- conversations ---

    async def _create(
        self, ref: Ref, title: str | None, metadata: dict[str, str], expires_at: datetime | None
    ) -> Conversation:
        now = self._now()
        await self._enlist(ref, now)
        end = await self._watch_expiry(ref, expires_at)
        reply = await self._run(
            "create", ref, ref.owner, ref.id, _title(title), encode_strings(metadata) or b"", end, ids.etag(), now
        )
        return values.to_conversation(reply)

    async def _watch_expiry(self, ref: Ref, expires_at: datetime | None) -> str:
        if expires_at is None:
            return ""
        end = to_micros(expires_at)
        member = keys.sweep_member(ref.owner, ref.id)
        client = self.server.client()
        await self.server.call(lambda: client.zadd(keys.shard("expiry", ref.key), {member: end}))
        return str(end)

    async def _get(self, ref: Ref) -> Conversation:
        return values.to_conversation(await self._read("get", ref, ref.id))

    async def _list(self, owner: str, limit: int, before: tuple[int, bytes] | None) -> builtins.list[Conversation]:
        found: builtins.list[Conversation] = []
        name = keys.index(owner)
        client = self.server.client()
        high, offset = ("+inf", 0) if before is None else (str(before[0]), 0)
        while len(found) < limit:
            page = await self.server.call(
                lambda high=high, offset=offset: client.zrevrangebyscore(
                    name, high, "-inf", start=offset, num=limit, withscores=True
                ),
                writes=False,
            )
            if not page:
                break
            for member, score in page:
                tag, _, id = member.decode().partition(":")
                key = bytes.fromhex(tag)
                if before is not None and (int(score), key) >= before:
                    continue
                ref = Ref(owner, id, key)
                try:
                    found.append(await self._get(ref))
                except NotFound:
                    if score < self._now() - _YOUNG:
                        await self.server.run("forget", [name], [member, str(int(score))])
                        offset -= 1
                if len(found) == limit:
                    break
            offset += len(page)
        return found

    async def _update(self, ref: Ref, changes: Changes) -> Conversation:
        args: builtins.list[str | bytes] = []
        if not isinstance(changes.title, Unset):
            args += ["title", _title(changes.title)]
        if not isinstance(changes.metadata, Unset):
            args += ["metadata", encode_strings(changes.metadata) or b""]
        if not isinstance(changes.pinned, Unset):
            args += ["pinned", str(int(changes.pinned))]
        if not isinstance(changes.archived, Unset):
            args += ["archived", str(int(changes.archived))]
        if not isinstance(changes.expires_at, Unset):
            args += ["expires", await self._watch_expiry(ref, changes.expires_at)]
        return values.to_conversation(await self._run("update", ref, ref.id, ids.etag(), *args))

    async def _delete(self, ref: Ref) -> None:
        await self._run("delete", ref, ref.id, TOMBSTONE_SECONDS * 1000, "0")
        client = self.server.client()
        await self.server.call(lambda: client.zrem(keys.index(ref.owner), keys.index_member(ref.key, ref.id)))

    async def _delete_owner(self, owner: str) -> int:
        client = self.server.client()
        count = 0
        for member in await self.server.call(lambda: client.zrange(keys.index(owner), 0, -1), writes=False):
            tag, _, id = member.decode().partition(":")
            try:
                await self._delete(Ref(owner, id, bytes.fromhex(tag)))
            except NotFound:
                continue
            count += 1
        await self._delete_owner_records(owner)
        return count

    async def _purge(self, limit: int) -> int:
        count = 0
        client = self.server.client()
        for shard in keys.shards("expiry"):
            due = await self.server.call(
                lambda shard=shard: client.zrangebyscore(
                    shard, "-inf", time.time_ns() // 1000 + self._offset(), start=0, num=limit, withscores=True
                ),
                writes=False,
            )
            for member, score in due:
                if count >= limit:
                    return count
                owner, _, id = member.decode().partition("\n")
                ref = Ref(owner, id, ids.conversation_key(owner, id))
                try:
                    reply = await self._run("delete", ref, ref.id, TOMBSTONE_SECONDS * 1000, "1")
                except NotFound:
                    reply = [b"0"]
                if reply[0] == b"1":
                    count += 1
                    index_member = keys.index_member(ref.key, ref.id)
                    await self.server.call(
                        lambda owner=owner, index_member=index_member: client.zrem(keys.index(owner), index_member)
                    )
                await self.server.run("forget", [shard], [member, str(int(score))])
        return count

    # --- messages ---

    async def _append(self, ref: Ref, spec: AppendSpec) -> Appended:
        now = self._now()
        await self._enlist(ref, now)
        reply = await self._run("append", ref, *_append_args(ref, spec), ids.etag(), ids.etag(), now, *_batch(spec))
        return values.to_appended(ref, reply)

    async def _tail(self, ref: Ref, limit: int) -> builtins.list[Message]:
        return values.to_messages(await self._read("tail", ref, ref.id, limit))[::-1]

    async def _messages(
        self, ref: Ref, limit: int, order: Order, after: tuple[int, int] | None
    ) -> tuple[builtins.list[Message], int]:
        triples, leaf = await self._read("messages", ref, ref.id, limit, order, *(after or (0, 0)))
        return values.to_messages(triples), int(leaf)

    async def _message(self, ref: Ref, message_id: str) -> Message:
        return values.to_messages(await self._read("message", ref, ref.id, message_id, "0"))[0]

    async def _delete_message(self, ref: Ref, message_id: str) -> Conversation:
        return values.to_conversation(await self._run("delete_message", ref, ref.id, message_id, ids.etag()))

    async def _branches(self, ref: Ref, message_id: str) -> builtins.list[Message]:
        return values.to_messages(await self._read("message", ref, ref.id, message_id, "1"))

    async def _use_branch(self, ref: Ref, message_id: str) -> Conversation:
        return values.to_conversation(await self._run("use_branch", ref, ref.id, message_id, ids.etag()))

    # --- turns ---

    async def _begin_turn(self, ref: Ref, spec: AppendSpec, answer: AnswerSpec) -> Turn:
        now = self._now()
        if spec.messages:
            await self._enlist(ref, now)
        lease = int(answer.lease * _MICROS)
        await self._watch_lease(ref, now + lease)
        append = [*_append_args(ref, spec), ids.etag(), ids.etag(), now]
        mine = [answer.id, lease, answer.model or "", secrets.token_hex(16), identity()]
        state, done, rest = await self._run("begin", ref, *append, *mine, 0, *_batch(spec))
        if state == b"running" and is_dead(rest[5].decode()):
            # Only this machine can tell that a process of it is gone: the script is told, and answers "busy" then.
            state, done, rest = await self._run("begin", ref, *append, *mine, 1, rest[5], *_batch(spec))
        appended = values.to_appended(ref, done)
        if state == b"finished":
            return Turn(state="finished", appended=appended, message=values.to_messages(rest)[0])
        found = values.to_answer(ref, rest)
        return Turn(state="started" if state == b"started" else "running", appended=appended, answer=found)

    async def _watch_lease(self, ref: Ref, until: int) -> None:
        member = keys.sweep_member(ref.owner, ref.id)
        client = self.server.client()
        await self.server.call(lambda: client.zadd(keys.shard("lease", ref.key), {member: until}))

    async def _checkpoint(self, ref: Ref, answer_id: str, token: str, text: str, lease: float) -> bool:
        reply = await self._run("checkpoint", ref, answer_id, token, int(lease * _MICROS), text)
        return bool(reply[0] == b"1")

    async def _finish_turn(self, ref: Ref, token: str, message: Message) -> Appended:
        now = self._now()
        await self._enlist(ref, now)
        reply = await self._run("finish", ref, token, ids.etag(), now, *values.batch_args([message]))
        return values.to_appended(ref, reply)

    async def _cancel_turn(self, ref: Ref, answer_id: str | None) -> int:
        return int((await self._run("cancel", ref, ref.id, answer_id or ""))[0])

    async def _answers(self, ref: Ref) -> builtins.list[Answer]:
        return [values.to_answer(ref, row) for row in (await self._read("answers", ref, ref.id, "0"))[1:]]

    async def _claim_dead(self, ref: Ref | None, limit: int, lease: float) -> builtins.list[Answer]:
        if ref is not None:
            return await self._claim(ref, limit, lease)
        claimed: builtins.list[Answer] = []
        client = self.server.client()
        for shard in keys.shards("lease"):
            # All of them, not only the late: a dead process of this machine is known before its lease ends.
            watched = await self.server.call(
                lambda shard=shard: client.zrange(shard, 0, -1, withscores=True), writes=False
            )
            for member, score in watched:
                if len(claimed) >= limit:
                    return claimed
                owner, _, id = member.decode().partition("\n")
                each = Ref(owner, id, ids.conversation_key(owner, id))
                claimed += await self._claim(each, limit - len(claimed), lease)
                if score < self._now() - _YOUNG and len(await self._read("answers", each, id, "1")) == 1:
                    await self.server.run("forget", [shard], [member, str(int(score))])
        return claimed

    async def _claim(self, ref: Ref, limit: int, lease: float) -> builtins.list[Answer]:
        now, *found = await self._read("answers", ref, ref.id, "1")
        claimed = []
        for row in found:
            process, until = row[5].decode(), int(row[8])
            if len(claimed) < limit and (until <= int(now) or is_dead(process)):
                token = secrets.token_hex(16)
                await self._watch_lease(ref, int(now) + int(lease * _MICROS))
                taken = await self._run("claim", ref, row[0], process, until, token, identity(), int(lease * _MICROS))
                if taken:
                    claimed.append(values.to_answer(ref, taken))
        return claimed

    # --- search ---

    async def _search(
        self, owner: str, query: str, conversation: Ref | None, limit: int, any_word: bool
    ) -> builtins.list[Hit]:
        if conversation is None:
            raise Unsupported(
                "Redis has no search over all conversations; search in one (conversation=…), "
                "or keep conversations in SQLite or PostgreSQL"
            )
        found = await self._get(conversation)
        parsed = parse_query(query)
        texts: builtins.list[tuple[Message, builtins.list[str]]] = []
        after: tuple[int, int] | None = None
        while len(texts) < SEARCHED:
            page, leaf = await self._messages(conversation, min(500, SEARCHED - len(texts)), "desc", after)
            texts += [(message, index_terms(message.text).split()) for message in page if message.text]
            if len(page) < 500:
                break
            after = (page[-1].seq, leaf)
        for all_words in (False,) if any_word else (True, False):
            hits = [message for message, terms in texts if matches(parsed, terms, all_words=all_words)]
            if hits:
                return [
                    Hit(message=m, conversation=conversation.id, title=found.title, score=_score(parsed, m))
                    for m in sorted(hits, key=lambda m: (-_score(parsed, m), -m.seq))[:limit]
                ]
        return []


def _score(parsed: Any, message: Message) -> float:
    """Words of the query that the message has, the shorter message first among equals."""
    terms = index_terms(message.text).split()
    return sum(matches(type(parsed)((word,)), terms, all_words=False) for word in parsed.words) + 1 / (1 + len(terms))


def _title(title: str | None) -> str:
    return "" if title is None else f"+{title}"


def _append_args(ref: Ref, spec: AppendSpec) -> builtins.list[Any]:
    parent = "-" if spec.parent is None else f"+{spec.parent}"
    if spec.expect is None:
        expect = "-"
    else:
        expect = f"v{spec.expect}" if isinstance(spec.expect, int) else f"e{spec.expect}"
    return [ref.owner, ref.id, "1" if spec.create else "0", parent, expect, spec.window]


def _batch(spec: AppendSpec) -> builtins.list[Any]:
    return values.batch_args(spec.messages)


def _refusal(ref: Ref, said: Sequence[str]) -> Exception:
    """The typed error for what a script refused."""
    kind, *rest = said
    if kind == "not found":
        return NotFound(*rest)
    if kind == "gone":
        return Gone(*rest)
    if kind == "exists":
        return conflicts.exists(ref.id)
    if kind == "not as expected":
        return Conflict(rest[0])
    if kind == "taken":
        return conflicts.id_is_taken(rest[0])
    if kind == "answer taken":
        return conflicts.answer_id_is_taken(rest[0])
    if kind == "busy":
        return ConversationBusy(rest[0], dead=rest[1] == "1" or is_dead(rest[2]))
    if kind == "lease lost":
        return LeaseLost(rest[0])
    return StoreCorrupt(f"a script of the Redis engine answered {kind!r}, which this Daram does not know")
