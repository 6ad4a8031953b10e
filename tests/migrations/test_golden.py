"""Databases that earlier schemas left behind open, read and migrate; one of a later schema is refused, untouched."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import apsw
import pytest

import daram
from daram.errors import Gone, SchemaTooNew, StoreCorrupt
from daram.memory import Memory
from daram.model import Part
from daram.store.queries import Migration
from daram.store.sqlite import care, engine, schema
from daram.store.sqlite.engine import SqliteStore
from daram.transfer.check import check

GOLDEN = sorted((Path(__file__).parent / "golden").glob("sqlite-*.sqlite3"))
SECOND = "ALTER TABLE conversation ADD COLUMN colour TEXT; UPDATE conversation SET colour = 'red';"


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(request.param, tmp_path / "old.db"))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[Migration]:
    """A Daram that has a second migration."""
    new = [*schema.MIGRATIONS, Migration(2, "colour", SECOND, hashlib.sha256(SECOND.encode()).hexdigest())]
    for module in (schema, engine, care):
        monkeypatch.setattr(module, "MIGRATIONS", new)
    return new


async def read_everything(path: Path) -> None:
    async with daram.open(f"sqlite:///{path}") as store:
        await read(store)


async def read(store: Memory) -> None:
    """What golden/make.py wrote is there, and life goes on."""
    value = await store.get("ann", "branched")
    assert (value.title, value.metadata, value.head, value.last_seq) == ("다람쥐", {"k": "v"}, "l", 5)
    assert [m.id for m in await store.tail("ann", "branched")] == ["q2", "l"]
    rich = await store.message("ann", "branched", "a1")
    assert rich.parts == (Part(type="image", id="p", data={"url": "x"}),)
    assert [m.id for m in await store.branches("ann", "branched", "q1")] == ["q1", "q2"]
    with pytest.raises(Gone):
        await store.append("ann", "branched", [daram.user("secret", id="gone")])
    assert [hit.id for hit in await store.search("ann", "question")] == ["q1"]
    assert (await store.get_record("ben", "n", "k")).value == b"\x00\xff"  # type: ignore[union-attr]
    await store.recover()
    answer = await store.message("ann", "dead", "a")
    assert (answer.text, answer.status) == ("half of it", "incomplete")
    assert (await store.append("ben", "straight", [daram.user("on")])).messages[0].seq == 31
    await store.search("ben", "on")
    assert (await check(store))[1] == []


def test_there_is_one_of_every_earlier_schema() -> None:
    assert [path.stem for path in GOLDEN] == [f"sqlite-{n}" for n in range(1, max(len(schema.MIGRATIONS), 2))]


async def test_a_database_of_that_time_opens(golden: Path) -> None:
    await read_everything(golden)


@pytest.mark.usefixtures("later")
async def test_it_migrates(golden: Path) -> None:
    store = SqliteStore(golden)
    assert await store.schema_versions() == (1, 2)
    await read_everything(golden)
    assert await store.schema_versions() == (2, 2)
    await store.close()
    db = apsw.Connection(str(golden))
    assert set(db.execute("SELECT colour FROM conversation")) == {("red",)}
    assert [row[0] for row in db.execute("SELECT number FROM migration ORDER BY number")] == [1, 2]


async def test_a_migration_that_fails_changes_nothing(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = golden.read_bytes()
    bad = [*schema.MIGRATIONS, Migration(2, "bad", "CREATE TABLE half (x); CREATE TABLE half (x);", "0")]
    for module in (schema, engine, care):
        monkeypatch.setattr(module, "MIGRATIONS", bad)
    store = SqliteStore(golden)
    with pytest.raises(daram.StoreError):
        await store.describe()
    await store.close()
    db = apsw.Connection(str(golden))
    assert db.pragma("user_version") == 1
    assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").get == 0
    db.close()
    assert len(golden.read_bytes()) == len(before)
    monkeypatch.undo()
    await read_everything(golden)


async def test_a_newer_one_is_refused_and_not_touched(golden: Path) -> None:
    db = apsw.Connection(str(golden))
    db.pragma("user_version", len(schema.MIGRATIONS) + 1)
    db.close()
    before = golden.read_bytes()
    store = SqliteStore(golden)
    with pytest.raises(SchemaTooNew, match="update Daram"):
        await store.describe()
    with pytest.raises(SchemaTooNew):
        await store.schema_versions()
    await store.close()
    assert golden.read_bytes() == before


async def test_a_newer_backup_is_not_restored(golden: Path, tmp_path: Path) -> None:
    db = apsw.Connection(str(golden))
    db.pragma("user_version", len(schema.MIGRATIONS) + 1)
    db.close()
    store = SqliteStore(tmp_path / "new.db")
    with pytest.raises(SchemaTooNew):
        await store.restore(str(golden))
    await store.close()
    assert not (tmp_path / "new.db").exists()


@pytest.mark.usefixtures("later")
async def test_an_old_backup_is_restored_and_migrates(golden: Path, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new.db")
    assert await store.restore(str(golden)) == 3
    await store.close()
    await read_everything(tmp_path / "new.db")


async def test_a_migration_that_was_changed_afterwards_is_noticed(golden: Path) -> None:
    db = apsw.Connection(str(golden))
    db.execute("UPDATE migration SET checksum = 'x'")
    db.close()
    store = SqliteStore(golden)
    with pytest.raises(StoreCorrupt, match="migration 1"):
        await store.describe()
    await store.close()
