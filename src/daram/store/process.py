"""Who made an answer: a process, named so that its death can be told from its silence (design section 6.5)."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _start_time(pid: int) -> str | None:
    """When it started, in clock ticks since boot (field 22 of /proc/PID/stat); None where it cannot be told."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything, blanks and ")" included
    # "Z": killed, and only waiting for its parent to notice.
    return None if fields[0] in ("Z", "X") else fields[19]


@cache
def _machine() -> str:
    """The boot and the pid namespace: a pid means something only within both (containers may share a data file)."""
    boot = _read("/proc/sys/kernel/random/boot_id")
    if boot is None:
        return ""
    try:
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def identity() -> str:
    """This process as ``boot id, pid namespace, pid, start time``; empty where the system tells no such things."""
    return _identity(os.getpid())


@cache  # by the pid: after a fork it is another
def _identity(pid: int) -> str:
    start = _start_time(pid)
    return f"{_machine()} {pid} {start}" if _machine() and start else ""


def is_dead(process: str) -> bool:
    """Whether that process is known to be gone. False where nothing is known: then only its lease tells."""
    if not process or process == identity() or not _machine():
        return False
    machine, pid, start = process.rsplit(" ", 2)
    if machine.split(" ")[0] != _machine().split(" ")[0]:
        return False  # another machine, or this one before a restart: the two cannot be told apart, the lease decides
    return machine == _machine() and _start_time(int(pid)) != start
