"""Records in Redis: a hash of values and a sorted set of their keys per owner and namespace, in one slot."""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import Any

from daram import ids
from daram.codec import from_micros, to_micros
from daram.model import Record, Unset
from daram.store import conflicts
from daram.store.records import RecordsEngine
from daram.store.redis import keys
from daram.store.redis.client import Server


class RedisRecords(RecordsEngine):
    """The part of ``RedisStore`` that keeps records."""

    server: Server
    _offset: Callable[[], int]

    @abstractmethod
    def _now(self) -> int: ...

    async def _get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        name = keys.records(owner, namespace)[0]
        value = await self.server.call(lambda: self.server.client().hget(name, key), writes=False)
        return self._record(namespace, key, value)

    def _record(self, namespace: str, key: str, value: bytes | None) -> Record | None:
        if value is None:
            return None
        etag, expires, data = value.split(b"\n", 2)
        if expires and int(expires) <= self._now():
            return None
        end = from_micros(int(expires)) if expires else None
        return Record(namespace=namespace, key=key, value=data, etag=etag.decode(), expires_at=end)

    async def _put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        expect: str | None | Unset,
        expires_at: datetime | None,
    ) -> Record:
        client = self.server.client()
        await self.server.call(lambda: client.sadd(keys.namespaces(owner), namespace))
        etag = ids.etag()
        end = "" if expires_at is None else str(to_micros(expires_at))
        wanted = "-" if isinstance(expect, Unset) else f"+{expect or ''}"
        args: builtins.list[Any] = [self._offset(), key, wanted, etag, end, value]
        if not await self.server.run("put_record", keys.records(owner, namespace), args):
            raise conflicts.record_not_as_expected(namespace, key)
        return Record(namespace=namespace, key=key, value=value, etag=etag, expires_at=expires_at)

    async def _delete_record(self, owner: str, namespace: str, key: str, expect: str | Unset) -> bool:
        wanted = "-" if isinstance(expect, Unset) else f"+{expect}"
        args: builtins.list[Any] = [self._offset(), key, wanted]
        done = await self.server.run("delete_record", keys.records(owner, namespace), args)
        if done < 0:
            raise conflicts.record_not_as_expected(namespace, key)
        return bool(done)

    async def _scan_records(
        self, owner: str, namespace: str, prefix: str, limit: int, after: str | None
    ) -> builtins.list[Record]:
        values, order = keys.records(owner, namespace)
        client = self.server.client()
        low = f"[{prefix}" if after is None else f"({after}"
        # UTF-8 has no byte above 0xF4: this is behind every key that begins with the prefix.
        high = b"(" + prefix.encode() + b"\xff"
        found: builtins.list[Record] = []
        start = 0
        while len(found) < limit:
            page = await self.server.call(
                lambda start=start: client.zrangebylex(order, low, high, start=start, num=limit), writes=False
            )
            if not page:
                break
            data = await self.server.call(lambda page=page: client.hmget(values, page), writes=False)
            for key, value in zip(page, data, strict=True):
                record = self._record(namespace, key.decode(), value)
                if record is not None:
                    found.append(record)
            start += len(page)
        return found[:limit]

    async def _delete_owner_records(self, owner: str) -> None:
        client = self.server.client()
        name = keys.namespaces(owner)
        for namespace in await self.server.call(lambda: client.smembers(name), writes=False):
            for key in keys.records(owner, namespace.decode()):
                await self.server.call(lambda key=key: client.unlink(key))
        await self.server.call(lambda: client.unlink(name, keys.index(owner)))
