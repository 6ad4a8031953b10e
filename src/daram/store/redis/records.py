"""Records in Redis: a hash of values and a sorted set of their keys per owner and namespace, in one slot."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Any

from daram import ids
from daram.codec import from_micros, to_micros
from daram.errors import StoreCorrupt
from daram.model import Record, Unset
from daram.store import conflicts
from daram.store.redis import keys
from daram.store.redis.core import RedisCore

_CHUNK = 500


class RedisRecords(RedisCore):
    """The part of ``RedisStore`` that keeps records."""

    def _record_keys(self, owner: str, namespace: str) -> list[str]:
        own = keys.records(owner, namespace)
        if self.server.is_cluster:
            return own
        return [*own, keys.namespaces(owner), _shard(owner, namespace)]

    async def _get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        value = await self.server.do("HGET", keys.records(owner, namespace)[0], key, writes=False)
        return self._record(namespace, key, value)

    def _record(self, namespace: str, key: str, value: bytes | None) -> Record | None:
        if value is None:
            return None
        try:
            etag, expires, data = value.split(b"\n", 2)
            if expires and int(expires) <= self._clock():
                return None
            end = from_micros(int(expires)) if expires else None
            return Record(namespace=namespace, key=key, value=data, etag=etag.decode(), expires_at=end)
        except ValueError as error:
            raise StoreCorrupt(f"record {key!r} in {namespace!r} cannot be read: {error}") from None

    async def _put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        expect: str | Unset | None,
        expires_at: datetime | None,
    ) -> Record:
        if self.server.is_cluster:  # another slot: written before, so that none is ever missing from it
            await self.server.do("SADD", keys.namespaces(owner), namespace)
        etag = ids.etag()
        end = "" if expires_at is None else str(to_micros(expires_at))
        wanted = "-" if isinstance(expect, Unset) else f"+{expect or ''}"
        args: builtins.list[Any] = [self._offset(), key, wanted, etag, end, value, namespace, f"{owner}\n{namespace}"]
        await self._watch_records(owner, namespace, end)
        if not await self.server.run("put_record", self._record_keys(owner, namespace), args):
            raise conflicts.record_not_as_expected(namespace, key)
        await self._watch_records(owner, namespace, end)  # a purge may have come between, and found nothing
        return Record(namespace=namespace, key=key, value=value, etag=etag, expires_at=expires_at)

    async def _watch_records(self, owner: str, namespace: str, end: str) -> None:
        """On a cluster, where what the purge looks at is in another slot."""
        if end and self.server.is_cluster:
            await self.server.do("ZADD", _shard(owner, namespace), "LT", end, f"{owner}\n{namespace}")

    async def _delete_record(self, owner: str, namespace: str, key: str, expect: str | Unset) -> bool:
        wanted = "-" if isinstance(expect, Unset) else f"+{expect}"
        args: builtins.list[Any] = [self._offset(), key, wanted, f"{owner}\n{namespace}"]
        done = await self.server.run("delete_record", self._record_keys(owner, namespace), args)
        if done < 0:
            raise conflicts.record_not_as_expected(namespace, key)
        return bool(done)

    async def _scan_records(
        self, owner: str, namespace: str, prefix: str, limit: int, after: str | None
    ) -> builtins.list[Record]:
        values, order, _ = keys.records(owner, namespace)
        # No byte of UTF-8 is 0xFF: this is behind every key that begins with the prefix.
        low, high = f"[{prefix}".encode(), b"(" + prefix.encode() + b"\xff"
        if after is not None:
            low = b"(" + after.encode()
        found: builtins.list[Record] = []
        while len(found) < limit:
            page = await self.server.do("ZRANGEBYLEX", order, low, high, "LIMIT", 0, limit, writes=False)
            if not page:
                break
            data = await self.server.do("HMGET", values, *page, writes=False)
            records = (self._record(namespace, name.decode(), value) for name, value in zip(page, data, strict=True))
            found += [record for record in records if record is not None]
            low = b"(" + page[-1]
        return found[:limit]

    async def _delete_owner_records(self, owner: str) -> None:
        for namespace in await self.server.do("SMEMBERS", keys.namespaces(owner), writes=False):
            # On a cluster the name stays: somebody may be writing there, and told the list of it before.
            space = namespace.decode()
            await self.server.run("drop_records", self._record_keys(owner, space), [space, f"{owner}\n{space}"])

    async def _purge_records(self) -> None:
        """Delete all that have expired."""
        for shard in keys.shards("records"):
            kept = 0
            while True:
                args = [self._offset(), kept, _CHUNK]
                due = await self.server.run("due", [shard], args, writes=False)
                for member, score in zip(due[::2], due[1::2], strict=True):
                    later = await self._purge_namespace(*member.decode().split("\n"))
                    if not later:
                        await self.server.run("forget", [shard], [member, score])
                    elif float(later) == float(score):
                        kept += 1  # by the clock of its own node it is not due yet
                    else:
                        await self.server.run("settle", [shard], [member, score, later])
                if len(due) < 2 * _CHUNK:
                    break

    async def _purge_namespace(self, owner: str, namespace: str) -> bytes:
        """When the next record of it ends; empty where none does."""
        while True:
            args = [self._offset(), _CHUNK, f"{owner}\n{namespace}"]
            later, more = await self.server.run("purge_records", self._record_keys(owner, namespace), args)
            if more != b"1":
                return bytes(later)


def _shard(owner: str, namespace: str) -> str:
    return keys.shard("records", ids.conversation_key(owner, namespace))
