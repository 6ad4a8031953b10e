"""Many streams at once: what one costs the service, beside an ASGI application that does nothing but stream.

``python -m bench.streams``: 50 streams, then 200 (``--full``: 200 and 2,000), of a model that says 20 words a second.
Every stream must have every word. Memory is the most that the process grew by; processor time is the process's own.
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
from pathlib import Path
from typing import NamedTuple

import psutil

RATE = 20.0
TOKENS = 100


class Load(NamedTuple):
    """What a server did: seconds, of the processor too; bytes; how many streams lacked a word; frames with words."""

    wall: float
    cpu: float
    memory: int
    lost: int
    frames: int


async def measure(kind: str, streams: int, tokens: int, home: Path) -> Load:
    """Ask a new server of that kind for so many streams at once."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.stream_server", kind, str(tokens), str(RATE), str(home)),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    try:
        assert process.stdout is not None
        port, key = (await process.stdout.readline()).decode().split()
        await _ask(int(port), key, tokens)  # everything is imported and open
        server = psutil.Process(process.pid)
        before, rest = server.cpu_times(), server.memory_info().rss
        watching = asyncio.create_task(_watch(server))
        start = time.monotonic()
        found = await asyncio.gather(*(_ask(int(port), key, tokens, i / streams) for i in range(streams)))
        wall = time.monotonic() - start
        after = server.cpu_times()
        watching.cancel()
        most = max(_seen)
        cpu = after.user + after.system - before.user - before.system
        return Load(wall, cpu, most - rest, sum(not whole for whole, _ in found), sum(frames for _, frames in found))
    finally:
        process.terminate()
        await process.wait()


_seen: list[int] = []


async def _watch(server: psutil.Process) -> None:
    _seen[:] = [server.memory_info().rss]
    while True:
        await asyncio.sleep(0.2)
        _seen.append(server.memory_info().rss)


async def _ask(port: int, key: str, tokens: int, delay: float = 0.0) -> tuple[bool, int]:
    """One stream: whether all its words came, and in how many frames."""
    await asyncio.sleep(delay)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    body = json.dumps({"input": "Go on.", "stream": True})
    writer.write(
        f"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    words: list[str] = []
    frames = 0
    named = b""
    while line := await reader.readline():
        if line.startswith(b"event: "):
            named = line[7:].strip()
        elif line.startswith(b"data: ") and named == b"response.output_text.delta":
            frames += 1
            words.append(json.loads(line[6:])["delta"])
    writer.close()
    said = "".join(words)
    return named == b"response.completed" and said == "".join(f"w{i} " for i in range(tokens)), frames


async def report(sizes: tuple[int, ...]) -> list[str]:
    """The table, as lines."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 16_384), hard), hard))
    lines = [f"{'streams':>8} {'server':8} {'lost':>5} {'KiB/stream':>11} {'us/word':>8} {'words/frame':>12} {'s':>6}"]
    for streams in sizes:
        loads = {}
        for kind in ("bare", "service"):
            with tempfile.TemporaryDirectory(prefix="daram-streams-") as home:
                loads[kind] = load = await measure(kind, streams, TOKENS, Path(home))
            words = streams * TOKENS
            per_word, per_stream = load.cpu / words * 1e6, load.memory / streams / 1024
            lines.append(
                f"{streams:>8} {kind:8} {load.lost:>5} {per_stream:>11.0f} {per_word:>8.0f} "
                f"{words / max(load.frames, 1):>12.2f} {load.wall:>6.1f}"
            )
        ratio = loads["service"].cpu / loads["bare"].cpu
        lines.append(f"{streams:>8} processor time, service / bare: {ratio:.1f}")
    return lines


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description="What a stream costs the service.")
    parser.add_argument("--full", action="store_true", help="200 and 2,000 streams instead of 50 and 200")
    options = parser.parse_args()
    print(f"{TOKENS} words in each stream, {RATE:g} a second")
    print("\n".join(asyncio.run(report((200, 2000) if options.full else (50, 200)))))


if __name__ == "__main__":
    main()
