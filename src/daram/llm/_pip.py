"""Runs ``pip download`` for pinned wheels, with whatever pip can be found, and says plainly why it failed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

_POLL = 0.2
_CREDENTIALS = re.compile(r"(://)[^/@\s]+@")
_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ConnectionReset|ProxyError|SSLError|"
    r"Failed to establish|name resolution|Connection (?:broken|refused|to .* timed out)|Network is unreachable|"
    r"Read timed out|No route to host",
    re.IGNORECASE,
)


class PipError(Exception):
    """pip could not be run, or gave up; the text says why in one line."""


class Pip:
    """A pip that can be run: ``command`` is what stands before ``download``."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)

    def download(
        self,
        requirements: Path,
        into: Path,
        *,
        scratch: Path,
        seen: Callable[[int], None],
        find_links: Path | None = None,
    ) -> None:
        """Download what ``requirements`` pins into ``into``, as wheels, by hash, without dependencies.

        pip's temporary files stay under ``scratch`` (their growth is what ``seen`` is told, in bytes). With
        ``find_links`` that directory is the only source. Raises ``PipError``.
        """
        # Without -vv pip does not say that it could not reach an index, only that it found nothing.
        command = [
            *self.command, "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-cache-dir",
            "--disable-pip-version-check", "--no-input", "--progress-bar=off", "-vv",
            "--dest", str(into), "--requirement", str(requirements),
        ]  # fmt: skip
        if find_links is not None:
            command += ["--no-index", "--find-links", str(find_links)]
        # pip's own cache would keep a second copy of a gigabyte; its scratch files belong on the disk of the target.
        environment = {
            **os.environ,
            "TMPDIR": str(scratch),
            "TEMP": str(scratch),
            "TMP": str(scratch),
            "PIP_REQUIRE_VIRTUALENV": "0",
        }
        log = scratch / "pip.log"
        with log.open("wb") as output, _started(command, environment, output) as process:
            try:
                while not _ended(process, _POLL):
                    seen(_bytes_under(scratch))
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise PipError(_reason(log.read_text("utf-8", "replace")))


def find(scratch: Path, *, uses_index: bool = True) -> Pip:
    """The pip of this interpreter; where it has none, a throw-away one under ``scratch``; else uv's.

    Environments made by uv have no pip, and installing one into them would change what the user set up.
    ``uses_index=False`` leaves uv out, which would have to fetch pip first. Raises ``PipError``.
    """
    if importlib.util.find_spec("pip") is not None:
        return Pip([sys.executable, "-m", "pip"])
    try:
        home = scratch / "pip"
        venv.create(home, with_pip=True)
    except (subprocess.CalledProcessError, OSError, ImportError):  # Debian's Python may come without ensurepip
        uv = shutil.which("uv")
        if uv is None or not uses_index:
            raise PipError(
                f"{sys.executable} has no pip and cannot make one; install it (python -m ensurepip, or your system's "
                "python3-pip or python3-venv package), or install uv, and try again"
            ) from None
        return Pip([uv, "tool", "run", "--python", sys.executable, "pip"])
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return Pip([str(python), "-m", "pip"])


def _started(command: list[str], environment: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise PipError(f"{command[0]} cannot be started: {error}") from error


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _bytes_under(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):  # pip moves and removes its files meanwhile
                    total += Path(root, name).stat().st_size
    return total


def _reason(output: str) -> str:
    if "DO NOT MATCH THE HASHES" in output:
        return "what the package index gives is not the pinned file (the SHA-256 differs); refused"
    if "No space left on device" in output:
        return "no space is left on the disk"
    if _NETWORK.search(output):
        return "the package index cannot be reached (network, proxy or certificate); pip said: " + _last_line(output)
    if "No matching distribution found" in output:
        return "the package index that pip is set up for does not have it (any more)"
    return "pip said: " + _last_line(output)


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    line = (errors or lines or ["nothing"])[-1]
    # An index URL may hold a password.
    return _CREDENTIALS.sub(r"\1***@", line)[:400]
