"""``python -m bench``: measure and print tables: SQLite here, each other subject in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import apsw

from bench.turns import FULL, QUICK, Row, measure

# What else there is to measure, each a program in a file of its own that takes --full.
MORE = {
    "postgres": "bench.postgres_turns",
    "redis": "bench.redis_turns",
    "cache": "bench.cache_turns",
    "sizes": "bench.sizes",
    "streams": "bench.streams",
}


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a turn costs on this machine.")
    parser.add_argument("--only", choices=["sqlite", *MORE], help="measure this alone (default: one after the other)")
    parser.add_argument("--full", action="store_true", help="measure longer, for steadier numbers")
    parser.add_argument(
        "--fsync-ms", type=float, metavar="N", help="for the many tasks, let each sync take N ms longer"
    )
    parser.add_argument("--dir", type=Path, help="where to write: the disk that is measured (default: temporary files)")
    options = parser.parse_args()
    if options.only in (None, "sqlite"):
        sqlite(options.full, options.fsync_ms, options.dir)
    for name, program in MORE.items():
        if options.only in (None, name):
            print(f"\n--- {name}", flush=True)
            subprocess.run([sys.executable, "-m", program, *(["--full"] if options.full else [])], check=True)


def sqlite(full: bool, fsync_ms: float | None, where: Path | None) -> None:
    """Measure the engine on this disk."""
    extra = None if fsync_ms is None else fsync_ms / 1000
    with tempfile.TemporaryDirectory(prefix="daram-bench-", dir=where) as home:
        sync, rows = asyncio.run(measure(Path(home), FULL if full else QUICK, extra))
    print(f"Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}, WAL, synchronous=FULL")
    print(f"a sync of 4 KiB on this disk: {sync * 1000:.2f} ms\n")
    print(table(rows))


def table(rows: list[Row]) -> str:
    """The rows in columns."""
    marks = {True: "PASS", False: "FAIL", None: ""}
    cells = [("what", "measured", "against", "ratio", "wanted", "")]
    cells += [(*row[:5], marks[row.passed]) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


if __name__ == "__main__":
    main()
