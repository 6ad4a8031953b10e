"""Starts the process that runs llama.cpp, waits for it to load, and says why where it does not."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import Any, Final

import msgspec

from daram.errors import MissingExtra, ModelUnavailable

_SCRIPT: Final = Path(__file__).with_name("_llama.py")
_BATCH: Final = 128  # tokens read between two looks at whether anybody still wants them: some seconds on a slow machine
_CACHE_MIB: Final = 256  # prompts that lost their slot, kept in memory


class Loaded(msgspec.Struct, frozen=True):
    """A runtime that answers at ``url`` to whoever has the ``key``."""

    url: str
    key: str
    context_tokens: int


def problem() -> str | None:
    """What keeps the runtime of the local model from working on this machine, in one line; None where nothing does."""
    if importlib.util.find_spec("xllamacpp") is None:
        return str(MissingExtra("the local model", "local"))
    if sys.platform == "linux":
        if platform.machine() == "x86_64" and not _has_avx2():
            return "this processor has no AVX2, which the local model needs; use an endpoint (DARAM_MODEL=openai:NAME)"
        try:
            ctypes.CDLL("libgomp.so.1")
        except OSError:
            return _no_gomp()
    return None


def check_file(path: Path) -> None:
    """Raise ``ModelUnavailable`` unless ``path`` can be read and begins like a GGUF file."""
    hint = "set DARAM_LOCAL_MODEL to a GGUF file, or unset it and run: daram model get"
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except IsADirectoryError as error:
        raise ModelUnavailable(f"the local model {path} is a directory; {hint}") from error
    except OSError as error:
        raise ModelUnavailable(f"the local model {path} cannot be read ({error.strerror}); {hint}") from error
    if head != b"GGUF":
        raise ModelUnavailable(f"the local model {path} is not a GGUF file (it begins with {head!r}); {hint}")


class LlamaProcess:
    """One process with one model. It ends when ``kill`` is called, and when this process is gone, however it went."""

    def __init__(self, path: Path, *, name: str, context_tokens: int, slots: int, threads: int) -> None:
        self._path = path
        self._key = secrets.token_urlsafe(32)
        self._config = {
            "model": str(path),
            "name": name,
            "context_tokens": context_tokens,
            "slots": slots,
            "threads": threads,
            "batch": _BATCH,
            "cache_mib": _CACHE_MIB,
            "key": self._key,
            "path": sys.path,
        }
        self._said: deque[str] = deque(maxlen=20)
        # The key goes through the pipe: arguments and environment of a process can be read by others.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT)],  # -P: this folder has modules named as other people's packages
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Threads that wait busily take the processor from everybody else.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            start_new_session=True,  # Ctrl-C is for the parent, which may want to finish an answer
        )
        # Whoever forgets to close it shall not leave two gigabytes behind. (If this process is killed, the pipe ends.)
        weakref.finalize(self, _end, self._process)
        self._reader = threading.Thread(
            target=_read_errors, args=(self._process, self._said), name="daram-llama-errors", daemon=True
        )
        self._reader.start()

    def load(self) -> Loaded:
        """Wait until the model is loaded (seconds). Raises ``ModelUnavailable``; then the process is gone."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # that it is gone already is said below
            process.stdin.write(json.dumps(self._config).encode() + b"\n")
            process.stdin.flush()
        try:
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        except ValueError:
            self.kill()
            raise ModelUnavailable(f"the local model {self._path.name} could not be loaded: {self.death()}") from None
        if "url" in answer:
            return Loaded(answer["url"], self._key, answer["context_tokens"])
        self.kill()
        raise ModelUnavailable(self._refusal(answer))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def death(self) -> str:
        """How the process ended, and its last words."""
        code = self._process.poll()
        how = f"its process ended ({code})"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            how = f"its process was ended by {name}"
            if name == "SIGKILL":
                how += " (for want of memory?)"
            if name == "SIGILL":
                how += " (the processor lacks an instruction that it needs)"
        words = " / ".join(list(self._said)[-3:])
        return f"{how}: {words[:400]}" if words else how

    def kill(self) -> None:
        """End it at once and free its memory; harmless when it has ended."""
        _end(self._process)
        self._reader.join()

    def _refusal(self, answer: dict[str, Any]) -> str:
        if answer["error"] == "import":
            return _no_gomp() if "libgomp" in answer["text"] else f"xllamacpp cannot be imported: {answer['text']}"
        words = " / ".join(list(self._said)[-3:])
        return (
            f"llama.cpp cannot load the local model {self._path} (damaged, cut short, of a kind that it does not know, "
            f"or too large for the memory): {words[:400] or answer['text']}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _read_errors(process: subprocess.Popen[bytes], said: deque[str]) -> None:
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            said.append(line.decode("utf-8", "replace").strip())


def _no_gomp() -> str:
    return (
        "the local model's runtime needs the system library libgomp.so.1; install it "
        "(Debian, Ubuntu: apt install libgomp1; Fedora: dnf install libgomp; Alpine: apk add libgomp)"
    )


def _has_avx2() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return True
    return "avx2" in flags or "flags" not in flags
