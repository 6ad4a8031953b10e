"""Looking after a file: is it whole, which schema has it, copies of it while it is in use."""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import apsw

from daram import ids
from daram.errors import StoreCorrupt, StoreUnavailable
from daram.model import Problem
from daram.store.sqlite.check import look, repair_all
from daram.store.sqlite.errors import translate
from daram.store.sqlite.schema import MIGRATIONS, check_identity
from daram.store.sqlite.transfer import SqliteTransfer

T = TypeVar("T")
_WITH_DOCUMENTS = 2  # the first schema that has them
_PAGES = 2000  # of a backup at a time; between them Ctrl-C is heard


class SqliteCare(SqliteTransfer):
    """The part of ``SqliteStore`` that looks after the file."""

    path: str

    async def check(self, *, repair: bool = False) -> builtins.list[Problem]:
        await self._open()
        found = await self._read(look)
        if not repair or not any(problem.mendable for problem in found):
            return [problem.public() for problem in found]

        def mend(db: apsw.Connection, _now: int) -> None:
            repair_all(db, found)

        await self._write(mend)
        while await self._read(_unindexed):
            await self._write(lambda db, _: self._upkeep.feed(db))
        left = {(problem.where, problem.kind) for problem in await self._read(look)}
        return [problem.public(repaired=(problem.where, problem.kind) not in left) for problem in found]

    async def schema_versions(self) -> tuple[int, int]:
        def look_at() -> tuple[int, int]:
            if not Path(self.path).exists():
                return 0, len(MIGRATIONS)
            with closing(_opened(self.path)) as db:
                return check_identity(db, self.path), len(MIGRATIONS)

        return await asyncio.to_thread(_said, look_at, self.path)

    async def backup(self, path: str) -> None:
        await self._open()
        target = _absolute(path)

        def work() -> None:
            _make(target)
            try:
                with closing(_opened(self.path)) as source:
                    _copy(source, target)
                with closing(apsw.Connection(target, flags=apsw.SQLITE_OPEN_READWRITE)) as made:
                    made.pragma("journal_mode", "delete")  # one file, without a log beside it
                _sync(target)
            except BaseException:
                Path(target).unlink(missing_ok=True)
                raise

        await asyncio.to_thread(_said, work, target)

    async def restore(self, path: str) -> int:
        source = _absolute(path)
        staged = f"{self.path}.restoring-{ids.uuid7()}"

        def work() -> int:
            if not Path(source).is_file():
                raise StoreUnavailable(f"{source}: is not there; name a file that daram backup wrote")
            if Path(source).samefile(self.path) if Path(self.path).exists() else False:
                raise StoreUnavailable(f"{source}: is the store itself, not a backup of it")
            _make(staged)
            try:
                with closing(_opened(source)) as backup:
                    if check_identity(backup, source) == 0:
                        raise StoreCorrupt(f"{source}: is empty; nothing was changed")
                    damage = backup.pragma("quick_check")
                    if damage != "ok":
                        raise StoreCorrupt(f"{source}: is damaged ({str(damage)[:200]}); nothing was changed")
                    _copy(backup, staged)
                count = _renew_etags(staged)
                if Path(self.path).exists():
                    # As one transaction of SQLite's own: whoever has the file open goes on with what is there now.
                    with closing(_opened(staged)) as made:
                        _copy(made, self.path)
                else:
                    _sync(staged)
                    os.link(staged, self.path)  # unlike a rename, it does not replace what came there meanwhile
                    _sync(str(Path(self.path).parent))
            finally:
                for beside in ("", "-wal", "-shm", "-journal"):
                    Path(staged + beside).unlink(missing_ok=True)
            return count

        return await asyncio.to_thread(_said, work, source)


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _unindexed(db: apsw.Connection) -> bool:
    return bool(db.execute("SELECT EXISTS (SELECT 1 FROM doc, search_mark WHERE doc.id > mark)").get)


def _said(work: Callable[[], T], path: str) -> T:
    """Run it; what SQLite and the system raise becomes ours."""
    try:
        return work()
    except apsw.Error as error:
        raise translate(error, path) from error
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror or error}") from error


def _opened(path: str) -> apsw.Connection:
    """For reading. Not read-only where it can be helped: a database in WAL mode may need its log made."""
    writable = os.access(path, os.W_OK)
    flags = apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY
    connection = apsw.Connection(path, flags=flags)
    connection.set_busy_timeout(10_000)
    connection.pragma("query_only", True)
    return connection


def _make(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        raise StoreUnavailable(f"{path}: exists already; name a new file, or delete it first") from None


def _copy(source: apsw.Connection, path: str) -> None:
    """All pages, as they are at this moment: the read transaction keeps out what others write meanwhile."""
    source.execute("BEGIN")
    try:
        source.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # now the moment is fixed
        with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)) as target:
            target.set_busy_timeout(10_000)
            target.pragma("synchronous", "FULL")
            with target.backup("main", source, "main") as backup:
                while not backup.done:
                    backup.step(_PAGES)
    finally:
        source.execute("ROLLBACK")


def _renew_etags(path: str) -> int:
    """What a cache knows of the etags in a backup must never be taken for what is stored now."""
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)) as db:
        db.execute("UPDATE conversation SET etag = lower(hex(randomblob(8)))")
        count = db.changes()
        db.execute("UPDATE record SET etag = lower(hex(randomblob(8)))")
        if check_identity(db, path) >= _WITH_DOCUMENTS:  # an older backup migrates when it is opened
            db.execute("UPDATE document SET etag = lower(hex(randomblob(8)))")
    return count


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
