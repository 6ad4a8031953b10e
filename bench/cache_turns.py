"""``python -m bench.cache_turns``: whether a cache earns its place, by engine and by the distance to it.

A turn is a question with the last 20 messages (``--window``) and its answer, in a conversation of 200 messages of 200
characters; no model is asked. Each engine is measured without a cache, with one in the process, with one in a Redis of
its own on this machine, and with both; from here, and over a connection on which every reply is 2 ms late. The rows of
a group are measured in turns within one run: compare them with each other, not with another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from bench.contenders import OWNER, TEXT
from bench.disk import fsync_cost
from bench.turns import WINDOW
from daram.cache.breaker import Breaker
from daram.cache.cached import CachedStore
from daram.cache.url import cache_from_url
from daram.model import user
from daram.store.base import Store
from daram.store.url import store_from_url
from daram.testing.proxy import TcpProxy
from daram.testing.servers import PostgresServer, RedisServer

TASKS = 16
FAR = 0.002
CACHES = ("none", "memory", "Redis", "both")


class Scale(NamedTuple):
    """How much to measure: turns of one task and of each of many, per round; ``window``
    of a turn and ``length`` of a conversation before the first, in messages."""

    rounds: int
    alone: int
    each: int
    window: int = WINDOW
    length: int = 200


QUICK = Scale(rounds=3, alone=60, each=20)
FULL = Scale(rounds=7, alone=200, each=60)


class Line(NamedTuple):
    """A line of the table: ``*_ms`` are milliseconds of processor time for one turn of many tasks; ``hits`` of 1."""

    engine: str
    away: str
    cache: str
    ms: float
    per_second: float
    engine_ms: float | None
    cache_ms: float | None
    own_ms: float
    hits: float | None


def _be_far(port: int, seconds: float, pipe: Connection) -> None:
    async def run() -> None:
        async with TcpProxy(port) as proxy:
            proxy.delay = seconds
            pipe.send(proxy.port)
            await asyncio.get_running_loop().run_in_executor(None, pipe.poll, None)  # until the other end is closed

    asyncio.run(run())


@contextlib.contextmanager
def distant(port: int, seconds: float) -> Iterator[int]:
    """The port of a proxy, in a process of its own, by which every reply of the server at ``port`` is late."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_be_far, args=(port, seconds, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield int(pipe.recv())
    finally:
        pipe.close()
        process.join()


def processor_seconds(pid: int | None) -> float:
    """What a process and its children have used so far, user and system."""
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *(root.children(recursive=True) if pid else ())):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            if pid:
                total += times.children_user + times.children_system
    return total


class Contender:
    """A store with a cache in front of it, and conversations in it; each turn reads the last ``window`` messages."""

    def __init__(self, name: str, store: Store, window: int) -> None:
        self.name = name
        self.store = store
        self.window = window
        self.alone: list[float] = []
        self.many: list[float] = []
        self.used: list[tuple[float, float, float]] = []

    async def fill(self, length: int) -> None:
        """A conversation for each task."""
        for number in range(TASKS):
            for start in range(0, length, 100):
                batch = [user(TEXT) for _ in range(min(100, length - start))]
                await self.store.append(OWNER, f"c{number}", batch, create=True)

    async def turns(self, number: int, count: int) -> None:
        """So many turns, one behind the other."""
        for _ in range(count):
            turn = await self.store.begin_turn(OWNER, f"c{number}", [user(TEXT)], window=self.window)
            assert turn.answer is not None
            assert len(turn.appended.tail) == self.window
            await self.store.finish_turn(OWNER, f"c{number}", turn.answer.id, turn.answer.token, text=TEXT)

    async def round(self, scale: Scale, pids: Sequence[int | None]) -> None:
        """Measure: one task, then many; ``pids`` of the engine, of the cache, and None for this process."""
        await self.turns(0, 2)
        start = time.perf_counter()
        await self.turns(0, scale.alone)
        self.alone.append((time.perf_counter() - start) / scale.alone)
        before = [processor_seconds(pid) for pid in pids]
        start = time.perf_counter()
        await asyncio.gather(*(self.turns(number, scale.each) for number in range(TASKS)))
        self.many.append(TASKS * scale.each / (time.perf_counter() - start))
        after = [processor_seconds(pid) for pid in pids]
        engine, cache, own = ((b - a) / (TASKS * scale.each) for a, b in zip(before, after, strict=True))
        self.used.append((engine, cache, own))

    def line(self, engine: str, away: str) -> Line:
        """What was found: medians of the rounds."""
        engine_ms, cache_ms, own_ms = (median(each) * 1000 for each in zip(*self.used, strict=True))
        hits = None
        if isinstance(self.store, CachedStore):
            hits = self.store.hits / max(1, self.store.hits + self.store.misses)
        return Line(
            engine,
            away,
            self.name,
            median(self.alone) * 1000,
            median(self.many),
            None if engine == "SQLite" else engine_ms,
            cache_ms if self.name in ("Redis", "both") else None,
            own_ms,
            hits,
        )


def with_cache(name: str, engine: Store, cache_url: str) -> Store:
    """The store behind the cache of that name."""
    if name == "none":
        return engine
    url = {"memory": "memory://", "Redis": cache_url, "both": f"memory://,{cache_url}"}[name]
    # What is asked here is what a cache brings, not when it is left alone: the budget is ample.
    return CachedStore(engine, cache_from_url(url), breaker=Breaker(budget=5, failures=1 << 30))


@contextlib.asynccontextmanager
async def contenders(
    names: Sequence[str], url_of: Callable[[str], str], cache_url: str, scale: Scale
) -> AsyncIterator[list[Contender]]:
    """One for each cache, each on data of its own."""
    made: list[Contender] = []
    try:
        for name in names:
            made.append(Contender(name, with_cache(name, store_from_url(url_of(name)), cache_url), scale.window))
            await made[-1].fill(scale.length)
        yield made
    finally:
        for each in made:
            await each.store.close()


async def group(
    engine: str,
    away: str,
    names: Sequence[str],
    url_of: Callable[[str], str],
    pid: int | None,
    cache: RedisServer,
    scale: Scale,
) -> list[Line]:
    """One engine at one distance, with each of the caches."""
    assert cache.process is not None
    cache.flush()
    async with contenders(names, url_of, cache.url, scale) as found:
        for n in range(scale.rounds):
            for each in found if n % 2 else reversed(found):
                await each.round(scale, (pid, cache.process.pid, None))
        return [each.line(engine, away) for each in found]


async def measure(home: Path, scale: Scale) -> list[Line]:
    """All groups."""
    lines: list[Line] = []
    with RedisServer() as cache:
        lines += await group("SQLite", "here", CACHES, lambda name: f"sqlite:///{home}/{name}.db", None, cache, scale)
        with PostgresServer() as postgres:
            databases = {name: postgres.database() for name in CACHES}
            lines += await by_distance("PostgreSQL", postgres, databases, cache, scale)
        with RedisServer(settings={"appendonly": "yes", "appendfsync": "always"}) as redis:
            lines += await by_distance("Redis", redis, {"none": "0", "memory": "1"}, cache, scale)
    return lines


async def by_distance(
    engine: str, server: PostgresServer | RedisServer, databases: Mapping[str, str], cache: RedisServer, scale: Scale
) -> list[Line]:
    """A server from here and from afar, with the caches that ``databases`` has one for."""
    assert server.process is not None
    lines: list[Line] = []
    for away in ("here", "2 ms"):
        with contextlib.ExitStack() as stack:
            port = server.port if away == "here" else stack.enter_context(distant(server.port, FAR))
            base = server.url_of("", port=port) if isinstance(server, PostgresServer) else f"redis://127.0.0.1:{port}/"
            urls = {name: f"{base}{database}" for name, database in databases.items()}
            lines += await group(engine, away, list(urls), urls.__getitem__, server.process.pid, cache, scale)
    return lines


def table(lines: Sequence[Line]) -> str:
    """The lines in columns."""
    cells = [
        ("engine", "away", "cache", "one task", f"{TASKS} tasks", "engine CPU", "cache CPU", "own CPU", "hits"),
        ("", "", "", "ms a turn", "turns/s", "ms a turn", "ms a turn", "ms a turn", ""),
    ]
    for each in lines:
        times = ["-" if ms is None else f"{ms:.2f}" for ms in (each.engine_ms, each.cache_ms, each.own_ms)]
        hits = "-" if each.hits is None else f"{each.hits:.0%}"
        cells.append(
            (each.engine, each.away, each.cache, f"{each.ms:.2f}", f"{each.per_second:,.0f}", *times, hits)  # type: ignore[arg-type]
        )
    widths = [max(len(line[i]) for line in cells) for i in range(9)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache_turns", description="Whether a cache earns its place.")
    parser.add_argument("--full", action="store_true", help="measure longer, for steadier numbers")
    parser.add_argument(
        "--window", type=int, default=WINDOW, metavar="N", help=f"messages that a turn reads ({WINDOW})"
    )
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # that the cache's server keeps nothing is meant here
    scale = (FULL if options.full else QUICK)._replace(window=options.window)
    with tempfile.TemporaryDirectory(prefix="daram-bench-") as home:
        sync = fsync_cost(Path(home))
        lines = asyncio.run(measure(Path(home), scale))
    print(f"a turn: a question with the last {scale.window} messages, and its answer; {scale.length} stood before")
    print(f"a sync of 4 KiB on this disk: {sync * 1000:.2f} ms; every engine syncs before it acknowledges\n")
    print(table(lines))


if __name__ == "__main__":
    main()
