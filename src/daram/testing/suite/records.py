"""``SupportsRecords``: small documents with etags beside the messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import pytest

from daram.errors import Conflict, InvalidInput, TooLarge
from daram.model import Page, Record
from daram.store.base import Store
from daram.testing.suite.base import ANN, BEN, OpenMore, Suite, pages, say

_PAST = datetime(2001, 1, 1, tzinfo=UTC)
_FUTURE = datetime(2201, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


class RecordTests(Suite):
    async def test_a_record_is_kept(self, store: Store) -> None:
        records = self.with_records(store)
        assert await records.get_record(ANN, "n", "k") is None
        put = await records.put_record(ANN, "n", "k", b"\x00\xff value", expires_at=_FUTURE)
        assert put == Record(namespace="n", key="k", value=b"\x00\xff value", etag=put.etag, expires_at=_FUTURE)
        assert put.etag
        assert await records.get_record(ANN, "n", "k") == put

    @pytest.mark.parametrize("value", [b"", b"x" * 1_000_000, bytes(range(256))], ids=["empty", "large", "all bytes"])
    async def test_every_value_is_kept(self, store: Store, value: bytes) -> None:
        records = self.with_records(store)
        await records.put_record(ANN, "n", "k", value)
        found = await records.get_record(ANN, "n", "k")
        assert found is not None
        assert found.value == value

    async def test_put_replaces_and_draws_an_etag(self, store: Store) -> None:
        records = self.with_records(store)
        first = await records.put_record(ANN, "n", "k", b"1", expires_at=_FUTURE)
        second = await records.put_record(ANN, "n", "k", b"2")
        third = await records.put_record(ANN, "n", "k", b"2")
        assert len({first.etag, second.etag, third.etag}) == 3
        assert await records.get_record(ANN, "n", "k") == third
        assert third.expires_at is None

    async def test_put_expects(self, store: Store) -> None:
        records = self.with_records(store)
        with pytest.raises(Conflict):
            await records.put_record(ANN, "n", "k", b"1", expect="0" * 16)
        first = await records.put_record(ANN, "n", "k", b"1", expect=None)
        with pytest.raises(Conflict):
            await records.put_record(ANN, "n", "k", b"2", expect=None)
        second = await records.put_record(ANN, "n", "k", b"2", expect=first.etag)
        with pytest.raises(Conflict):
            await records.put_record(ANN, "n", "k", b"3", expect=first.etag)
        assert await records.get_record(ANN, "n", "k") == second

    async def test_delete(self, store: Store) -> None:
        records = self.with_records(store)
        assert await records.delete_record(ANN, "n", "k") is False
        assert await records.delete_record(ANN, "n", "k", expect="0" * 16) is False
        first = await records.put_record(ANN, "n", "k", b"1")
        with pytest.raises(Conflict):
            await records.delete_record(ANN, "n", "k", expect="0" * 16)
        assert await records.get_record(ANN, "n", "k") == first
        assert await records.delete_record(ANN, "n", "k", expect=first.etag) is True
        assert await records.get_record(ANN, "n", "k") is None
        await records.put_record(ANN, "n", "k", b"2", expect=None)
        assert await records.delete_record(ANN, "n", "k") is True

    async def test_owners_and_namespaces_are_apart(self, store: Store) -> None:
        records = self.with_records(store)
        places = [
            (ANN, "n", "k"),
            (BEN, "n", "k"),
            (ANN, "m", "k"),
            (ANN, "n", "l"),
            (ANN, "nk", "x"),
            (ANN, "n", "kx"),
        ]
        for owner, namespace, key in places:
            await records.put_record(owner, namespace, key, f"{owner}{namespace}{key}".encode())
        for owner, namespace, key in places:
            found = await records.get_record(owner, namespace, key)
            assert found is not None
            assert (found.namespace, found.key, found.value) == (namespace, key, f"{owner}{namespace}{key}".encode())
        assert [r.key for r in (await records.scan_records(ANN, "n")).items] == ["k", "kx", "l"]
        assert await records.delete_record(BEN, "n", "k") is True
        assert await records.get_record(ANN, "n", "k") is not None

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
    async def test_scan_pages_by_key(self, store: Store, limit: int) -> None:
        records = self.with_records(store)
        keys = ["a", "ab", "abc", "ab%", "ab_", "ab\uffff", "ab🐿", "aB", "b", "가"]
        for key in keys:
            await records.put_record(ANN, "n", key, b"")
        for prefix in ("", "a", "ab", "ab%", "ab_", "🐿", "ab\uffff", "가"):

            def scan(cursor: str | None, prefix: str = prefix) -> Awaitable[Page[Record]]:
                return records.scan_records(ANN, "n", prefix, limit=limit, cursor=cursor)

            found = await pages(scan)
            expected = sorted(k for k in keys if k.startswith(prefix))
            assert [r.key for page in found for r in page] == expected
            assert len(found) == max(1, -(-len(expected) // limit))

    async def test_scan_refuses_the_cursor_of_another(self, store: Store) -> None:
        records = self.with_records(store)
        for owner in (ANN, BEN):
            for key in "abc":
                await records.put_record(owner, "n", key, b"")
        cursor = (await records.scan_records(ANN, "n", limit=1)).next_cursor
        assert cursor is not None
        for owner, namespace, prefix in ((BEN, "n", ""), (ANN, "m", ""), (ANN, "n", "a")):
            with pytest.raises(InvalidInput, match="cursor"):
                await records.scan_records(owner, namespace, prefix, cursor=cursor)

    async def test_an_expired_record_is_not_there(self, store: Store) -> None:
        records = self.with_records(store)
        await records.put_record(ANN, "n", "k", b"1", expires_at=_PAST)
        assert await records.get_record(ANN, "n", "k") is None
        assert (await records.scan_records(ANN, "n")).items == []
        assert await records.delete_record(ANN, "n", "k") is False
        with pytest.raises(Conflict):
            await records.put_record(ANN, "n", "k", b"2", expect="0" * 16)
        await records.put_record(ANN, "n", "k", b"2", expect=None)
        await records.put_record(ANN, "n", "gone", b"1", expires_at=_PAST)
        await store.purge()
        assert [r.key for r in (await records.scan_records(ANN, "n")).items] == ["k"]

    async def test_delete_owner_deletes_the_records(self, store: Store) -> None:
        records = self.with_records(store)
        for owner in (ANN, BEN):
            await records.put_record(owner, "n", "k", b"1")
        assert await store.delete_owner(ANN) == 0
        assert await records.get_record(ANN, "n", "k") is None
        assert await records.get_record(BEN, "n", "k") is not None

    async def test_a_conversation_does_not_touch_records(self, store: Store) -> None:
        records = self.with_records(store)
        put = await records.put_record(ANN, "n", "c", b"1")
        await say(store, "a")
        await store.delete(ANN, "c")
        assert await records.get_record(ANN, "n", "c") == put

    async def test_of_many_at_once_one_is_first(self, store: Store) -> None:
        records = self.with_records(store)

        async def put(i: int) -> Record | None:
            try:
                return await records.put_record(ANN, "n", "k", str(i).encode(), expect=None)
            except Conflict:
                return None

        won = [r for r in await asyncio.gather(*(put(i) for i in range(16))) if r is not None]
        assert won == [await records.get_record(ANN, "n", "k")]

    async def test_no_update_is_lost(self, store: Store, open_more: OpenMore) -> None:
        stores = [self.with_records(s) for s in (store, await open_more())]
        await stores[0].put_record(ANN, "n", "k", b"0")

        async def count(i: int) -> None:
            records = stores[i % 2]
            while True:
                found = await records.get_record(ANN, "n", "k")
                assert found is not None
                try:
                    await records.put_record(ANN, "n", "k", str(int(found.value) + 1).encode(), expect=found.etag)
                except Conflict:
                    continue
                return

        await asyncio.gather(*(count(i) for i in range(8)))
        found = await stores[0].get_record(ANN, "n", "k")
        assert found is not None
        assert found.value == b"8"

    @pytest.mark.parametrize(
        ("field", "call"),
        [
            ("owner", {"owner": ""}),
            ("owner", {"owner": 1}),
            ("namespace", {"namespace": ""}),
            ("namespace", {"namespace": "x" * 65}),
            ("namespace", {"namespace": "a\nb"}),
            ("key", {"key": ""}),
            ("key", {"key": "a\x00"}),
            ("key", {"key": "\ud800"}),
            ("key", {"key": "x" * 513}),
            ("key", {"key": None}),
            ("value", {"value": "text"}),
            ("value", {"value": bytearray(b"x")}),
            ("value", {"value": None}),
            ("value", {"value": bytes((4 << 20) + 1)}),
            ("expect", {"expect": 1}),
            ("expect", {"expect": ""}),
            ("expires_at", {"expires_at": 1.5}),
            ("expires_at", {"expires_at": datetime(2030, 1, 1)}),  # noqa: DTZ001  # without a zone on purpose
        ],
    )
    async def test_bad_input_is_answered(self, store: Store, field: str, call: dict[str, Any]) -> None:
        records = self.with_records(store)
        arguments: dict[str, Any] = {"owner": ANN, "namespace": "n", "key": "k", "value": b"v"}
        with pytest.raises(InvalidInput) as caught:
            await records.put_record(**(arguments | call))
        assert caught.value.field == field
        assert str(caught.value).startswith(field)
        assert isinstance(caught.value, TooLarge) == ("at most" in str(caught.value))
        assert (await records.scan_records(ANN, "n")).items == []
