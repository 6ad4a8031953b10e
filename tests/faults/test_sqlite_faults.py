"""The SQLite engine on disks that are full or broken: typed errors, nothing lost, nobody left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import apsw
import pytest
from tests.faults.checks import check_file
from tests.faults.faulty_disk import FaultyDisk

import daram
from daram.store.sqlite.engine import SqliteStore

OWNER = "owner"


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    made = FaultyDisk()
    yield made
    made.unregister()


@pytest.fixture
async def store(tmp_path: Path, disk: FaultyDisk) -> AsyncIterator[SqliteStore]:
    """A store on the faulty disk with a message in the conversation "c"."""
    made = SqliteStore(tmp_path / "daram.db", vfs=disk.name)
    await made.append(OWNER, "c", [daram.user("first")], create=True)
    yield made
    await made.close()
    check_file(tmp_path / "daram.db")


def full() -> Exception:
    return apsw.FullError("no space left")


def broken() -> Exception:
    return apsw.IOError("the disk is broken")


async def texts(store: SqliteStore, id: str = "c") -> list[str]:
    return [message.text for message in await store.tail(OWNER, id, 100)]


# --- a full disk ----------------------------------------------------------------------------------------------------


async def test_a_full_disk_refuses_and_keeps_what_was_stored(store: SqliteStore, disk: FaultyDisk) -> None:
    message = daram.user("second")
    with disk.failing("write", "log", full):
        with pytest.raises(daram.StoreFull, match="disk is full"):
            await store.append(OWNER, "c", [message])
        with pytest.raises(daram.StoreFull):
            await store.append(OWNER, "new", [daram.user("x")], create=True)
        assert await texts(store) == ["first"]
    await store.append(OWNER, "c", [message])
    assert await texts(store) == ["first", "second"]


async def test_a_disk_that_fills_up_within_a_write(store: SqliteStore, disk: FaultyDisk) -> None:
    """At every write of the transaction in turn: each time nothing of it is stored, and the next one goes well."""
    for after in range(100):
        batch = [daram.user(f"{after}.{i} " + "long " * 1000) for i in range(5)]
        with disk.failing("write", "log", full, after=after, times=1):
            try:
                await store.append(OWNER, "c", batch)
            except daram.StoreFull:
                assert disk.failures == 1
            else:
                assert disk.failures == 0
                break
        assert len(await texts(store)) == 1
        await store.append(OWNER, "c", batch)  # room was made: the same ids, stored once
        conversation = await store.get(OWNER, "c")
        assert conversation.last_seq == 6
        await store.delete(OWNER, "c")
        await store.create(OWNER, id="c")
        await store.append(OWNER, "c", [daram.user("first")])
    else:
        pytest.fail("the transaction has more writes than this test tries")
    assert after > 10


async def test_a_transaction_larger_than_the_cache_meets_a_full_disk(store: SqliteStore, disk: FaultyDisk) -> None:
    """Then SQLite writes before the commit, in the middle of the batch, and may end the transaction by itself."""
    big = [daram.user("x" * 1_000_000) for _ in range(8)]
    small = [daram.user(f"{i}") for i in range(4)]
    with disk.failing("write", "log", full, after=30):
        answers = await asyncio.gather(
            store.append(OWNER, "c", small[:1]),
            store.append(OWNER, "big", big, create=True),
            store.append(OWNER, "c", small[1:2]),
            return_exceptions=True,
        )
        assert any(isinstance(answer, daram.StoreFull) for answer in answers)
        assert all(isinstance(answer, daram.Appended | daram.StoreFull) for answer in answers)
    await store.append(OWNER, "big", big, create=True)
    stored = await texts(store)
    assert [text in stored for text in ("0", "1")] == [isinstance(answers[i], daram.Appended) for i in (0, 2)]
    assert len(await texts(store, "big")) == 8


async def test_a_quota_on_the_pages_of_the_database(tmp_path: Path) -> None:
    """The same, by SQLite itself: PRAGMA max_page_count."""
    store = SqliteStore(tmp_path / "daram.db")
    prepare = store._connections._prepare_for_writing

    def narrow(connection: apsw.Connection) -> None:
        prepare(connection)
        connection.pragma("max_page_count", 60)

    store._connections._prepare_for_writing = narrow  # type: ignore[method-assign]
    async with store:
        count = 0
        try:
            while count < 100:
                await store.append(OWNER, "c", [daram.user(f"{count} " + "x" * 3000)], create=True)
                count += 1
        except daram.StoreFull:
            pass
        assert 10 < count < 60
        assert len(await texts(store)) == count
        # Room can still be made.
        await store.delete(OWNER, "c")
        await store.append(OWNER, "d", [daram.user("after")], create=True)
    check_file(tmp_path / "daram.db")


async def test_many_writers_on_a_full_disk_are_all_answered(store: SqliteStore, disk: FaultyDisk) -> None:
    with disk.failing("write", "log", full, after=20):
        calls = [store.append(OWNER, f"c{i}", [daram.user("x" * 5000)], create=True) for i in range(200)]
        answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert refused
    assert all(isinstance(answer, daram.StoreFull) for answer in refused)
    for i, answer in enumerate(answers):
        if isinstance(answer, daram.Appended):
            assert len(await texts(store, f"c{i}")) == 1
        else:
            with pytest.raises(daram.NotFound):
                await store.get(OWNER, f"c{i}")


async def test_the_search_index_waits_for_room(store: SqliteStore, disk: FaultyDisk) -> None:
    """What was appended is kept although it could not be indexed, and is found as soon as there is room."""
    with disk.failing("write", "log", full):
        await asyncio.sleep(1.2)  # the writer tries to feed the index in the silence
    await store.append(OWNER, "c", [daram.user("second needle")])
    assert [hit.text for hit in await store.search(OWNER, "needle")] == ["second needle"]


@pytest.mark.parametrize("error", [full, broken])
async def test_a_log_that_cannot_be_brought_into_the_database(
    store: SqliteStore, disk: FaultyDisk, error: Callable[[], Exception]
) -> None:
    """The disk has room for the log but not for the database: what is committed is kept in the log."""
    with disk.failing("write", "database", error):
        for i in range(14):  # a log of 8 MB is brought into the database by the commit that fills it
            await store.append(OWNER, "big", [daram.user(f"{i} " + "x" * 900_000)], create=True)
        assert disk.failures > 0
        assert len(await texts(store, "big")) == 14
    await store.append(OWNER, "c", [daram.user("second")])
    assert len(await texts(store, "big")) == 14
    assert await texts(store) == ["first", "second"]


# --- I/O errors -----------------------------------------------------------------------------------------------------


async def test_a_failing_sync_leaves_the_outcome_open(store: SqliteStore, disk: FaultyDisk) -> None:
    message = daram.user("second")
    with disk.failing("sync", "log", broken, times=1):
        with pytest.raises(daram.OutcomeUnknown, match="same message ids"):
            await store.append(OWNER, "c", [message])
        assert disk.failures == 1
    done = await store.append(
        OWNER, "c", [message], window=10
    )  # with the same ids it is stored once, whatever happened
    assert [m.text for m in done.tail] == ["first", "second"]
    assert await texts(store) == ["first", "second"]
    assert (await store.get(OWNER, "c")).last_seq == 2


async def test_every_waiter_of_a_failed_commit_is_told(store: SqliteStore, disk: FaultyDisk) -> None:
    messages = [daram.user(f"{i}") for i in range(50)]
    with disk.failing("sync", "log", broken):
        calls = [store.append(OWNER, "c", [message]) for message in messages]
        answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        assert all(isinstance(answer, daram.OutcomeUnknown | daram.StoreUnavailable) for answer in answers), answers
    await asyncio.gather(*(store.append(OWNER, "c", [message]) for message in messages))
    assert sorted(await texts(store)) == sorted(["first", *(message.text for message in messages)])


async def test_a_broken_disk_while_writing(store: SqliteStore, disk: FaultyDisk) -> None:
    message = daram.user("second")
    for after in range(100):
        with disk.failing("write", "log", broken, after=after, times=1):
            try:
                await store.append(OWNER, "c", [message])
            except (daram.OutcomeUnknown, daram.StoreUnavailable):
                assert disk.failures == 1
                assert (await texts(store)) in (["first"], ["first", "second"])
            else:
                break
    assert 3 < after < 99
    assert await texts(store) == ["first", "second"]


async def test_a_disk_that_cannot_be_read(store: SqliteStore, disk: FaultyDisk, tmp_path: Path) -> None:
    await store.append(OWNER, "long", [daram.user("x" * 10_000) for _ in range(50)], create=True)
    await store.close()
    async with SqliteStore(tmp_path / "daram.db", vfs=disk.name) as second:
        await second.get(OWNER, "c")
        with disk.failing("read", "database", broken):
            with pytest.raises(daram.StoreUnavailable, match="broken"):
                await second.tail(OWNER, "long", 50)
            with pytest.raises(daram.StoreUnavailable, match="broken"):
                await second.delete(OWNER, "long")
        assert await texts(second) == ["first"]
        assert len(await texts(second, "long")) == 50
        await second.delete(OWNER, "long")
