"""A disk that loses power: an apsw VFS that records what SQLite writes, and what a power cut could have left of it.

``kill -9`` proves little about durability: what was written stays in the operating system's cache. Here every write,
truncation, deletion and sync is recorded in one order; ``Disk.cuts`` then replays the record and, at each interesting
moment, makes disks on which what was not synced yet is missing, there in part, or torn at the bounds of a sector:

    disk = Disk("power")
    ... work on the database with vfs="power", calling disk.mark(x) whenever x was acknowledged ...
    for cut in disk.cuts(random.Random(0)):
        cut.write_to(directory)   # open the database there: every one of cut.marks must be in it

What is assumed of the disk: a sync (``fsync``) is kept; within one write each sector of 512 bytes is written whole or
not at all, in any order; a new name in a directory is kept once the directory was synced, which SQLite does at the
first sync of a journal or a log; bytes beside a write are left alone, unless ``powersafe_overwrite`` is False: then a
sector that was being written may be garbage as a whole (https://sqlite.org/psow.html).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

import apsw
import msgspec

SECTOR = 512

Style = Literal["lost", "kept", "prefix", "torn"]
"""Of what was not synced: nothing is there; all is; the first few operations, the last one torn; any of them, torn."""

_JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_RECORDED = _JOURNALS | apsw.SQLITE_OPEN_MAIN_DB


class Event(msgspec.Struct, frozen=True):
    """One thing that happened to the disk. ``inode`` numbers files: a name may stand for several, one after another."""

    kind: Literal["create", "write", "truncate", "sync", "sync_names", "delete", "mark"]
    inode: int = 0
    name: str = ""
    offset: int = 0
    data: bytes = b""
    mark: Any = None


class Cut(msgspec.Struct, frozen=True):
    """A disk after a power cut: ``files`` by name, what had been marked before, and where in the record it happened."""

    position: int
    style: Style
    files: dict[str, bytes]
    marks: tuple[Any, ...]

    def write_to(self, directory: Path) -> None:
        """Write the files into an empty directory."""
        for name, data in self.files.items():
            (directory / name).write_bytes(data)


class Disk(apsw.VFS):
    """Registers itself as the VFS ``name``, on top of the real one. ``unregister`` when done.

    Files are told apart by the last part of their names: use it for one directory. Shared memory is not recorded: it
    is rebuilt after a power cut anyway.
    """

    def __init__(self, name: str, *, base: str = "", powersafe_overwrite: bool = True) -> None:
        self.name = name
        self.powersafe_overwrite = powersafe_overwrite
        self.events: list[Event] = []
        self.lock = threading.Lock()
        self._base = base
        self._inodes: dict[str, int] = {}
        self._count = 0
        super().__init__(name, base)

    def mark(self, mark: Any) -> None:
        """Note in the record that something was acknowledged now."""
        self.record(Event("mark", mark=mark))

    def record(self, event: Event) -> None:
        """Add to the record."""
        with self.lock:
            self.events.append(event)

    def inode(self, name: str, path: Path) -> int:
        """The number of the file that has this name now; a file that is new to the record enters it as it is."""
        with self.lock:
            if name not in self._inodes:
                self._count += 1
                self._inodes[name] = self._count
                self.events.append(Event("create", self._count, name))
                if path.exists() and path.stat().st_size:
                    self.events.append(Event("write", self._count, name, 0, path.read_bytes()))
                    self.events.append(Event("sync", self._count, name))
                    self.events.append(Event("sync_names"))
            return self._inodes[name]

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open a file; databases, journals and logs are recorded."""
        wanted = flags[0]
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        if name is None or not wanted & _RECORDED:
            return apsw.VFSFile(self._base, name, flags)
        inode = self.inode(path.name, path)
        return _File(self._base, name, flags, self, inode, path.name, bool(wanted & _JOURNALS))

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete a file, and sync its directory where SQLite asks for it."""
        super().xDelete(filename, syncdir)
        name = Path(filename).name
        with self.lock:
            inode = self._inodes.pop(name, 0)
            if inode:
                self.events.append(Event("delete", inode, name))
                if syncdir:
                    self.events.append(Event("sync_names"))

    def cuts(self, random: Random, *, styles: tuple[Style, ...] = ("lost", "kept", "prefix", "torn")) -> Iterator[Cut]:
        """The power goes before and after every sync, and right after every mark.

        Disks that are the same, with the same marks, are given once.
        """
        replay = _Replay(self.powersafe_overwrite)
        marks: list[Any] = []
        seen: set[int] = set()
        before: Event | None = None
        for position, event in enumerate([*self.events, Event("sync")]):
            if event.kind == "sync" or (before is not None and before.kind in ("sync", "mark")):
                for style in styles:
                    files = replay.disk(style, random)
                    known = hash((len(marks), tuple(sorted(files.items()))))
                    if known not in seen:
                        seen.add(known)
                        yield Cut(position, style, files, tuple(marks))
            if event.kind == "mark":
                marks.append(event.mark)
            else:
                replay.take(event)
            before = event


class _File(apsw.VFSFile):
    def __init__(
        self,
        base: str,
        name: str | apsw.URIFilename,
        flags: list[int],
        disk: Disk,
        inode: int,
        short: str,
        journal: bool,
    ) -> None:
        super().__init__(base, name, flags)
        self._disk = disk
        self._inode = inode
        self._name = short
        self._sync_names = journal

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._disk.record(Event("write", self._inode, self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._disk.record(Event("truncate", self._inode, self._name, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._disk.record(Event("sync", self._inode, self._name))
        if self._sync_names:
            self._sync_names = False
            self._disk.record(Event("sync_names"))

    def xDeviceCharacteristics(self) -> int:
        found = super().xDeviceCharacteristics()
        safe = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE
        return found | safe if self._disk.powersafe_overwrite else found & ~safe


class _Replay:
    """The disk at one moment: what is safe, and what is still on its way, in order."""

    def __init__(self, powersafe_overwrite: bool) -> None:
        self._powersafe = powersafe_overwrite
        self._data: dict[int, bytearray] = {}
        self._names: dict[str, int] = {}
        self._pending: list[Event] = []

    def take(self, event: Event) -> None:
        if event.kind == "sync":
            mine = [e for e in self._pending if e.inode == event.inode and e.kind in ("write", "truncate")]
            for waiting in mine:
                self._apply(waiting, self._data)
            self._pending = [e for e in self._pending if e not in mine]
        elif event.kind == "sync_names":
            named = [e for e in self._pending if e.kind in ("create", "delete")]
            for waiting in named:
                self._rename(waiting, self._names)
            self._pending = [e for e in self._pending if e not in named]
        else:
            self._pending.append(event)

    def disk(self, style: Style, random: Random) -> dict[str, bytes]:
        names = dict(self._names)
        data = {inode: bytearray(content) for inode, content in self._data.items()}
        # Names are kept in order (file systems journal them); what is in the files is not.
        changes = [e for e in self._pending if e.kind in ("create", "delete")]
        writes = [e for e in self._pending if e.kind in ("write", "truncate")]
        last: Event | None = None
        if style == "lost":
            changes, writes = [], []
        elif style == "prefix":
            changes = changes[: random.randint(0, len(changes))]
            count = random.randint(0, len(writes))
            last = writes[count] if count < len(writes) else None
            writes = writes[:count]
        elif style == "torn":
            changes = changes[: random.randint(0, len(changes))]
        for event in changes:
            self._rename(event, names)
        for event in writes:
            chance = random.random() if style == "torn" else 1.0
            if chance > 0.6:
                self._apply(event, data)
            elif chance > 0.2:
                self._tear(event, data, random)
        if last is not None:
            self._tear(last, data, random)
        return {name: bytes(data.get(inode, b"")) for name, inode in names.items()}

    @staticmethod
    def _rename(event: Event, names: dict[str, int]) -> None:
        if event.kind == "create":
            names[event.name] = event.inode
        elif names.get(event.name) == event.inode:
            del names[event.name]

    @staticmethod
    def _apply(event: Event, data: dict[int, bytearray]) -> None:
        content = data.setdefault(event.inode, bytearray())
        if event.kind == "truncate":
            del content[event.offset :]
            return
        content.extend(bytes(max(0, event.offset - len(content))))
        content[event.offset : event.offset + len(event.data)] = event.data

    def _tear(self, event: Event, data: dict[int, bytearray], random: Random) -> None:
        if event.kind == "truncate":
            return
        start, end = event.offset, event.offset + len(event.data)
        while start < end:
            stop = min(end, (start // SECTOR + 1) * SECTOR)
            if random.random() < 0.5:
                piece = event.data[start - event.offset : stop - event.offset]
                self._apply(Event("write", event.inode, event.name, start, piece), data)
            elif not self._powersafe:
                low = start // SECTOR * SECTOR
                self._apply(Event("write", event.inode, event.name, low, random.randbytes(SECTOR)), data)
            start = stop
