"""Records: what adapters keep beside the messages."""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import apsw

from daram import ids
from daram.codec import from_micros, to_micros
from daram.model import Record, Unset
from daram.store import conflicts
from daram.store.records import RecordsEngine
from daram.store.sqlite.rows import fetch, one, run

T = TypeVar("T")
# Greater than every key that begins with the prefix: no character is above it.
_TOP = "\U0010ffff"


def _record(row: tuple[Any, ...]) -> Record:
    namespace, key, value, etag, expires_at = row
    end = None if expires_at is None else from_micros(expires_at)
    return Record(namespace=namespace, key=key, value=value, etag=etag, expires_at=end)


class SqliteRecords(RecordsEngine):
    """The part of ``SqliteStore`` that keeps records."""

    @abstractmethod
    async def _write(self, work: Callable[[apsw.Connection, int], T]) -> T: ...

    @abstractmethod
    async def _read(self, work: Callable[[apsw.Connection], T]) -> T: ...

    _clock: Callable[[], int]

    async def _get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        return await self._read(lambda db: _find(db, owner, namespace, key, self._clock()))

    async def _put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        expect: str | Unset | None,
        expires_at: datetime | None,
    ) -> Record:
        def work(db: apsw.Connection, now: int) -> Record:
            if not isinstance(expect, Unset):
                _check(_find(db, owner, namespace, key, now), namespace, key, expect)
            new = Record(namespace=namespace, key=key, value=value, etag=ids.etag(), expires_at=expires_at)
            end = None if expires_at is None else to_micros(expires_at)
            run(db, "put_record", (owner, namespace, key, value, new.etag, end))
            return new

        return await self._write(work)

    async def _delete_record(self, owner: str, namespace: str, key: str, expect: str | Unset) -> bool:
        def work(db: apsw.Connection, now: int) -> bool:
            found = _find(db, owner, namespace, key, now)
            if found is not None and not isinstance(expect, Unset):
                _check(found, namespace, key, expect)
            run(db, "delete_record", (owner, namespace, key))
            return found is not None

        return await self._write(work)

    async def _scan_records(
        self, owner: str, namespace: str, prefix: str, limit: int, after: str | None
    ) -> builtins.list[Record]:
        def work(db: apsw.Connection) -> builtins.list[Record]:
            found = fetch(
                db, "scan_records", (owner, namespace, after or "", prefix, prefix + _TOP, self._clock(), limit)
            )
            return [_record(row) for row in found]

        return await self._read(work)


def _find(db: apsw.Connection, owner: str, namespace: str, key: str, now: int) -> Record | None:
    row = one(db, "get_record", (owner, namespace, key, now))
    return None if row is None else _record(row)


def _check(found: Record | None, namespace: str, key: str, expect: str | None) -> None:
    have = None if found is None else found.etag
    if have != expect:
        raise conflicts.record_not_as_expected(namespace, key)
