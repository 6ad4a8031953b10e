"""What engines with records share: validation and paging of ``SupportsRecords``. An engine fills in four methods.

They get clean values only, as those of ``daram.store.template`` do.
"""

from __future__ import annotations

import builtins
from abc import abstractmethod
from datetime import datetime

from daram.codec import decode_cursor, records_cursor, records_scope
from daram.errors import InvalidInput, TooLarge
from daram.model import UNSET, Page, Record, Unset
from daram.store import validate
from daram.store.template import Engine

NAMESPACE_CHARS = 64


class RecordsEngine(Engine):
    """An ``Engine`` that ``SupportsRecords``."""

    # --- what an engine fills in ---

    @abstractmethod
    async def _get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        """The record, or None (also once it has expired)."""

    @abstractmethod
    async def _put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        expect: str | Unset | None,
        expires_at: datetime | None,
    ) -> Record:
        """Store as a whole with a new etag; ``Conflict`` unless what is there is as expected (None: nothing)."""

    @abstractmethod
    async def _delete_record(self, owner: str, namespace: str, key: str, expect: str | Unset) -> bool:
        """Delete; ``Conflict`` where another etag is stored. False where nothing is: a repeated delete is harmless."""

    @abstractmethod
    async def _scan_records(
        self, owner: str, namespace: str, prefix: str, limit: int, after: str | None
    ) -> builtins.list[Record]:
        """At most ``limit`` records whose key begins with ``prefix`` and is greater than ``after``, by code points."""

    # --- the public operations ---

    async def get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        self._record_name(owner, namespace, key)
        await self._open()
        return await self._get_record(owner, namespace, key)

    async def put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        *,
        expect: str | Unset | None = UNSET,
        expires_at: datetime | None = None,
    ) -> Record:
        self._record_name(owner, namespace, key)
        if not isinstance(value, bytes):
            raise InvalidInput("value", f"must be bytes, not {type(value).__name__}")
        if len(value) > self.limits.record_bytes:
            raise TooLarge("value", len(value), self.limits.record_bytes, "bytes")
        if expect is not None and not isinstance(expect, Unset):
            validate.name(expect, "expect", 64)
        end = validate.moment(expires_at, "expires_at")
        await self._open()
        return await self._put_record(owner, namespace, key, value, expect, end)

    async def delete_record(self, owner: str, namespace: str, key: str, *, expect: str | Unset = UNSET) -> bool:
        self._record_name(owner, namespace, key)
        if not isinstance(expect, Unset):
            validate.name(expect, "expect", 64)
        await self._open()
        return await self._delete_record(owner, namespace, key, expect)

    async def scan_records(
        self, owner: str, namespace: str, prefix: str = "", *, limit: int = 100, cursor: str | None = None
    ) -> Page[Record]:
        self._owner(owner)
        validate.name(namespace, "namespace", NAMESPACE_CHARS)
        if prefix != "":
            validate.name(prefix, "prefix", self.limits.record_key_chars)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        scope = records_scope(owner, namespace, prefix)
        after = None if cursor is None else str(decode_cursor(cursor, "records", scope, str)[0])
        await self._open()
        found = await self._scan_records(owner, namespace, prefix, limit + 1, after)
        if len(found) <= limit:
            return Page(found)
        return Page(found[:limit], records_cursor(owner, namespace, prefix, found[limit - 1].key))

    # --- helpers ---

    def _record_name(self, owner: str, namespace: str, key: str) -> None:
        self._owner(owner)
        validate.name(namespace, "namespace", NAMESPACE_CHARS)
        validate.name(key, "key", self.limits.record_key_chars)
