"""Schemas of PostgreSQL that earlier releases left behind open, are read and migrate; later ones are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.migrations.test_golden import read

import daram
from daram.errors import SchemaTooNew, StoreCorrupt, StoreError
from daram.store.postgres import schema
from daram.store.postgres.engine import PostgresStore
from daram.store.queries import Migration
from daram.testing.servers import PostgresServer

GOLDEN = sorted(
    (Path(__file__).parent / "golden").glob("postgres-*.sql"), key=lambda path: int(path.stem.rpartition("-")[2])
)
# The schema of the first release: there never was a database of an earlier one.
FIRST = 7


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a database of that time."""
    name = postgres_server.database()
    postgres_server.run(request.param.read_text("utf-8"), name)
    yield name
    postgres_server.drop(name)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> int:
    """A Daram that has two more steps, one of them for later; how many it has."""
    known = len(schema.MIGRATIONS)
    add = "ALTER TABLE conversation ADD COLUMN colour text; UPDATE conversation SET colour = 'red';"
    new = [
        Migration(known + 1, "colour", add, "a"),
        Migration(known + 2, "post_colour", "ALTER TABLE conversation DROP COLUMN colour", "b"),
    ]
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *new])
    return known + 2


def test_there_is_one_of_every_earlier_schema() -> None:
    assert [path.stem for path in GOLDEN] == [
        f"postgres-{n}" for n in range(FIRST, max(len(schema.MIGRATIONS), FIRST + 1))
    ]


async def test_a_schema_of_that_time_opens(golden: str, postgres_server: PostgresServer) -> None:
    async with daram.open(postgres_server.url_of(golden)) as store:
        await read(store)


async def test_it_migrates(golden: str, postgres_server: PostgresServer, later: int) -> None:
    have = int((await versions(postgres_server.url_of(golden)))[0])
    assert have < later
    async with daram.open(postgres_server.url_of(golden)) as store:
        await read(store)
    with postgres_server.connect(golden) as connection:
        assert connection.execute("SELECT DISTINCT colour FROM daram.conversation").fetchall() == [("red",)]
    store = PostgresStore(postgres_server.url_of(golden))
    assert await store.schema_versions() == (later - 1, later)
    assert await store.post_steps() == [later]
    assert await store.migrate() == [later]
    assert await store.schema_versions() == (later, later)
    assert (await store.get("ann", "branched")).title == "다람쥐"
    await store.close()


async def versions(url: str) -> tuple[int, int]:
    store = PostgresStore(url)
    try:
        return await store.schema_versions()
    finally:
        await store.close()


async def test_a_step_that_fails_changes_nothing(
    golden: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.url_of(golden)
    before = await versions(url)
    bad = Migration(len(schema.MIGRATIONS) + 1, "bad", "CREATE TABLE half (x text); CREATE TABLE half (x text)", "x")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, bad])
        with pytest.raises(StoreError, match="already exists"):
            await daram.open(url)
    assert await versions(url) == before
    async with daram.open(url) as store:
        await read(store)


async def test_a_newer_one_is_refused(golden: str, postgres_server: PostgresServer) -> None:
    number = len(schema.MIGRATIONS) + 1
    postgres_server.run(f"INSERT INTO daram.migration VALUES ({number}, 'post', 'later', 'x')", golden)
    with pytest.raises(SchemaTooNew, match="update Daram"):
        await daram.open(postgres_server.url_of(golden))


async def test_a_step_that_was_changed_afterwards_is_noticed(golden: str, postgres_server: PostgresServer) -> None:
    postgres_server.run("UPDATE daram.migration SET checksum = 'x' WHERE number = 3", golden)
    with pytest.raises(StoreCorrupt, match="migration 3"):
        await daram.open(postgres_server.url_of(golden))
