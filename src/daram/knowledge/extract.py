"""Reading a document in a process of its own: a file that was made to hang or to flood a parser takes nothing with it.

The child runs ``daram.text.load`` and sends its sections as MessagePack behind four bytes of length; the last frame
says how it ended. It has bounds of memory and of processor time where the system knows them, and is killed when it is
silent for too long.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
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
_ERRORS: Final = {kind.code: kind for kind in (errors.UnsupportedDocument, DocumentTooLarge, DocumentError)}


class _Ended(msgspec.Struct, tag="ended"):
    code: str = ""
    problem: str = ""
    extra: str = ""


class _Said(msgspec.Struct, tag="said"):
    section: Section


class _Job(msgspec.Struct):
    path: str
    name: str
    media_type: str | None
    limits: LoadLimits
    seconds: int


_frame: Final = msgspec.msgpack.Decoder(_Said | _Ended)


async def sections(
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
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "utf8", "-m", "daram.knowledge.extract"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert child.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            child.stdin.write(msgspec.msgpack.encode(job))
            await child.stdin.drain()
        child.stdin.close()
        assert child.stdout is not None
        async with aclosing(_frames(child.stdout, name, silence)) as frames:
            async for section in frames:
                yield section
        # It has said all: a signal to a child that is just ending would take its exit from the loop, which then warns.
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDING):
                await child.wait()
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
        await asyncio.shield(_gone(child))


async def _gone(child: asyncio.subprocess.Process) -> None:
    # What it had written is read to its end first: to the loop a child is not over while its pipe is full.
    assert child.stdout is not None
    while await child.stdout.read(_PIECE):
        pass
    await child.wait()


async def _frames(stream: asyncio.StreamReader, name: str, silence: float) -> AsyncGenerator[Section, None]:
    while True:
        try:
            async with asyncio.timeout(silence):
                (size,) = struct.unpack(">I", await stream.readexactly(4))
                frame = _frame.decode(await stream.readexactly(size))
        except TimeoutError:
            raise DocumentTooLarge(name, f"its parser was silent for {silence:g} s and was stopped") from None
        except asyncio.IncompleteReadError:
            raise DocumentTooLarge(
                name, "its parser ended without an answer: it needs more memory or time than a document may take"
            ) from None
        if isinstance(frame, _Said):
            yield frame.section
            continue
        if frame.extra:
            raise MissingExtra(f"Reading {Path(name).suffix} files", frame.extra)
        if frame.code:
            raise _ERRORS[frame.code](name, frame.problem)
        return


def _send(frame: _Said | _Ended) -> None:
    data = msgspec.msgpack.encode(frame)
    if len(data) > _FRAME:
        raise DocumentTooLarge("", f"one section of more than {_FRAME:,} bytes")
    sys.stdout.buffer.write(struct.pack(">I", len(data)) + data)
    sys.stdout.buffer.flush()


def _bound(seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the silence is bounded all the same
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the address space says little about memory
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def main() -> None:
    """The child: one job on stdin, frames on stdout."""
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Job)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread of it maps memory that the bound would count
    _bound(job.seconds)
    try:
        for section in load(Path(job.path), name=job.name, media_type=job.media_type, limits=job.limits):
            _send(_Said(section))
        end = _Ended()
    except MissingExtra as error:
        end = _Ended(extra=error.extra)
    except DocumentError as error:
        end = _Ended(error.code, error.problem)
    except MemoryError:
        end = _Ended(DocumentTooLarge.code, "it takes more memory than a document may")
    except RecursionError:
        end = _Ended(DocumentError.code, "is nested too deeply")
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent is told
        end = _Ended(DocumentError.code, f"cannot be read ({type(error).__name__}: {error})"[:500])
    _send(end)


if __name__ == "__main__":
    main()
