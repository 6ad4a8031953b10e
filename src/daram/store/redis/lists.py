"""The lists across conversations: an owner's index, what expires, which answers are being made, and the sweeps.

On a single server the scripts keep them. On a cluster they are in other slots: they are written before the
conversation, or together with it where it is there already, and whoever reads them asks the conversation what is true.
"""

from __future__ import annotations

import asyncio
import builtins
import secrets
from collections.abc import Awaitable
from typing import Any

from daram import ids
from daram.errors import NotFound, OutcomeUnknown
from daram.model import Answer, Conversation
from daram.store.primitives import TOMBSTONE_SECONDS, Ref
from daram.store.process import identity, is_dead
from daram.store.redis import keys, values
from daram.store.redis.core import MICROS, REFUSALS, refusal
from daram.store.redis.records import RedisRecords

# An entry of an index without a conversation may be that of one that is just being made.
_YOUNG = 600 * MICROS
_CHUNK = 500


class RedisLists(RedisRecords):
    """The part of ``RedisStore`` that keeps lists."""

    # --- writing, on a cluster ---

    async def _change(
        self,
        script: str,
        ref: Ref,
        now: int,
        *args: Any,
        create: bool = False,
        lease: int | None = None,
        expect: int | str | None = None,
    ) -> Any:
        """Run a script that appends, in step with the lists. ``create``: it may make the conversation."""
        if not self.server.is_cluster:
            return await self._run(script, ref, *args, expect=expect)
        index, member = keys.index(ref.owner), keys.index_member(ref.key, ref.id)
        # XX: an append that is refused for want of a conversation leaves no entry behind.
        beside: builtins.list[Awaitable[Any]] = [
            self.server.do("ZADD", index, *(() if create else ("XX",)), "GT", now, member)
        ]
        if lease is not None:
            beside.append(self._watch("lease", ref, now + lease))
        if create:
            await asyncio.gather(*beside)
            beside = []
        work = self._run(script, ref, *args, expect=expect)
        reply, *others = await asyncio.gather(work, *beside, return_exceptions=True)
        if isinstance(reply, REFUSALS):
            await self._settle(ref, now)
        if isinstance(reply, BaseException):
            raise reply
        for each in others:
            if isinstance(each, BaseException):
                raise OutcomeUnknown(
                    f"the change is stored, but not its place in a list ({each}); repeat it with the same message ids"
                ) from each
        return reply

    async def _settle(self, ref: Ref, now: int, updated: int | None = None) -> None:
        """Nothing was appended after all: put back the place in the list that was written ahead."""
        if not self.server.is_cluster or updated == now:
            return
        if updated is None:
            try:
                found = await self._read("get", ref, ref.id)
            except NotFound:
                return
            updated = int(found[12])
        member = keys.index_member(ref.key, ref.id)
        await self.server.run("settle", [keys.index(ref.owner)], [member, now, updated])

    async def _watch(self, kind: str, ref: Ref, moment: int) -> None:
        await self.server.do("ZADD", keys.shard(kind, ref.key), moment, keys.sweep_member(ref.owner, ref.id))

    # --- listing ---

    async def _list(self, owner: str, limit: int, before: tuple[int, bytes] | None) -> builtins.list[Conversation]:
        found: builtins.list[tuple[int, bytes, Conversation]] = []
        name = keys.index(owner)
        high, offset = ("+inf", 0) if before is None else (str(before[0]), 0)
        while len(found) < limit:
            command = ("ZREVRANGEBYSCORE", name, high, "-inf", "WITHSCORES", "LIMIT", offset, limit)
            page = await self.server.do(*command, writes=False)
            entries = [_entry(owner, *entry) for entry in _pairs(page)]
            offset += len(entries)
            entries = [(ref, score) for ref, score in entries if before is None or (score, ref.key) < before]
            calls = [(self._keys(ref), [self._offset(), ref.id]) for ref, _ in entries]
            missing: builtins.list[tuple[Ref, int]] = []
            for (ref, score), reply in zip(entries, await self.server.run_many("get", calls), strict=True):
                if reply[0] != b"!":
                    updated = int(reply[12])
                    lower = updated < score < self._clock() - _YOUNG  # what was written ahead never came
                    if score < updated or lower:
                        await self.server.run("settle", [name], [keys.index_member(ref.key, ref.id), score, updated])
                    if lower:
                        offset -= 1  # it stands further down now
                    else:
                        found.append((updated, ref.key, values.to_conversation(reply)))
                elif not isinstance(refusal(ref, [part.decode() for part in reply[1:]]), NotFound):
                    raise refusal(ref, [part.decode() for part in reply[1:]])
                elif score < self._clock() - _YOUNG:
                    missing.append((ref, score))
            offset -= await self._forget_missing(name, missing)
            if len(page) < 2 * limit:
                break
        found.sort(key=lambda each: each[:2], reverse=True)
        return [conversation for _, _, conversation in found[:limit]]

    async def _forget_missing(self, index: str, entries: builtins.list[tuple[Ref, int]]) -> int:
        """Remove entries of conversations of which nothing is stored; what has expired is kept for who deletes it."""
        traces = await self.server.run_many("traces", [(self._keys(ref), [self._offset()]) for ref, _ in entries])
        gone = [entry for entry, there in zip(entries, traces, strict=True) if not there]
        count = 0
        for ref, score in gone:
            count += await self.server.run("forget", [index], [keys.index_member(ref.key, ref.id), score])
        return count

    async def _delete(self, ref: Ref) -> None:
        await self._remove(ref, "0")

    async def _remove(self, ref: Ref, which: str) -> builtins.list[bytes]:
        """``which`` and the reply: as ``delete.lua`` says."""
        index, member = keys.index(ref.owner), keys.index_member(ref.key, ref.id)
        listed = None
        if self.server.is_cluster:
            listed = await self.server.do("ZSCORE", index, member, writes=False)
        args = (ref.owner, ref.id, TOMBSTONE_SECONDS * 1000, which, secrets.token_hex(8))
        reply: builtins.list[bytes] = await self._run("delete", ref, *args)
        if listed is not None and reply[0] == b"1":
            # Somebody may have made it anew meanwhile: then the entry is theirs.
            await self.server.run("forget", [index], [member, listed])
        return reply

    async def _delete_owner(self, owner: str) -> int:
        count = offset = 0
        while page := await self.server.do("ZRANGE", keys.index(owner), offset, offset + _CHUNK - 1, writes=False):
            for member in page:
                ref, _ = _entry(owner, member, b"0")
                try:
                    await self._remove(ref, "2")
                    count += 1
                except NotFound:
                    offset += 1  # one that somebody is just making: the entry is theirs
        await self._delete_owner_records(owner)
        return count

    # --- sweeps ---

    async def _purge(self, limit: int) -> int:
        count = 0
        for shard in keys.shards("expiry"):
            kept = 0
            while count < limit:
                size = min(_CHUNK, limit - count)
                due = _pairs(await self.server.run("due", [shard], [self._offset(), kept, size], writes=False))
                for member, score in due:
                    done, later = await self._purge_one(_swept(member))
                    count += done
                    if later is None:
                        await self.server.run("forget", [shard], [member, score])
                    elif int(later) == int(float(score)):
                        kept += 1  # by the clock of its own node it is not due yet
                    else:
                        await self.server.run("settle", [shard], [member, score, later])
                if len(due) < size:
                    break
        await self._purge_records()
        return count

    async def _purge_one(self, ref: Ref) -> tuple[bool, bytes | None]:
        """Delete it if it has expired: whether it had, and when it will where it has not."""
        try:
            done, *later = await self._remove(ref, "1")
        except NotFound:
            return False, None
        return done == b"1", (later[0] or None) if later else None

    async def _claim_dead(self, ref: Ref | None, limit: int, lease: float) -> builtins.list[Answer]:
        if ref is not None:
            return await self._claim(ref, await self._read("answers", ref, ref.id, "1"), limit, lease)
        claimed: builtins.list[Answer] = []
        for shard in keys.shards("lease"):
            # All of them, not only the late: a dead process of this machine is known before its lease ends.
            watched = _pairs(await self.server.do("ZRANGE", shard, 0, -1, "WITHSCORES", writes=False))
            for start in range(0, len(watched), _CHUNK):
                chunk = [(_swept(member), member, score) for member, score in watched[start : start + _CHUNK]]
                calls = [(self._keys(each), [self._offset(), each.id, "1"]) for each, _, _ in chunk]
                replies = await self.server.run_many("answers", calls)
                for (each, member, score), reply in zip(chunk, replies, strict=True):
                    if len(claimed) >= limit:
                        return claimed
                    claimed += await self._claim(each, reply, limit - len(claimed), lease)
                    if len(reply) == 1 and int(score) < int(reply[0]) - _YOUNG:
                        await self.server.run("forget", [shard], [member, score])
        return claimed

    async def _claim(self, ref: Ref, found: builtins.list[Any], limit: int, lease: float) -> builtins.list[Answer]:
        """Fence off the dead among the makers of ``found`` (the reply of ``answers``)."""
        now, *rows = found
        claimed: builtins.list[Answer] = []
        for row in rows:
            process, until = row[5].decode(), int(row[8])
            if len(claimed) < limit and (until <= int(now) or is_dead(process)):
                span = int(lease * MICROS)
                if self.server.is_cluster:
                    await self._watch("lease", ref, int(now) + span)
                args = (row[0], process, until, secrets.token_hex(16), identity(), span)
                if taken := await self._run("claim", ref, *args):
                    claimed.append(values.to_answer(ref, taken))
        return claimed


def _pairs(flat: builtins.list[Any]) -> builtins.list[tuple[bytes, bytes]]:
    """Members and their scores, however the driver puts them."""
    if flat and not isinstance(flat[0], bytes):
        return [(member, b"%d" % int(float(score))) for member, score in flat]
    return list(zip(flat[::2], flat[1::2], strict=True))


def _entry(owner: str, member: bytes, score: bytes) -> tuple[Ref, int]:
    """A conversation by its entry in the index."""
    tag, _, id = member.decode().partition(":")
    return Ref(owner, id, bytes.fromhex(tag)), int(score)


def _swept(member: bytes) -> Ref:
    """A conversation by its entry in a shard."""
    owner, _, id = member.decode().partition("\n")
    return Ref(owner, id, ids.conversation_key(owner, id))
