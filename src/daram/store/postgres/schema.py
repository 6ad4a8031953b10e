"""Daram's schema in a database: is it ours, is it of our time, and how it is brought up to date.

A migration whose file is named ``NNNN_post_….sql`` is a *post* step: it takes away what older releases still use (a
column, a function), and runs only when it is asked for (``daram migrate --post``), after the last process of the old
release has ended; in a new schema nothing is old, and it runs at once. All others are *pre* steps: they only add, so
that the old release works on beside the new one, and run when a store is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from daram.errors import SchemaTooNew, StoreCorrupt, StoreReadOnly, StoreUnavailable
from daram.store.postgres.errors import translate
from daram.store.postgres.pool import Pool
from daram.store.queries import Migration, load_migrations, load_queries

MIGRATIONS: Final = load_migrations("daram.store.postgres.migrations")
OLDEST_SERVER: Final = 140000
# Tells whose table of migrations this is: other programs have one of that name too.
MARK: Final = "Daram: the steps that made this schema"

_SET_UP: Final = load_queries("daram.store.postgres", "schema.sql")


def phase(migration: Migration) -> str:
    """``pre`` or ``post``."""
    return "post" if migration.name.startswith("post_") else "pre"


def compose(text: str, schema: str) -> bytes:
    """A query with the name of the schema in its places, quoted by psycopg."""
    return sql.SQL(text).format(schema=sql.Identifier(schema)).as_bytes(None)


class Found(NamedTuple):
    """Whether the schema exists, and the steps that were applied: their checksums by number."""

    exists: bool
    applied: dict[int, str]


async def look(pool: Pool, schema: str, migrations: Sequence[Migration]) -> Found:
    """What there is of the schema.

    Raises ``StoreCorrupt`` where it is another program's or was made by other steps, ``SchemaTooNew`` where a newer
    Daram has taken something away that this one needs.
    """
    rows = await pool.fetch(compose(_SET_UP["identify"], schema), (schema,), writes=False)
    exists, tables, mark, version, encoding = rows[0]
    where = f"{pool.where}, schema {schema}"
    if version < OLDEST_SERVER:
        raise StoreUnavailable(f"{where}: the server is older than PostgreSQL 14; use a newer one")
    if encoding != "UTF8":
        raise StoreUnavailable(f"{where}: the database's encoding is {encoding}; make one with ENCODING 'UTF8'")
    if not tables:
        return Found(exists, {})
    if mark != MARK:
        raise StoreCorrupt(
            f"{where}: holds other tables than Daram's; give another schema (?schema=). Nothing was changed"
        )
    applied = await pool.fetch(compose(_SET_UP["ledger"], schema), writes=False)
    _check(applied, where, migrations)
    return Found(exists, {number: checksum for number, _, checksum in applied})


def _check(applied: Sequence[tuple[Any, ...]], where: str, migrations: Sequence[Migration]) -> None:
    for number, applied_phase, checksum in applied:
        if number > len(migrations):
            if applied_phase == "post":
                raise SchemaTooNew(
                    f"{where}: has step {number}, but this Daram knows {len(migrations)}; "
                    "update Daram to open it. Nothing was changed"
                )
        elif migrations[number - 1].checksum != checksum:
            raise StoreCorrupt(
                f"{where}: migration {number} is not the one that this Daram has; "
                "it was made by a changed copy of Daram, or the schema is damaged"
            )


def _missing(found: Found, migrations: Sequence[Migration], post: bool) -> list[Migration]:
    everything = post or not found.applied
    return [m for m in migrations if m.number not in found.applied and (everything or phase(m) == "pre")]


async def migrate(
    pool: Pool, schema: str, *, post: bool = False, migrations: Sequence[Migration] | None = None
) -> list[int]:
    """Apply what is missing (post steps only with ``post``), all in one transaction; returns the numbers of the steps.

    Safe when several processes do it at once: the first does, the others wait and find nothing to do.
    """
    if migrations is None:
        migrations = MIGRATIONS
    if not _missing(await look(pool, schema, migrations), migrations, post):
        return []
    try:
        async with await psycopg.AsyncConnection.connect(pool.conninfo, prepare_threshold=None) as connection:
            await connection.execute(_SET_UP["lock"].encode(), (f"daram {schema}",))
            found = await look(pool, schema, migrations)  # again: another process may have been first
            if not found.exists:
                await connection.execute(compose(_SET_UP["make"], schema))
            if not found.applied:
                await connection.execute(compose(_SET_UP["begin"], schema))
            await connection.execute(_SET_UP["enter"].encode(), (schema,))
            missing = _missing(found, migrations, post)
            for step in missing:
                await connection.execute(step.sql.encode())
                await connection.execute(
                    _SET_UP["enlist"].encode(), (step.number, phase(step), step.name, step.checksum)
                )
            return [step.number for step in missing]
    except psycopg.Error as error:
        failure = translate(error, f"{pool.where}, schema {schema}")
        if isinstance(failure, StoreReadOnly):
            raise StoreReadOnly(
                f"{failure}. Daram's tables are not there, or not up to date: open it once as a user who may make them"
            ) from error
        raise failure from error
