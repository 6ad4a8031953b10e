"""Opening a database file: is it ours, is it of our time, and how it is to be used."""

from __future__ import annotations

import apsw

from daram.errors import SchemaTooNew, StoreCorrupt
from daram.store.queries import load_migrations

# "DARM": tells `file` and us whose database this is (https://sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x4441524D
MIGRATIONS = load_migrations("daram.store.sqlite.migrations")

_LEDGER = """
CREATE TABLE IF NOT EXISTS migration (
    number     INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
) STRICT
"""


def _number(connection: apsw.Connection, query: str) -> int:
    value = connection.execute(query).get
    assert isinstance(value, int)
    return value


def check_identity(connection: apsw.Connection, path: str) -> int:
    """The schema's number (0: an empty file); raises where the file is not ours or of a newer Daram."""
    # At one moment: another process may be making the file right now.
    begun = not connection.in_transaction
    if begun:
        connection.execute("BEGIN")
    try:
        version = _number(connection, "PRAGMA user_version")
        application = _number(connection, "PRAGMA application_id")
        is_empty = _number(connection, "SELECT count(*) FROM sqlite_schema") == 0
    finally:
        if begun and connection.in_transaction:
            connection.execute("COMMIT")
    if application == 0 and version == 0 and is_empty:
        return 0
    if application != APPLICATION_ID:
        raise StoreCorrupt(f"{path}: is an SQLite database, but not Daram's; give another path. Nothing was changed")
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"{path}: has schema {version}, but this Daram knows {len(MIGRATIONS)}; "
            "update Daram to open it. Nothing was changed"
        )
    return version


def migrate(connection: apsw.Connection, path: str) -> None:
    """Bring the file to the newest schema, each step in a transaction of its own; safe when several processes do it."""
    if check_identity(connection, path) == len(MIGRATIONS):
        _check_ledger(connection, path)
        return
    for migration in MIGRATIONS:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if check_identity(connection, path) < migration.number:
                connection.execute(_LEDGER)
                connection.execute(migration.sql)
                connection.execute(
                    "INSERT INTO migration (number, name, checksum) VALUES (?, ?, ?)",
                    (migration.number, migration.name, migration.checksum),
                )
                connection.pragma("application_id", APPLICATION_ID)
                connection.pragma("user_version", migration.number)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    _check_ledger(connection, path)


def _check_ledger(connection: apsw.Connection, path: str) -> None:
    for number, checksum in connection.execute("SELECT number, checksum FROM migration"):
        known = MIGRATIONS[number - 1] if 1 <= number <= len(MIGRATIONS) else None
        if known is None or known.checksum != checksum:
            raise StoreCorrupt(
                f"{path}: migration {number} is not the one that this Daram has; "
                "it was made by a changed copy of Daram, or the file is damaged"
            )
