"""What SQLite says, in Daram's words."""

from __future__ import annotations

import apsw

from daram.errors import (
    OutcomeUnknown,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)


def translate(error: apsw.Error, path: str, *, committing: bool = False) -> StoreError:
    """The typed error for what apsw raised. While committing, an I/O error leaves the outcome open."""
    said = str(error) or type(error).__name__
    if isinstance(error, apsw.FullError):
        return StoreFull(f"{path}: the disk is full ({said}); nothing of this call was stored. Make room and try again")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreBusy(f"{path}: another process holds the database ({said}); nothing was stored, try again")
    if committing:
        return OutcomeUnknown(
            f"{path}: failed while committing ({said}); the write may or may not be there. "
            "Repeat it with the same message ids: nothing is stored twice"
        )
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        return StoreReadOnly(f"{path}: cannot be written ({said}); check the permissions of the file and its directory")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.FormatError):
        return StoreCorrupt(f"{path}: is damaged or no SQLite database ({said}); restore a backup, or check the path")
    if isinstance(error, apsw.CantOpenError):
        return StoreUnavailable(
            f"{path}: cannot be opened ({said}); check the path, and the permissions of the file and its directory"
        )
    return StoreUnavailable(f"{path}: {type(error).__name__} ({said}); nothing of this call was stored")
