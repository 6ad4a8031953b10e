"""Opening a database: the schema is made or found; another program's, a newer or a changed one is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from daram.cli.app import cli
from daram.errors import (
    ConfigError,
    MissingExtra,
    SchemaTooNew,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from daram.model import user
from daram.store import url as urls
from daram.store.postgres import schema
from daram.store.postgres.engine import PostgresStore
from daram.store.queries import Migration, load_migrations
from daram.store.url import store_from_url
from daram.testing.servers import PostgresServer

OWNER = "ann"


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of an empty database."""
    name = postgres_server.database()
    yield name
    postgres_server.drop(name)


@pytest.fixture
def url(postgres_server: PostgresServer, empty: str) -> str:
    return postgres_server.url_of(empty)


async def opens(url: str, *, id: str = "c", **options: object) -> None:
    async with PostgresStore(url, **options) as store:  # type: ignore[arg-type]  # of several tests
        await store.append(OWNER, id, [user("x")], create=True)


async def test_many_processes_open_an_empty_database_at_once(
    url: str, postgres_server: PostgresServer, empty: str
) -> None:
    stores = [PostgresStore(url) for _ in range(8)]
    await asyncio.gather(*(store.append(OWNER, "c", [user("x")], create=True) for store in stores))
    for store in stores:
        await store.close()
    with postgres_server.connect(empty) as connection:
        applied = connection.execute("SELECT number, phase, checksum FROM daram.migration ORDER BY number").fetchall()
    assert [(n, p, c) for n, p, c in applied] == [(m.number, "pre", m.checksum) for m in schema.MIGRATIONS]
    async with PostgresStore(url) as store:
        assert (await store.get(OWNER, "c")).version == 8


async def test_schemas_are_apart(url: str) -> None:
    odd = 'Odd "schema"; --'
    for name in ("daram", odd, "other"):
        await opens(url, schema=name)
    async with PostgresStore(url, schema=odd) as store:
        assert (await store.get(OWNER, "c")).version == 1
        assert (await store.search(OWNER, "x"))[0].text == "x"
        assert (await store.describe())["schema"].startswith(odd)


async def test_the_schema_of_another_program(url: str, postgres_server: PostgresServer, empty: str) -> None:
    for made in ("CREATE TABLE daram.recipes (name text)", "CREATE TABLE daram.migration (number integer)"):
        postgres_server.run("CREATE SCHEMA daram", empty)
        postgres_server.run(made, empty)
        store = PostgresStore(url)
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match="other tables"):
                await store.append(OWNER, "c", [user("x")], create=True)
        await store.close()
        with postgres_server.connect(empty) as connection:
            count = connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'daram'::regnamespace")
            assert count.fetchone() == (1,)
        await opens(url, schema="mine")
        postgres_server.run("DROP SCHEMA daram CASCADE", empty)
        postgres_server.run("DROP SCHEMA mine CASCADE", empty)


async def test_a_schema_that_was_made_for_us(url: str, postgres_server: PostgresServer, empty: str) -> None:
    """By an administrator, for a user who may not make schemas."""
    postgres_server.run("CREATE ROLE app LOGIN")
    try:
        theirs = url.replace("daram@", "app@")
        with pytest.raises(StoreReadOnly, match="may make them"):
            await opens(theirs)
        postgres_server.run("CREATE SCHEMA daram AUTHORIZATION app", empty)
        await opens(theirs)
        postgres_server.run("CREATE ROLE reader LOGIN")
        postgres_server.run("GRANT USAGE ON SCHEMA daram TO reader", empty)
        postgres_server.run("GRANT SELECT ON ALL TABLES IN SCHEMA daram TO reader", empty)
        async with PostgresStore(url.replace("daram@", "reader@")) as store:
            assert [m.text for m in await store.tail(OWNER, "c")] == ["x"]
            with pytest.raises(StoreReadOnly):
                await store.append(OWNER, "c", [user("y")])
    finally:
        postgres_server.drop(empty)
        for role in ("app", "reader"):
            postgres_server.run(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


async def test_a_user_who_may_only_work_in_it(
    url: str, postgres_server: PostgresServer, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grants of docs/how-to/postgresql.md: one role makes the schema, another has the rights for every day."""
    postgres_server.run("CREATE ROLE maker LOGIN")
    postgres_server.run("CREATE ROLE worker LOGIN")
    try:
        postgres_server.run("CREATE SCHEMA daram AUTHORIZATION maker", empty)
        async with PostgresStore(url.replace("daram@", "maker@")) as store:
            await store.describe()
        postgres_server.run("GRANT USAGE ON SCHEMA daram TO worker", empty)
        postgres_server.run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA daram TO worker", empty)
        postgres_server.run(
            "ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA daram"
            " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO worker",
            empty,
        )
        async with PostgresStore(url.replace("daram@", "worker@")) as store:
            await store.append(OWNER, "c", [user("x")], create=True)
            turn = await store.begin_turn(OWNER, "c", [user("y")], answer_id="a", window=20)
            assert turn.answer is not None
            await store.checkpoint(OWNER, "c", "a", turn.answer.token, "half")
            await store.finish_turn(OWNER, "c", "a", turn.answer.token, text="whole")
            assert [m.text for m in await store.tail(OWNER, "c")] == ["x", "y", "whole"]
            assert (await store.search(OWNER, "whole"))[0].id == "a"
            await store.put_record(OWNER, "n", "k", b"v")
            assert await store.delete_owner(OWNER) == 1
            assert await store.purge() == 0
        # A newer Daram adds a table.
        step = Migration(len(schema.MIGRATIONS) + 1, "nut", "CREATE TABLE nut (name text)", "x")
        monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, step])
        with pytest.raises(StoreReadOnly, match="up to date"):
            await opens(url.replace("daram@", "worker@"), id="later")
        await opens(url.replace("daram@", "maker@"), id="later")
        await opens(url.replace("daram@", "worker@"), id="later")
        with psycopg.connect(url.replace("daram@", "worker@")) as connection:
            connection.execute("INSERT INTO daram.nut VALUES ('acorn')")
    finally:
        postgres_server.drop(empty)
        for role in ("maker", "worker"):
            postgres_server.run(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


async def test_a_database_in_another_encoding(postgres_server: PostgresServer) -> None:
    postgres_server.run("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreUnavailable, match="UTF8"):
        await opens(postgres_server.url_of("latin"))
    postgres_server.drop("latin")


async def test_a_changed_migration(url: str, postgres_server: PostgresServer, empty: str) -> None:
    await opens(url)
    postgres_server.run("UPDATE daram.migration SET checksum = 'x' WHERE number = 2", empty)
    with pytest.raises(StoreCorrupt, match="migration 2"):
        await opens(url)


@pytest.mark.parametrize("phase", ["pre", "post"])
async def test_a_newer_schema(url: str, postgres_server: PostgresServer, empty: str, phase: str) -> None:
    """What a newer Daram only added does not stop this one; where it took something away, this one stops at once."""
    await opens(url)
    postgres_server.run(f"INSERT INTO daram.migration VALUES (99, '{phase}', 'later', 'x')", empty)
    if phase == "pre":
        await opens(url)
    else:
        with pytest.raises(SchemaTooNew, match="99"):
            await opens(url)


async def test_pre_and_post_steps(url: str, postgres_server: PostgresServer, empty: str) -> None:
    """An upgrade without a pause: the new release adds, the old one goes on, and at last what is old is taken away."""
    await opens(url)
    old = PostgresStore(url)
    known = len(schema.MIGRATIONS)
    steps = [
        *schema.MIGRATIONS,
        Migration(known + 1, "pre_colour", "ALTER TABLE conversation ADD COLUMN colour text", "a"),
        Migration(known + 2, "post_colour", "ALTER TABLE conversation ALTER COLUMN colour SET DEFAULT 'red'", "b"),
    ]
    assert await schema.migrate(old.pool, "daram", migrations=steps) == [known + 1]
    assert await schema.migrate(old.pool, "daram", migrations=steps) == []
    await old.append(OWNER, "c", [user("while both run")])
    await opens(url)
    assert await schema.migrate(old.pool, "daram", post=True, migrations=steps) == [known + 2]
    assert await schema.migrate(old.pool, "daram", post=True, migrations=steps) == []
    with pytest.raises(SchemaTooNew):
        await opens(url)
    await old.close()


async def test_schema_versions_change_nothing(url: str, postgres_server: PostgresServer, empty: str) -> None:
    known = len(schema.MIGRATIONS)
    store = PostgresStore(url)
    assert await store.schema_versions() == (0, known)
    assert await store.post_steps() == []
    with postgres_server.connect(empty) as connection:
        assert connection.execute("SELECT to_regnamespace('daram')").fetchone() == (None,)
    postgres_server.run("CREATE SCHEMA daram", empty)
    assert await store.schema_versions() == (0, known)
    await store.describe()
    assert await store.schema_versions() == (known, known)
    await store.close()
    with pytest.raises(StoreClosed):
        await store.schema_versions()


async def test_schema_versions_of_what_is_not_ours(url: str, postgres_server: PostgresServer, empty: str) -> None:
    async def refused(kind: type[StoreError], match: str) -> None:
        store = PostgresStore(url)
        for call in (store.schema_versions, store.post_steps, store.migrate, store.describe):
            with pytest.raises(kind, match=match):
                await call()
        await store.close()

    await opens(url)
    postgres_server.run("INSERT INTO daram.migration VALUES (99, 'pre', 'later', 'x')", empty)
    async with PostgresStore(url) as store:
        assert await store.schema_versions() == (99, len(schema.MIGRATIONS))
        assert await store.migrate() == []
    postgres_server.run("UPDATE daram.migration SET phase = 'post' WHERE number = 99", empty)
    await refused(SchemaTooNew, "update Daram")
    postgres_server.run("DELETE FROM daram.migration WHERE number = 99", empty)
    postgres_server.run("UPDATE daram.migration SET checksum = 'x' WHERE number = 1", empty)
    await refused(StoreCorrupt, "migration 1")
    postgres_server.run("COMMENT ON TABLE daram.migration IS 'of another program'", empty)
    await refused(StoreCorrupt, "other tables")


def later_steps(monkeypatch: pytest.MonkeyPatch) -> int:
    """A Daram with a pre step, a post step, and another pre step; how many there were before."""
    known = len(schema.MIGRATIONS)
    steps = {
        "colour": "ALTER TABLE conversation ADD COLUMN colour text",
        "post_colour": "ALTER TABLE conversation ALTER COLUMN colour SET DEFAULT 'red'",
        "size": "ALTER TABLE conversation ADD COLUMN size text",
    }
    new = [Migration(number, name, sql, name) for number, (name, sql) in enumerate(steps.items(), known + 1)]
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *new])
    return known


def test_migrate_on_the_command_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, ["migrate", "--store", url, *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    asyncio.run(opens(url))
    known = later_steps(monkeypatch)
    first, second, third = range(known + 1, known + 4)
    assert f"Would apply {first}, {third}." in run("--dry-run")
    assert f"Would apply {first}, {second}, {third}." in run("--dry-run", "--post")
    assert f"schema {known}, this Daram has {third}" in (said := run())
    assert f"Now it is schema {third}." in said
    assert f"Left for --post, when no process of an older release runs any more: {second}." in said
    assert "There is nothing to do." in (said := run())
    assert f"any more: {second}." in said
    assert f"Would apply {second}." in run("--dry-run", "--post")
    assert f"Now it is schema {third}." in run("--post")
    assert "There is nothing to do." in (said := run("--post"))
    assert "Left for" not in said


async def test_a_new_schema_needs_no_post_step(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = later_steps(monkeypatch)
    async with PostgresStore(url) as store:
        assert (await store.schema_versions(), await store.post_steps()) == ((0, known + 3), [])
        await store.append(OWNER, "c", [user("x")], create=True)
        assert (await store.schema_versions(), await store.post_steps()) == ((known + 3, known + 3), [])


async def test_a_step_may_take_longer_than_a_statement(url: str, postgres_server: PostgresServer, empty: str) -> None:
    await opens(url)
    name = sql.Identifier(empty)
    postgres_server.run(sql.SQL("ALTER DATABASE {} SET statement_timeout = '2s'").format(name))
    store = PostgresStore(url)
    slow = Migration(len(schema.MIGRATIONS) + 1, "slow", "SELECT pg_sleep(3)", "x")
    assert await schema.migrate(store.pool, "daram", migrations=[*schema.MIGRATIONS, slow]) == [slow.number]
    await store.close()


async def test_a_migration_that_fails_leaves_nothing(url: str, postgres_server: PostgresServer, empty: str) -> None:
    await opens(url)
    store = PostgresStore(url)
    known = len(schema.MIGRATIONS)
    steps = [
        *schema.MIGRATIONS,
        Migration(known + 1, "good", "CREATE TABLE colour (name text)", "a"),
        Migration(known + 2, "bad", "CREATE TABLE colour (name text)", "b"),
    ]
    with pytest.raises(StoreError, match="already exists"):
        await schema.migrate(store.pool, "daram", migrations=steps)
    with postgres_server.connect(empty) as connection:
        assert connection.execute("SELECT to_regclass('daram.colour')").fetchone() == (None,)
    assert await schema.migrate(store.pool, "daram") == []
    await store.close()


def test_the_steps_are_numbered_and_only_add() -> None:
    steps = load_migrations("daram.store.postgres.migrations")
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert {schema.phase(step) for step in steps} == {"pre"}


# --- URLs -----------------------------------------------------------------------------------------------------------


async def test_urls(url: str) -> None:
    for good in (url, url.replace("postgresql", "postgres"), f"{url}?schema=s&pool_size=2&pool_wait=1&timeout=5"):
        store = store_from_url(f"{good}{'&' if '?' in good else '?'}statement_timeout=5&sslmode=disable")
        assert isinstance(store, PostgresStore)
        async with store:
            found = await store.describe()
            assert found["engine"].startswith("PostgreSQL ")
            assert "synchronous_commit=on" in found["durability"]
    assert found["schema"].startswith("s ")
    assert found["connections"] == "at most 2"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("pool_size=0", "pool_size"),
        ("pool_size=x", "pool_size"),
        ("timeout=0", "timeout"),
        ("timeout=nan", "timeout"),
        ("pool_wait=-1", "pool_wait"),
        ("statement_timeout=x", "statement_timeout"),
        ("schema=", "schema"),
        ("schema=pg_x", "schema"),
        ("schema=" + "가" * 22, "schema"),
        ("colour=red", "colour"),
    ],
)
def test_wrong_urls(options: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        store_from_url(f"postgresql://u:secretword@h/d?{options}")
    assert "secretword" not in str(caught.value)


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"daram\[postgres\]"):
        store_from_url("postgresql://h/d")


async def test_describe_says_what_a_power_cut_takes(url: str, postgres_server: PostgresServer, empty: str) -> None:
    await opens(url)
    name = sql.Identifier(empty)
    postgres_server.run(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
    async with PostgresStore(url) as store:
        found = await store.describe()
        assert "synchronous_commit=off" in found["durability"]
        assert "power cut" in found["durability"]
        assert "@" not in found["location"]
