"""``check``, ``backup``, ``restore`` on the SQLite engine: what is wrong is found, what is kept comes back."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import apsw
import pytest
from tests.transfer.house import contents, furnish

import daram
from daram.errors import StoreCorrupt, StoreUnavailable
from daram.memory import Memory
from daram.store.memory import MemoryStore
from daram.store.sqlite.engine import SqliteStore
from daram.testing.suite.base import say
from daram.transfer.check import check


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    path = tmp_path / "daram.db"
    async with daram.open(f"sqlite:///{path}") as store:
        await furnish(store)
        await store.search("ann", "meanwhile")  # feeds the index
    return path


async def checked(path: Path, *, repair: bool = False) -> list[tuple[str, str, bool]]:
    async with daram.open(f"sqlite:///{path}") as store:
        _, problems = await check(store, repair=repair)
        return [(p.where, p.what, p.repaired) for p in problems]


async def test_a_store_that_is_whole_has_no_problem(file: Path) -> None:
    assert await checked(file) == []
    store = Memory(MemoryStore(), "")
    await furnish(store)
    report, problems = await check(store)
    assert (report.conversations, report.messages, problems) == (4, 262, [])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM message WHERE seq = 77", "message 77 is missing"),
        ("UPDATE message SET parent = 99 WHERE seq = 7", "message 7 follows 99"),
        ("UPDATE message SET question = 99 WHERE seq = 7", "message 7 answers 99"),
        ("UPDATE conversation SET last_seq = 251 WHERE id = 'long'", "last_seq is 251"),
        ("UPDATE conversation SET head = 3 WHERE id = 'long'", "branches end"),
        ("UPDATE conversation SET version = 1 WHERE owner = 'ann'", "version is 1"),
        ("DELETE FROM leaf WHERE used = (SELECT max(used) FROM leaf)", "branches end"),
    ],
)
async def test_what_is_wrong_with_a_conversation_is_found(file: Path, damage: str, said: str) -> None:
    apsw.Connection(str(file)).execute(damage)
    found = await checked(file, repair=True)
    assert any(said in what and not repaired for _, what, repaired in found), found


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ("DELETE FROM conversation WHERE id = 'long'", "table message"),
        ("INSERT INTO leaf VALUES (x'00', 1, 1)", "table leaf"),
        ("INSERT INTO answer VALUES (x'00', 'a', 1, 0, '', NULL, '', '', 0, 0, 0)", "table answer"),
        ("INSERT INTO doc (conversation, seq) VALUES (x'00', 1)", "table doc"),
        ("DELETE FROM doc WHERE id = 5", "the search index"),
        ("UPDATE message SET doc = NULL WHERE seq = 9", "the search index"),
        ("DELETE FROM search WHERE rowid = 5", "the search index"),
        ("INSERT INTO search (search) VALUES ('delete-all')", "the search index"),
        ("UPDATE message SET text = 'quite another' WHERE seq = 3", "the search index"),
    ],
)
async def test_what_can_be_put_right_is(file: Path, damage: str, where: str) -> None:
    apsw.Connection(str(file)).execute(damage)
    before = await checked(file)
    assert where in {place for place, _, _ in before}, before
    assert not any(repaired for *_, repaired in before)
    assert await checked(file) == before, "looking changed something"
    assert all(repaired for *_, repaired in await checked(file, repair=True))
    assert await checked(file) == []
    async with daram.open(f"sqlite:///{file}") as store:
        assert [hit.id for hit in await store.search("ann", "meanwhile")] == ["meanwhile"]
        if "another" in damage:
            assert await store.search("ben", "another") != []


async def test_a_backup_is_the_store_at_one_moment_while_it_is_in_use(file: Path, tmp_path: Path) -> None:
    async with SqliteStore(file) as store:
        done, began = asyncio.Event(), asyncio.Event()

        async def write() -> int:
            count = 0
            while not done.is_set():
                await say(store, f"w{count}", f"v{count}", id="busy")
                began.set()
                count += 1
            return count

        writing = asyncio.create_task(write())
        await began.wait()
        for n in range(5):
            await store.backup(str(tmp_path / f"b{n}.db"))
        done.set()
        assert await writing
    previous = -1
    for n in range(5):
        path = tmp_path / f"b{n}.db"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await checked(path) == []
        async with daram.open(f"sqlite:///{path}") as kept:
            last = (await kept.get("ann", "busy")).last_seq
        assert last % 2 == 0
        assert last >= previous
        previous = last


async def test_a_backup_is_one_file_and_replaces_nothing(file: Path, tmp_path: Path) -> None:
    async with SqliteStore(file) as store:
        await store.backup(str(tmp_path / "kept.db"))
        assert not list(tmp_path.glob("kept.db-*"))
        for there in ("kept.db", "daram.db", "missing/kept.db"):
            with pytest.raises(StoreUnavailable, match=there):
                await store.backup(str(tmp_path / there))
        assert len(await contents(Memory(store, ""))) == 6


async def test_a_restore_brings_everything_back_with_new_etags(file: Path, tmp_path: Path) -> None:
    async with SqliteStore(file) as store:
        before = await contents(Memory(store, ""))
        etag = (await store.get("ann", "c")).etag
        await store.backup(str(tmp_path / "kept.db"))
    new = SqliteStore(tmp_path / "new.db")
    assert await new.restore(str(tmp_path / "kept.db")) == 4
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600
    async with new:
        assert await contents(Memory(new, "")) == before
        assert (await new.get("ann", "c")).etag != etag
        assert [hit.id for hit in await new.search("ann", "meanwhile")] == ["meanwhile"]
    assert await checked(tmp_path / "new.db") == []
    assert {p.name.partition(".db")[0] for p in tmp_path.iterdir()} == {"daram", "kept", "new"}


async def test_a_restore_over_a_store_in_use(file: Path, tmp_path: Path) -> None:
    async with SqliteStore(file) as store, SqliteStore(file) as other:
        before = await contents(Memory(store, ""))
        await store.backup(str(tmp_path / "kept.db"))
        await say(store, "lost", id="long", owner="ben")
        seen = (await other.get("ben", "long")).etag
        assert await store.restore(str(tmp_path / "kept.db")) == 4
        for handle in (store, other):
            assert await contents(Memory(handle, "")) == before
            assert (await handle.get("ben", "long")).etag != seen
        await say(other, "goes on", id="long", owner="ben")
        assert [m.text for m in await store.tail("ben", "long", 2)] == ["m249", "goes on"]
        assert [hit.id for hit in await store.search("ben", "goes")] == ["goes on"]
    assert await checked(file) == []


@pytest.mark.parametrize("bad", ["missing.db", "text.db", "other.db", "empty.db", "damaged.db", "daram.db"])
async def test_a_bad_backup_changes_nothing(file: Path, tmp_path: Path, bad: str) -> None:
    async with SqliteStore(file) as store:
        await store.backup(str(tmp_path / "damaged.db"))
        before = await contents(Memory(store, ""))
        (tmp_path / "text.db").write_text("no database" * 1000)
        apsw.Connection(str(tmp_path / "other.db")).execute("CREATE TABLE t (x)")
        (tmp_path / "empty.db").touch()
        with (tmp_path / "damaged.db").open("r+b") as damaged:
            damaged.seek(3 * 4096)
            damaged.write(b"\xaa" * 20_000)
        with pytest.raises((StoreCorrupt, StoreUnavailable)):
            await store.restore(str(tmp_path / bad))
        assert await contents(Memory(store, "")) == before
    assert not list(tmp_path.glob("*restoring*"))
