"""A disk that fails when it is told to: an apsw VFS whose writes, syncs and reads raise what a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Literal

import apsw

Operation = Literal["read", "write", "sync"]
File = Literal["database", "log"]
_numbers = count()


class FaultyDisk(apsw.VFS):
    """``failing`` arms it: then, after ``after`` operations of that kind went well, ``times`` of them fail."""

    def __init__(self) -> None:
        self.name = f"faulty{next(_numbers)}"
        self._lock = threading.Lock()
        self._plan: tuple[Operation, File, Callable[[], Exception]] | None = None
        self._after = 0
        self._times = 0
        self.failures = 0
        super().__init__(self.name, "")

    @contextmanager
    def failing(
        self,
        operation: Operation,
        file: File,
        error: Callable[[], Exception],
        *,
        after: int = 0,
        times: int = 1_000_000,
    ) -> Iterator[None]:
        with self._lock:
            self._plan, self._after, self._times, self.failures = (operation, file, error), after, times, 0
        try:
            yield
        finally:
            with self._lock:
                self._plan = None

    def meet(self, operation: Operation, file: File) -> None:
        with self._lock:
            if self._plan is None or self._plan[:2] != (operation, file):
                return
            if self._after:
                self._after -= 1
                return
            if not self._times:
                return
            self._times -= 1
            self.failures += 1
            error = self._plan[2]()
        raise error

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if flags[0] & apsw.SQLITE_OPEN_WAL:
            return _File(name, flags, self, "log")
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _File(name, flags, self, "database")
        return apsw.VFSFile("", name, flags)


class _File(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], disk: FaultyDisk, file: File) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._file = file

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.meet("read", self._file)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.meet("write", self._file)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.meet("sync", self._file)
        super().xSync(flags)
