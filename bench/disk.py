"""The disk under the measurements: what a sync costs, and a disk whose syncs cost more."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

import apsw


def fsync_cost(directory: Path, count: int = 200) -> float:
    """The median time to write 4 KiB at the end of a file and sync it, in seconds."""
    path = directory / "fsync"
    times = []
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        for i in range(count):
            start = time.perf_counter()
            os.pwrite(handle, bytes(4096), i * 4096)
            os.fsync(handle)
            times.append(time.perf_counter() - start)
    finally:
        os.close(handle)
        path.unlink()
    return median(times)


class SlowDisk(apsw.VFS):
    """The real disk, but each sync takes ``seconds`` longer (to see what a slower disk would show)."""

    def __init__(self, seconds: float) -> None:
        self.name = f"slow{seconds * 1000:g}"
        self._seconds = seconds
        super().__init__(self.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _SlowFile(name, flags, self._seconds)


class _SlowFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], seconds: float) -> None:
        super().__init__("", name, flags)
        self._seconds = seconds

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        time.sleep(self._seconds)
