"""What PostgreSQL and psycopg say, in Daram's words.

The codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re

import psycopg

from daram.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

READ_ONLY = "25006"
# The whole statement was undone because of another's; the same again may succeed at once. (A unique violation is one of
# these: everything is looked for under a lock, so that only somebody whom an old snapshot hides can have been first.)
AGAIN = frozenset({"40001", "40P01", "23505"})
# The session is over, or never was: shutdowns, crashes, time-outs of idle ones. (Class 08 says so too.)
_LOST = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})

_BUSY = {
    "57014": "the statement took longer than statement_timeout, or was cancelled",
    "55P03": "a lock was not to be had within lock_timeout",
    "53300": "the server has no connection left (max_connections)",
    "53400": "a limit that is set on the server was reached",
    "53200": "the server is out of memory",
}
_UNAVAILABLE = {
    "28P01": "the password is wrong; check the URL",
    "28000": "the server does not let this user in; check the user in the URL and the server's pg_hba.conf",
    "3D000": "there is no such database; create it, or check the URL",
    "57P03": "the server is starting or stopping; try again",
}
_CORRUPT = frozenset({"XX001", "XX002", "42P01", "42883", "42703", "3F000"})


def is_lost(connection: psycopg.AsyncConnection[object], error: psycopg.Error) -> bool:
    """Whether the connection is gone, so that nobody can tell what became of the statement."""
    code = error.sqlstate or ""
    return connection.closed or code in _LOST or code.startswith("08")


def translate(error: psycopg.Error, where: str) -> StoreError:
    """The typed error for one that left nothing stored."""
    code = error.sqlstate or ""
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if code in _BUSY:
        return StoreBusy(f"{where}: {_BUSY[code]} ({said}); nothing was stored, try again")
    if code in AGAIN:
        return StoreBusy(
            f"{where}: other writers were in the way again and again ({said}); nothing was stored, try again"
        )
    if code == "53100":
        return StoreFull(
            f"{where}: the server's disk is full ({said}); nothing of this call was stored. Make room there"
        )
    if code == READ_ONLY:
        return StoreReadOnly(
            f"{where}: the server only reads ({said}), as replicas do; nothing was stored. "
            "Give the primary's address, or several hosts and target_session_attrs=read-write"
        )
    if code == "42501":
        return StoreReadOnly(f"{where}: this user may not do that ({said}); grant it the rights on Daram's schema")
    if code in _CORRUPT:
        return StoreCorrupt(
            f"{where}: Daram's tables are not as they should be ({said}); restore a backup, or check them"
        )
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"{where}: {_UNAVAILABLE[code]} ({said})")
    if not code and re.search("too many (clients|connections)|remaining connection slots", said):
        # Of a connection that was refused libpq gives no code, only the server's words.
        return StoreBusy(f"{where}: {_BUSY['53300']} ({said}); nothing was stored, try again")
    if not code or code in _LOST or code.startswith("08"):
        return StoreUnavailable(f"{where}: cannot be reached ({said}); nothing of this call was stored")
    return StoreError(f"{where}: {said} ({code}); nothing of this call was stored")
