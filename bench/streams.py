"""Many streams at once: what one costs the service, beside an ASGI application that does nothing but stream.

``python -m bench.streams``: 50 streams, then 200 (``--full``: 200 and 2,000), of a model that says 20 words a second.
They begin one after the other and then all run together for five seconds; every stream must have every word, in frames
whose numbers rise by one. What a word costs is measured while all run, what a stream costs beside its words is what is
left. Memory is the most that the process grew by; processor time is the process's own. How late a word is: beyond its
time since the stream's first word.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil

RATE = 20.0  # words a second, of each stream
BEGIN = 200.0  # streams that begin in a second
TOGETHER = 5.0  # seconds that all of them run


class Load(NamedTuple):
    """What a server did. ``cpu`` and ``wall`` are seconds from the first request to the last answer; ``word`` and
    ``stream``: seconds of the processor for a word while all streams ran, and for a stream beside its words; ``memory``
    in bytes; ``lost``: streams that lacked anything; ``frames`` that had words; ``late``: seconds, for 99 of 100 words.
    """

    wall: float
    cpu: float
    word: float
    stream: float
    memory: int
    lost: int
    words: int
    frames: int
    late: float


class Heard(NamedTuple):
    """One stream as its client has it: ``words`` are when each came, and ``frames`` how many they came in."""

    whole: bool
    words: list[float]
    frames: int


class _Client(asyncio.Protocol):
    """Keeps what comes and when it came; it is read when all is over, as the client must not be what is slow."""

    def __init__(self) -> None:
        self.chunks: list[tuple[float, bytes]] = []
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.chunks.append((time.monotonic(), data))
        if not self.began.done():
            self.began.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.began, self.ended):
            if not future.done():
                future.set_result(None)

    def heard(self, tokens: int) -> Heard:
        """What the stream said: all that it should, with numbers without gaps, in the service's frames or bare ones."""
        body = b"".join(data for _, data in self.chunks)
        ends, at = [], 0
        for when, data in self.chunks:
            at += len(data)
            ends.append((at, when))
        times = iter(ends)
        end, when = next(times, (0, 0.0))
        words: list[float] = []
        said: list[str] = []
        numbers: list[int] = []
        frames, named, at = 0, b"", 0
        for line in body.splitlines(keepends=True):
            at += len(line)
            while end < at:
                end, when = next(times)
            if line.startswith(b"event: "):
                named = line[7:].strip()
            elif line.startswith(b"data: "):
                data = json.loads(line[6:])
                numbers.append(data.get("sequence_number", len(numbers)))
                if named == b"response.output_text.delta":
                    frames += 1
                    said.append(data["delta"])
                    words += [when] * data["delta"].count(" ")
        whole = named == b"response.completed" and "".join(said) == "".join(f"w{i} " for i in range(tokens))
        return Heard(whole and all(b == a + 1 for a, b in pairwise(numbers)), words, frames)


async def measure(kind: str, streams: int, tokens: int, home: Path) -> Load:
    """Ask a new server of that kind for so many streams at once, of so many words each."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.stream_server", kind, str(tokens), str(RATE), str(home)),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    try:
        assert process.stdout is not None
        port, key = (await process.stdout.readline()).decode().split()
        await (await _ask(int(port), key)).ended  # everything is imported and open
        server = psutil.Process(process.pid)
        rest = server.memory_info().rss
        most = [rest]
        watching = asyncio.create_task(_watch(server, most))
        start, before = time.monotonic(), _cpu(server)
        clients = [await _ask(int(port), key, start + i / BEGIN) for i in range(streams)]
        await asyncio.wait([client.began for client in clients])
        together, since = time.monotonic(), _cpu(server)
        await asyncio.wait([client.ended for client in clients], return_when=asyncio.FIRST_COMPLETED)
        apart, until = time.monotonic(), _cpu(server)
        await asyncio.wait([client.ended for client in clients])
        wall, cpu = time.monotonic() - start, _cpu(server) - before
        most.append(server.memory_info().rss)
        watching.cancel()
        found = [client.heard(tokens) for client in clients]
        words = sum(len(one.words) for one in found)
        inside = sum(together < when <= apart for one in found for when in one.words)
        word = (until - since) / max(inside, 1)
        late = sorted(w - one.words[0] - n / RATE for one in found for n, w in enumerate(one.words))
        return Load(
            wall,
            cpu,
            word,
            max(cpu - words * word, 0.0) / streams,
            max(most) - rest,
            sum(not one.whole for one in found),
            words,
            sum(one.frames for one in found),
            late[len(late) * 99 // 100] if late else 0.0,
        )
    finally:
        process.terminate()
        await process.wait()


def _cpu(server: psutil.Process) -> float:
    used = server.cpu_times()
    return float(used.user + used.system)


async def _watch(server: psutil.Process, most: list[int]) -> None:
    while True:
        await asyncio.sleep(0.2)
        most[0] = max(most[0], server.memory_info().rss)


async def _ask(port: int, key: str, at: float = 0.0) -> _Client:
    """Ask for one stream, not before that time."""
    await asyncio.sleep(max(at - time.monotonic(), 0))
    transport, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    body = json.dumps({"input": "Go on.", "stream": True})
    transport.write(
        f"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return client


async def report(sizes: tuple[int, ...]) -> AsyncIterator[str]:
    """The table, line by line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 16_384), hard), hard))
    yield (
        f"{'streams':>8} {'server':8} {'words':>8} {'lost':>5} {'us/word':>8} {'ms/stream':>10} {'KiB/stream':>11} "
        f"{'words/frame':>12} {'late ms':>8} {'busy':>5}"
    )
    for streams in sizes:
        loads = {}
        tokens = int((streams / BEGIN + TOGETHER) * RATE)
        for kind in ("bare", "service"):
            with tempfile.TemporaryDirectory(prefix="daram-streams-") as home:
                loads[kind] = load = await measure(kind, streams, tokens, Path(home))
            yield (
                f"{streams:>8} {kind:8} {load.words:>8} {load.lost:>5} {load.word * 1e6:>8.1f} "
                f"{load.stream * 1e3:>10.2f} {load.memory / streams / 1024:>11.0f} "
                f"{load.words / max(load.frames, 1):>12.2f} {load.late * 1e3:>8.0f} {load.cpu / load.wall:>5.0%}"
            )
        word = loads["service"].word / max(loads["bare"].word, 1e-9)
        yield (
            f"{streams:>8} service / bare: {word:.1f} for a word, "
            f"{loads['service'].cpu / loads['bare'].cpu:.1f} for everything"
        )


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description="What a stream costs the service.")
    parser.add_argument("--full", action="store_true", help="200 and 2,000 streams instead of 50 and 200")
    options = parser.parse_args()
    print(f"{RATE:g} words a second in each stream, {BEGIN:g} streams begin in a second")

    async def tell() -> None:
        async for line in report((200, 2000) if options.full else (50, 200)):
            print(line, flush=True)

    asyncio.run(tell())


if __name__ == "__main__":
    main()
