"""Records: what adapters keep beside the messages."""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from daram import ids
from daram.codec import from_micros, to_micros
from daram.model import Record, Unset
from daram.store import conflicts
from daram.store.postgres.rows import Row
from daram.store.records import RecordsEngine

# Greater than every key that begins with the prefix: no character is above it.
_TOP = "\U0010ffff"


def _record(row: Row) -> Record:
    namespace, key, value, etag, expires_at = row
    end = None if expires_at is None else from_micros(expires_at)
    return Record(namespace=namespace, key=key, value=value, etag=etag, expires_at=end)


class PostgresRecords(RecordsEngine):
    """The part of ``PostgresStore`` that keeps records."""

    @abstractmethod
    async def _read(self, name: str, *values: Any) -> builtins.list[Row]: ...

    @abstractmethod
    async def _write(self, name: str, *values: Any, repeatable: bool = True) -> builtins.list[Row]: ...

    async def _get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        rows = await self._read("get_record", owner, namespace, key)
        return _record(rows[0]) if rows else None

    async def _put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        expect: str | Unset | None,
        expires_at: datetime | None,
    ) -> Record:
        new = Record(namespace=namespace, key=key, value=value, etag=ids.etag(), expires_at=expires_at)
        end = None if expires_at is None else to_micros(expires_at)
        values: Sequence[Any] = (owner, namespace, key, value, new.etag, end)
        if isinstance(expect, Unset):
            await self._write("put_record", *values)
        elif expect is None:
            if not await self._write("put_record_if_absent", *values):
                raise conflicts.record_not_as_expected(namespace, key)
        elif not await self._write("put_record_if_same", *values, expect):
            raise conflicts.record_not_as_expected(namespace, key)
        return new

    async def _delete_record(self, owner: str, namespace: str, key: str, expect: str | Unset) -> bool:
        wanted = None if isinstance(expect, Unset) else expect
        # Not repeated where its outcome is unknown: the second try could not tell whether it was there.
        rows = await self._write("delete_record", owner, namespace, key, wanted, repeatable=False)
        found, gone = rows[0]
        if found and not gone and wanted is not None:
            raise conflicts.record_not_as_expected(namespace, key)
        return bool(found and gone)

    async def _scan_records(
        self, owner: str, namespace: str, prefix: str, limit: int, after: str | None
    ) -> builtins.list[Record]:
        rows = await self._read("scan_records", owner, namespace, after or "", prefix, prefix + _TOP, limit)
        return [_record(row) for row in rows]
