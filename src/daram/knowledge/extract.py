"""Reading a document in a process of its own: a file that was made to hang or to flood a parser takes nothing with it.

The child runs ``daram.text.load`` and sends its sections as MessagePack behind four bytes of length; the last frame
says how it ended. It has bounds of memory and of processor time where the system knows them, and is killed when it is
silent for too long. Starting it costs far more than reading a small document does, so ``Readers`` has one child read
several documents, one after the other, until it has read many, has grown, or something went wrong in it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from daram import errors
from daram.errors import DocumentError, DocumentTooLarge, MissingExtra
from daram.text.load import LoadLimits, Section, load

_MEMORY: Final = 2 << 30  # bytes of address space beyond what the interpreter and its libraries map
_FRAME: Final = 64 << 20
_PIECE: Final = 64 << 10
_ENDING: Final = 5.0
_DOCUMENTS: Final = 200  # that one child reads
_GROWN: Final = 256 << 20  # bytes that a child may have taken at any time and still read another document
_ORPHAN: Final = 2.0
_ERRORS: Final = {kind.code: kind for kind in (errors.UnsupportedDocument, DocumentTooLarge, DocumentError)}


class _Ended(msgspec.Struct, tag="ended"):
    code: str = ""
    problem: str = ""
    extra: str = ""
    fit: bool = True
    """Whether the child may read another document."""


class _Said(msgspec.Struct, tag="said"):
    section: Section


class _Job(msgspec.Struct):
    path: str
    name: str
    media_type: str | None
    limits: LoadLimits
    seconds: int


class _Dead(Exception):
    """A child that waited for work has ended meanwhile."""


_frame: Final = msgspec.msgpack.Decoder(_Said | _Ended)
_job: Final = msgspec.msgpack.Decoder(_Job)


class Readers:
    """The processes that read documents. While ``kept``, at most ``most`` of them wait for the next document."""

    def __init__(self, most: int = 2) -> None:
        self._most = most
        self._keeping = 0
        self._idle: list[_Child] = []

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While the block runs, a process that has read a document waits for another."""
        self._keeping += 1
        try:
            yield
        finally:
            self._keeping -= 1
            if not self._keeping:
                await asyncio.shield(self.rest())

    async def rest(self) -> None:
        """End the processes that wait."""
        while self._idle:
            await self._idle.pop().end()

    async def sections(
        self,
        path: Path,
        *,
        name: str,
        media_type: str | None = None,
        limits: LoadLimits = LoadLimits(),
        seconds: int = 1800,
        silence: float = 120.0,
    ) -> AsyncGenerator[Section, None]:
        """The sections of a document (see ``daram.text.load``).

        ``seconds`` bounds the processor time of the whole, ``silence`` the time between two sections. Raises
        ``DocumentError`` and its children, ``MissingExtra``.
        """
        job = _Job(str(path), name, media_type, limits, seconds)
        while True:
            child = self._idle.pop() if self._idle else await _Child.start()
            ended: _Ended | None = None
            try:
                async with aclosing(child.read(job, silence)) as frames:
                    async for frame in frames:
                        if isinstance(frame, _Ended):
                            ended = frame
                        else:
                            yield frame.section
            except _Dead:
                continue
            finally:
                if ended is not None and ended.fit and self._keeping and len(self._idle) < self._most:
                    self._idle.append(child)
                elif ended is not None:
                    await asyncio.shield(child.end())
                else:
                    await asyncio.shield(child.kill())
            if ended is not None and ended.extra:
                raise MissingExtra(f"Reading {Path(name).suffix} files", ended.extra)
            if ended is not None and ended.code:
                raise _ERRORS[ended.code](name, ended.problem)
            return


class _Child:
    """One process, as its parent has it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._count = 0

    @classmethod
    async def start(cls) -> _Child:
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-X", "utf8", "-m", "daram.knowledge.extract"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    async def read(self, job: _Job, silence: float) -> AsyncGenerator[_Said | _Ended, None]:
        """The frames of one document; the last is ``_Ended``."""
        self._count += 1
        first = True
        with suppress(BrokenPipeError, ConnectionResetError):
            self._stdin.write(_framed(msgspec.msgpack.encode(job)))
            await self._stdin.drain()
        while True:
            try:
                async with asyncio.timeout(silence):
                    (size,) = struct.unpack(">I", await self._stdout.readexactly(4))
                    frame = _frame.decode(await self._stdout.readexactly(size))
            except TimeoutError:
                raise DocumentTooLarge(job.name, f"its parser was silent for {silence:g} s and was stopped") from None
            except asyncio.IncompleteReadError:
                if first and self._count > 1:
                    raise _Dead from None
                raise DocumentTooLarge(
                    job.name,
                    "its parser ended without an answer: it needs more memory or time than a document may take",
                ) from None
            first = False
            yield frame
            if isinstance(frame, _Ended):
                return

    async def end(self) -> None:
        """Have it end by itself: a signal to a child that is just ending would take its exit from the loop, which then
        warns."""
        self._stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDING):
                await self._process.wait()
                return
        await self.kill()

    async def kill(self) -> None:
        """End it now."""
        self._stdin.close()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        # What it had written is read to its end first: to the loop a child is not over while its pipe is full.
        while await self._stdout.read(_PIECE):
            pass
        await self._process.wait()


# --- the child ------------------------------------------------------------------------------------------------------


def _framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _send(frame: _Said | _Ended) -> None:
    data = msgspec.msgpack.encode(frame)
    if len(data) > _FRAME:
        raise DocumentTooLarge("", f"one section of more than {_FRAME:,} bytes")
    sys.stdout.buffer.write(_framed(data))
    sys.stdout.buffer.flush()


def _next_job() -> _Job | None:
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        return None
    return _job.decode(sys.stdin.buffer.read(*struct.unpack(">I", head)))


def _bound() -> None:
    try:
        import resource
    except ImportError:  # Windows: the silence is bounded all the same
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the address space says little about memory
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _bound_time(seconds: int) -> None:
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _has_grown() -> bool:
    status = Path("/proc/self/status")
    if status.exists():
        # Its own high-water mark: that of getrusage begins with what the parent held when it started this process.
        (mark,) = (line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM"))
        return int(mark.split()[1]) * 1024 > _GROWN
    try:
        import resource
    except ImportError:
        return False
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit > _GROWN


def _end_with(parent: int) -> None:
    """A parent that was killed cannot end a parser that hangs."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def _read(job: _Job) -> _Ended:
    try:
        for section in load(Path(job.path), name=job.name, media_type=job.media_type, limits=job.limits):
            _send(_Said(section))
        return _Ended()
    except MissingExtra as error:
        return _Ended(extra=error.extra)
    except DocumentError as error:
        return _Ended(error.code, error.problem)
    except MemoryError:
        return _Ended(DocumentTooLarge.code, "it takes more memory than a document may", fit=False)
    except RecursionError:
        return _Ended(DocumentError.code, "is nested too deeply", fit=False)
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent is told
        return _Ended(DocumentError.code, f"cannot be read ({type(error).__name__}: {error})"[:500], fit=False)


def main() -> None:
    """The child: jobs on stdin, frames on stdout."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread of it maps memory that the bound would count
    _end_with(os.getppid())
    _bound()
    for count in itertools.count(1):
        job = _next_job()
        if job is None:
            return
        _bound_time(job.seconds)
        ended = _read(job)
        ended.fit = ended.fit and count < _DOCUMENTS and not _has_grown()
        _send(ended)


if __name__ == "__main__":
    main()
