"""Running something in another process that has Daram."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import daram

PRELUDE = """
import asyncio, os, signal, sys, time
from pathlib import Path
import apsw
import daram
from daram.store.sqlite.engine import SqliteStore
path = Path(sys.argv[1])
"""


def environment() -> dict[str, str]:
    """That of this process, with the Daram under test in front of all others."""
    home = str(Path(daram.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([home, os.environ.get("PYTHONPATH", "")])}


def start(code: str, path: Path, *args: str) -> subprocess.Popen[str]:
    """Start ``code`` (it finds ``path`` and the usual imports in place) with pipes to and from it."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + code, str(path), *args],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def run(code: str, path: Path, *args: str) -> str:
    """Run ``code`` to its end; what it printed."""
    with start(code, path, *args) as process:
        try:
            output, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, f"the child ended with {process.returncode}"
    return output
