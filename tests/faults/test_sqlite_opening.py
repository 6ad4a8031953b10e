"""Opening what is not there, not ours, not readable, too new, in use elsewhere: typed errors that say what to do."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path

import apsw
import pytest
from tests.faults import children
from tests.faults.checks import check_file

import daram
from daram.store.sqlite.engine import SqliteStore

OWNER = "owner"


async def made(path: Path, count: int = 1) -> list[str]:
    """A database with ``count`` messages in the conversation "c"; their ids."""
    async with SqliteStore(path) as store:
        for i in range(count):
            await store.append(OWNER, "c", [daram.user(f"message {i}")], create=True)
        return [message.id for message in await store.tail(OWNER, "c", 1000)]


async def refused(path: Path, error: type[daram.DaramError], text: str, **options: object) -> None:
    """Opening fails like that, says it again the second time, and can be closed."""
    store = SqliteStore(path, **options)  # type: ignore[arg-type]  # of several tests
    for _ in range(2):
        with pytest.raises(error, match=text) as caught:
            await store.append(OWNER, "c", [daram.user("x")], create=True)
        assert str(path) in str(caught.value)
    await store.close()


# --- what is not ours -----------------------------------------------------------------------------------------------


async def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("dear diary, " * 1000)
    await refused(path, daram.StoreCorrupt, "no SQLite database")
    assert path.read_text() == "dear diary, " * 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.db"]


async def test_the_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = path.read_bytes()
    await refused(path, daram.StoreCorrupt, "not Daram's")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.db"]


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_newer_schema(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "daram.db"
    await made(path)
    other = apsw.Connection(str(path))
    other.pragma("user_version", 999)
    other.close()
    before = path.read_bytes()
    await refused(path, daram.SchemaTooNew, "schema 999.*update Daram", read_only=read_only)
    assert path.read_bytes() == before


async def test_a_migration_that_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    await made(path)
    other = apsw.Connection(str(path))
    other.execute("UPDATE migration SET checksum = 'x' WHERE number = 1")
    other.close()
    await refused(path, daram.StoreCorrupt, "migration 1")


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    path.touch()
    await made(path)
    check_file(path)


# --- what is not there ----------------------------------------------------------------------------------------------


async def test_a_missing_directory(tmp_path: Path) -> None:
    await refused(tmp_path / "nowhere" / "daram.db", daram.StoreUnavailable, "directory does not exist; make it")
    assert not (tmp_path / "nowhere").exists()


async def test_a_directory_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "daram.db").mkdir()
    await refused(tmp_path / "daram.db", daram.StoreUnavailable, "cannot be opened")


async def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await refused(tmp_path / "file" / "daram.db", daram.StoreUnavailable, "directory")


async def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    await refused(tmp_path / ("x" * 300 + ".db"), daram.StoreUnavailable, "cannot be")


async def test_a_read_only_store_is_not_made(tmp_path: Path) -> None:
    await refused(tmp_path / "daram.db", daram.StoreUnavailable, "cannot be opened", read_only=True)
    assert list(tmp_path.iterdir()) == []


async def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "daram.db") as store:
        await store.append(OWNER, "c", [daram.user("secret")], create=True)
        for path in tmp_path.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, path


# --- read only ------------------------------------------------------------------------------------------------------


async def test_read_only(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    ids = await made(path, 3)
    async with SqliteStore(path, read_only=True) as store:
        assert [message.id for message in await store.tail(OWNER, "c")] == ids
        assert [hit.id for hit in await store.search(OWNER, "message 1")]
        for call in (
            store.append(OWNER, "c", [daram.user("x")]),
            store.create(OWNER, id="d"),
            store.delete(OWNER, "c"),
            store.put_record(OWNER, "n", "k", b""),
            store.purge(),
        ):
            with pytest.raises(daram.StoreReadOnly, match="read-only"):
                await call
        assert await store.recover() == []


AS_NOBODY = """
os.setgid(65534); os.setuid(65534)
async def main():
    store = SqliteStore(path, read_only=sys.argv[2] == "read_only")
    try:
        await store.append("owner", "c", [daram.user("x")], create=True)
    except daram.DaramError as error:
        print(type(error).__name__, error)
    else:
        print("done")
    try:
        print(len(await store.tail("owner", "c")))
    except daram.DaramError as error:
        print(type(error).__name__)
    await store.close()
asyncio.run(main())
"""


class TestPermissions:
    """What another user may not do. Root may do everything, so root becomes nobody for this (in a child)."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        """A directory that nobody can reach."""
        for path in (tmp_path, *tmp_path.parents[:2]):
            path.chmod(0o755)
        home = tmp_path / "home"
        home.mkdir()
        return home

    def as_nobody(self, path: Path, mode: str = "") -> list[str]:
        code = AS_NOBODY if os.geteuid() == 0 else AS_NOBODY.replace("os.setgid(65534); os.setuid(65534)", "")
        return children.run(code, path, mode).splitlines()

    async def test_a_file_that_may_not_be_written(self, home: Path) -> None:
        path = home / "daram.db"
        await made(path)
        path.chmod(0o444)
        home.chmod(0o755 if os.geteuid() == 0 else 0o555)
        said, _ = self.as_nobody(path)
        home.chmod(0o755)
        assert said.startswith(("StoreReadOnly", "StoreUnavailable"))
        assert str(path) in said

    async def test_a_file_that_may_not_be_read(self, home: Path) -> None:
        path = home / "daram.db"
        await made(path)
        path.chmod(0)
        said, _ = self.as_nobody(path)
        assert said.startswith("StoreUnavailable")
        assert "permission" in said

    async def test_a_directory_that_may_not_be_entered(self, home: Path) -> None:
        await made(home / "daram.db")
        home.chmod(0)
        said, _ = self.as_nobody(home / "daram.db")
        home.chmod(0o755)
        assert said.startswith("StoreUnavailable")
        assert "permission" in said

    async def test_a_directory_that_may_not_be_written(self, home: Path) -> None:
        home.chmod(0o555)
        said, _ = self.as_nobody(home / "daram.db")
        home.chmod(0o755)
        assert said.startswith("StoreUnavailable")
        assert "permission" in said


# --- damage ---------------------------------------------------------------------------------------------------------


async def test_a_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    await made(path, 300)
    data = bytearray(path.read_bytes())
    data[4096 * 3 :] = os.urandom(len(data) - 4096 * 3)
    path.write_bytes(data)
    async with SqliteStore(path) as store:
        for call in (
            lambda: store.messages(OWNER, "c", limit=1000),
            lambda: store.append(OWNER, "c", [daram.user("x")]),
            lambda: store.search(OWNER, "message"),
        ):
            with pytest.raises(daram.StoreCorrupt, match="damaged.*backup"):
                await asyncio.wait_for(call(), 60)


async def test_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    await made(path, 300)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    store = SqliteStore(path)
    with pytest.raises(daram.StoreCorrupt):
        await store.messages(OWNER, "c", limit=1000)
    await store.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_deleted_or_replaced_under_us(tmp_path: Path, replaced: bool) -> None:
    """SQLite would go on writing into the deleted file: acknowledged, and gone with the process."""
    path = tmp_path / "daram.db"
    await made(path, 3)
    if replaced:
        shutil.copy(path, tmp_path / "copy")
    async with SqliteStore(path) as store:
        await store.append(OWNER, "c", [daram.user("before")])
        path.unlink()
        if replaced:
            (tmp_path / "copy").rename(path)
        for _ in range(2):
            with pytest.raises(daram.StoreUnavailable, match="deleted or replaced"):
                await store.append(OWNER, "c", [daram.user("lost?")])
            with pytest.raises(daram.StoreUnavailable, match="deleted or replaced"):
                await store.tail(OWNER, "c")
            with pytest.raises(daram.StoreUnavailable, match="deleted or replaced"):
                await store.describe()
    assert path.exists() == replaced


# --- others on the same file ----------------------------------------------------------------------------------------

HOLD = """
db = apsw.Connection(str(path))
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
db.close()
"""


async def test_another_process_holds_the_database(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    await made(path)
    async with SqliteStore(path, busy_timeout=0.2) as store:
        await store.append(OWNER, "c", [daram.user("before")])
        with children.start(HOLD, path) as holder:
            assert holder.stdout is not None and holder.stdin is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(daram.StoreBusy, match="another process.*try again"):
                await store.append(OWNER, "c", [daram.user("x")])
            assert len(await store.tail(OWNER, "c")) == 2  # reading waits for nobody
            holder.stdin.write("\n")
            holder.stdin.flush()
            holder.wait(60)
        await store.append(OWNER, "c", [daram.user("after")])
        assert [m.text for m in await store.tail(OWNER, "c")] == ["message 0", "before", "after"]


OPEN = """
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with SqliteStore(path) as store:
        await store.append("owner", sys.argv[2], [daram.user("hello")], create=True)
asyncio.run(main())
"""


async def test_many_processes_make_the_same_new_file(tmp_path: Path) -> None:
    for round in range(3):
        path = tmp_path / f"daram{round}.db"
        processes = [children.start(OPEN, path, f"c{i}") for i in range(6)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            with process:
                assert process.wait(60) == 0
        async with SqliteStore(path) as store:
            assert len((await store.list(OWNER)).items) == 6
        check_file(path)


CAN_LOCK = """
import fcntl
# The bytes by which a connection shows that it uses the database: https://sqlite.org/src/file/src/os.h
with open(path, "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000000 + 2)
    except OSError:
        print("locked")
    else:
        print("free")
"""


async def test_a_second_store_in_one_process_leaves_the_locks_of_the_first(tmp_path: Path) -> None:
    """A process that closes any descriptor of a file loses all its POSIX locks on it (sqlite.org/howtocorrupt.html)."""
    path = tmp_path / "daram.db"
    async with SqliteStore(path) as first:
        await first.append(OWNER, "c", [daram.user("1")], create=True)
        assert children.run(CAN_LOCK, path) == "locked\n"
        async with SqliteStore(path) as second:
            await second.append(OWNER, "c", [daram.user("2")])
            assert children.run(CAN_LOCK, path) == "locked\n"
        assert children.run(CAN_LOCK, path) == "locked\n"
        await first.append(OWNER, "c", [daram.user("3")])
        assert len(await first.tail(OWNER, "c")) == 3


async def test_two_stores_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    async with SqliteStore(path) as first, SqliteStore(path) as second:

        async def write(store: SqliteStore, name: str) -> None:
            for i in range(50):
                await store.append(OWNER, "c", [daram.user(f"{name}{i}")], create=True)

        await asyncio.gather(write(first, "a"), write(second, "b"))
        assert await first.tail(OWNER, "c", 200) == await second.tail(OWNER, "c", 200)
        conversation = await first.get(OWNER, "c")
        assert conversation.version == conversation.last_seq == 100
    check_file(path)
