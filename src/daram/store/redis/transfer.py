"""Reading and writing conversations as a whole (``SupportsTransfer``). Only this scans the keyspace."""

from __future__ import annotations

import builtins
import json
from hashlib import blake2b
from typing import Any

from daram import ids
from daram.codec import encode_strings, to_micros
from daram.errors import StoreCorrupt
from daram.model import Conversation, LogEntry, Message, OwnedRecord
from daram.store.primitives import Ref
from daram.store.redis import values
from daram.store.redis.search import RedisSearch
from daram.store.transfer import HIDDEN, LOG_BYTES, Chunk, TransferEngine

_CONVERSATIONS = "daram:{*}:c"
_RECORDS = "daram:{r*}:values"
# At how many namespaces one page of records looks.
_NAMESPACES = 50


class RedisTransfer(RedisSearch, TransferEngine):
    """The part of ``RedisStore`` that moves conversations."""

    async def _keyspace(
        self, pattern: str, limit: int, after: bytes | None
    ) -> tuple[builtins.list[bytes], bytes | None]:
        """Some keys, and where to go on: the number of the primary (on a cluster) and its cursor."""
        node, cursor = (0, 0) if after is None else json.loads(after)
        client = self.server.client()
        options: dict[str, Any] = {}
        nodes = 1
        if self.server.is_cluster:
            await self.server.call(client.initialize, writes=False)
            primaries = sorted(client.get_primaries(), key=lambda each: str(each.name))
            nodes = len(primaries)
            if node >= nodes:
                return [], None
            options["target_nodes"] = primaries[node]

        async def work() -> Any:
            return await client.execute_command("SCAN", cursor, "MATCH", pattern, "COUNT", limit, **options)

        cursor, found = _scanned(await self.server.call(work, writes=False))
        if cursor == 0:
            node += 1
        return found, json.dumps([node, cursor]).encode() if node < nodes else None

    async def _scan(self, limit: int, after: bytes | None) -> tuple[builtins.list[Conversation], bytes | None]:
        names, position = await self._keyspace(_CONVERSATIONS, limit, after)
        whose = await self.server.do_many([("HMGET", name, "owner", "id") for name in names])
        calls = []
        for owner, id in whose:
            if owner is not None and id is not None:
                ref = Ref(owner.decode(), id.decode(), ids.conversation_key(owner.decode(), id.decode()))
                calls.append((self._keys(ref), [self._offset(), ref.id]))
        replies = await self.server.run_many("get", calls)
        return [values.to_conversation(reply) for reply in replies if reply[0] != b"!"], position

    async def _log(self, ref: Ref, after: int, limit: int) -> builtins.list[LogEntry]:
        triples = await self._read("log", ref, ref.id, after, limit, LOG_BYTES)
        rows = [(triples[n], triples[n + 1].split(b"\n", 8), triples[n + 2]) for n in range(0, len(triples), 3)]
        here = {int(seq): fields[7] for seq, fields, _ in rows if len(fields) == 9}
        return [_entry(int(seq), fields, parent or here.get(int(fields[0]), b"")) for seq, fields, parent in rows]

    async def _leaves(self, ref: Ref) -> builtins.list[int]:
        return [int(seq) for seq in await self._read("leaves", ref, ref.id)]

    async def _load(self, ref: Ref, chunk: Chunk) -> Conversation:
        value = chunk.conversation
        end = "" if value.expires_at is None else str(to_micros(value.expires_at))
        if self.server.is_cluster and (chunk.more or end):
            await self._watch("expiry", ref, HIDDEN if chunk.more else int(end))
        updated = to_micros(value.updated_at)
        args: builtins.list[Any] = [
            *(ref.owner, ref.id, int(chunk.first), int(chunk.more), chunk.expect or "", ids.etag()),
            *("" if value.title is None else f"+{value.title}", encode_strings(value.metadata) or b""),
            *(int(value.pinned), int(value.archived), value.version, to_micros(value.created_at), updated, end),
            *(len(chunk.leaves), *chunk.leaves),
            *values.batch_args([entry.message for entry in chunk.entries]),
        ]
        for entry in chunk.entries:
            args += [entry.parent, "" if entry.question is None else entry.question, int(entry.deleted)]
        if self.server.is_cluster:
            # As young while it is being made: a list forgets what has been missing for long.
            now = self._now()
            reply = await self._change("load", ref, now, *args, create=True, expect=chunk.expect)
            if chunk.more:
                await self._watch("expiry", ref, HIDDEN)  # a purge may have come between, and found nothing
            else:
                await self._settle(ref, now, updated)
        else:
            reply = await self._run("load", ref, *args, expect=chunk.expect)
        return values.to_conversation(reply)

    async def _scan_all_records(
        self, limit: int, after: bytes | None
    ) -> tuple[builtins.list[OwnedRecord], bytes | None]:
        # Where the keyspace was scanned, what that gave, how many namespaces of it are done, the last key of the next.
        where, mark, done, last = (None, "", 0, None) if after is None else json.loads(after)
        names, position = await self._keyspace(_RECORDS, limit, None if where is None else where.encode())
        names.sort()
        seen = blake2b(b"\n".join(names), digest_size=8).hexdigest()
        if seen != mark:  # the keyspace was ordered anew: once more, so that nothing is left out
            done, last = 0, None
        few = names[done : done + _NAMESPACES]
        lows = [b"-" if n or last is None else b"(" + last.encode() for n in range(len(few))]
        orders = [name.removesuffix(b":values") + b":order" for name in few]
        whose = await self.server.do_many([("HGET", name, "\n") for name in few])
        keys = await self.server.do_many(
            [("ZRANGEBYLEX", order, low, "+", "LIMIT", 0, limit) for order, low in zip(orders, lows, strict=True)]
        )
        room, parts = limit, []
        after = None
        for n, (name, owner, there) in enumerate(zip(few, whose, keys, strict=True), done):
            if owner is None or not there:
                continue  # dropped meanwhile
            parts.append((owner, name, there[:room]))
            room -= len(there[:room])
            if not room:
                after = json.dumps([where, seen, n, parts[-1][2][-1].decode()]).encode()
                break
        else:
            if done + len(few) < len(names):
                after = json.dumps([where, seen, done + len(few), None]).encode()
            elif position is not None:
                after = json.dumps([position.decode(), "", 0, None]).encode()
        stored = await self.server.do_many([("HMGET", name, *some) for _, name, some in parts])
        found = []
        for (whole, _, some), data in zip(parts, stored, strict=True):
            owner, namespace = whole.decode().split("\n")
            records = (self._record(namespace, key.decode(), value) for key, value in zip(some, data, strict=True))
            found += [OwnedRecord(owner=owner, record=record) for record in records if record is not None]
        return found, after


def _scanned(reply: Any) -> tuple[int, builtins.list[bytes]]:
    """What SCAN answers; on a cluster the driver gives the cursor by node."""
    cursor, found = reply
    if isinstance(cursor, dict):
        (cursor,) = cursor.values()
    return int(cursor), builtins.list(found)


def _entry(seq: int, fields: builtins.list[bytes], parent: bytes) -> LogEntry:
    if len(fields) != 9:
        raise StoreCorrupt(f"message {seq} of a conversation cannot be read")
    above, deleted, created, question, role, _, _, id, _ = fields
    if deleted == b"1":
        bare = [above, deleted, created, question, role, b"complete", b"", id, values.EMPTY]
        message: Message = values.to_messages([str(seq).encode(), b"\n".join(bare), parent])[0]
    else:
        message = values.to_messages([str(seq).encode(), b"\n".join(fields), parent])[0]
    distant = int(question) if question and question != above else None
    return LogEntry(message=message, parent=int(above), question=distant, deleted=deleted == b"1")
