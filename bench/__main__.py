"""``python -m bench``: measure and print a table."""

from __future__ import annotations

import argparse
import asyncio
import platform
import tempfile
from pathlib import Path

import apsw

from bench.streams import report
from bench.turns import FULL, QUICK, Row, measure


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a turn costs on this machine.")
    parser.add_argument("--full", action="store_true", help="measure longer, for steadier numbers")
    parser.add_argument(
        "--fsync-ms", type=float, metavar="N", help="for the many tasks, let each sync take N ms longer"
    )
    parser.add_argument("--dir", type=Path, help="where to write: the disk that is measured (default: temporary files)")
    parser.add_argument("--streams", action="store_true", help="measure many streams of the service at once instead")
    options = parser.parse_args()
    if options.streams:
        print("\n".join(asyncio.run(report((200, 2000) if options.full else (50, 200)))))
        return
    extra = None if options.fsync_ms is None else options.fsync_ms / 1000
    with tempfile.TemporaryDirectory(prefix="daram-bench-", dir=options.dir) as home:
        sync, rows = asyncio.run(measure(Path(home), FULL if options.full else QUICK, extra))
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
