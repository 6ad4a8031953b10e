"""What the accounts need before anybody can use them: their tables."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from daram.errors import ConfigError, MissingExtra
from daram.service.configure import accounts_file, configure, journal_mode
from daram.settings import Settings, mask

_LOCK_ID = 0x64_61_72_61_6D  # "daram": the advisory lock of PostgreSQL


def prepare_accounts(settings: Settings) -> None:
    """Set Django up and bring the accounts to the present schema; safe where several processes start at once.

    Blocks. Raises ``MissingExtra``; ``ConfigError`` where the database cannot be reached or made, or was written by a
    newer Daram.
    """
    configure(settings)
    file = accounts_file(settings)
    where = file or mask(settings.accounts or "")
    try:
        if file is not None:
            _make_private(file)
        else:
            _reach(settings.accounts or "")
        if _is_behind():
            with _alone(file):
                if _is_behind():  # another process may have done it meanwhile
                    call_command("migrate", interactive=False, verbosity=0)
                    if _is_behind():
                        raise ConfigError(f"DATABASE_URL: the accounts in {where} could not be brought up to date")
    except (DatabaseError, sqlite3.Error, OSError) as error:
        what = " ".join(str(error).split())
        raise ConfigError(f"DATABASE_URL: the accounts in {where} cannot be opened: {what}") from error
    finally:
        connection.close()


def close_accounts() -> None:
    """Close this thread's connection and, with PostgreSQL, the pool of all."""
    connection.close()
    if connection.vendor == "postgresql":
        connection.close_pool()


def _is_behind() -> bool:
    executor = MigrationExecutor(connection)
    ours = {name for name in executor.loader.disk_migrations if name[0] == "accounts"}
    if newer := {name for name in executor.loader.applied_migrations if name[0] == "accounts"} - ours:
        raise ConfigError(
            f"DATABASE_URL: the accounts were written by a newer Daram ({max(newer)[1]}); update this one"
        )
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return True
    # What is done behind the last migration may be under way in another process, or have ended with one.
    from django.contrib.auth.models import Group

    from daram.service.accounts.people import ADMINISTRATORS, missing_permissions

    return bool(missing_permissions()) or not Group.objects.filter(name=ADMINISTRATORS).exists()


def _reach(url: str) -> None:
    """See whether the server answers: a pool would try again and again, and then not say what is wrong."""
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra("Accounts in PostgreSQL", "postgres") from error
    try:
        psycopg.connect(url, connect_timeout=10).close()
    except psycopg.Error as error:
        raise DatabaseError(str(error)) from error


def _make_private(file: Path) -> None:
    """The database file, readable by its owner only. SQLite gives its journals the permissions of the file."""
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return


@contextlib.contextmanager
def _alone(file: Path | None) -> Iterator[None]:
    """Wait for and hold what one process at a time may hold; it ends with the process."""
    if file is None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK_ID])
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK_ID])
        return
    with _lock(file.with_name(file.name + ".lock")):
        # Kept in the file: set once, while nobody else has it open.
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA journal_mode={journal_mode()}")
        yield


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
