"""Two processes take turns on the same conversations in PostgreSQL, with one Redis as their cache and a bad way to it.

Between any two steps the server is flushed, rolled back to an older state, given another conversation's bytes or junk,
killed and started empty, cut off, silent for longer than the budget, or cut in the middle of an extend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from tests.faults.test_cache_redis import ServerValues
from tests.postgres import Databases
from tests.stateful.cache_machine import CacheMachine

from daram.store.postgres.engine import PostgresStore
from daram.testing.processes import StoreProcess
from daram.testing.proxy import TcpProxy
from daram.testing.servers import RedisServer

LEAN = settings(max_examples=6, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
CHILD = Path(__file__).with_name("cached_process.py")
ALWAYS = 1 << 30


class Way:
    """The server as ``CacheMachine`` ill-treats it: past the proxy for what it holds, by the proxy for its moods."""

    def __init__(self, server: RedisServer, proxy: TcpProxy) -> None:
        self.server = server
        self.proxy = proxy
        self.client = server.connect()
        self.client.flushall()
        self.past: list[dict[bytes, bytes]] = []
        self._mood = "well"

    @property
    def values(self) -> MutableMapping[bytes, bytes]:
        return ServerValues(self.client)

    @values.setter
    def values(self, wanted: MutableMapping[bytes, bytes]) -> None:
        self.client.flushall()
        ServerValues(self.client).update(wanted)

    def remember(self) -> None:
        self.past = [*self.past[-20:], dict(self.values)]

    @property
    def mood(self) -> str:
        return self._mood

    @mood.setter
    def mood(self, mood: str) -> None:
        self._mood = mood
        proxy = self.proxy
        proxy.silent = mood == "paused"  # what was under way arrives when it speaks again
        proxy.refusing = mood == "dead"
        proxy.about = b"" if mood == "dead" else b"EVALSHA"
        proxy.drop = ALWAYS if mood in ("dead", "breaks before") else 0
        proxy.lose = ALWAYS if mood in ("tears", "breaks after") else 0
        if mood == "tears":
            for key, value in dict(self.values).items():
                self.values[key] = value[: len(value) // 2]

    def restart(self) -> None:
        """Killed, and started empty."""
        self.client.close()
        self.server.kill()
        self.server.start()
        self.client = self.server.connect()

    async def close(self) -> None:
        self.client.close()


class ProcessMachine(CacheMachine):
    """The handles are in other processes; only the engine that they are checked by is here."""

    processes: ClassVar[list[StoreProcess]]
    databases: ClassVar[Databases]
    server: ClassVar[RedisServer]
    tiered: ClassVar[bool]
    mutant = False
    budget = 0.1  # seconds of a busy machine for a call; each that meets a silence takes as long
    hits: ClassVar[int]

    @initialize()
    def start(self) -> None:
        self.databases.empty()
        # What a crash of that server keeps is not the matter here, and a slow disk must not make it hours.
        url = self.databases.url("machine") + "?options=-c%20synchronous_commit%3Doff"
        self.runner = asyncio.Runner()
        self.proxy = TcpProxy(self.server.port)
        self.runner.run(self.proxy.__aenter__())
        self.engine = PostgresStore(url)
        self.cache = Way(self.server, self.proxy)  # type: ignore[assignment]
        cache_url = self.server.url_of(port=self.proxy.port)
        self.handles = [  # type: ignore[var-annotated]
            process.open_from(CHILD, "open_cached", url, cache_url, self.budget, self.tiered, self.mutant)
            for process in self.processes
        ]
        self.parents, self.running, self.sent = {}, [], []

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.cache.mood = "well"
            for handle in self.handles:
                type(self).hits += int(self.runner.run(handle.describe())["hits"])
                self.runner.run(handle.close())
            self.runner.run(self.proxy.__aexit__(None, None, None))
        super().teardown()

    @rule(again=st.integers(0, 4))
    def killed_and_started_empty(self, again: int) -> None:
        if again == 0:  # it takes longer than all the rest
            self.cache.restart()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def processes() -> Iterator[list[StoreProcess]]:
    found = [StoreProcess() for _ in range(2)]
    yield found
    for process in found:
        process.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One that may be killed."""
    with RedisServer() as server:
        yield server


def machine(
    processes: list[StoreProcess], databases: Databases, server: RedisServer, *, tiered: bool = False
) -> type[ProcessMachine]:
    made = type("Machine", (ProcessMachine,), {"steps": 0, "hits": 0})
    made.processes, made.databases, made.server, made.tiered = processes, databases, server, tiered
    return made


@pytest.mark.slow
@pytest.mark.parametrize("tiered", [False, True], ids=["Redis", "memory and Redis"])
def test_no_turn_sees_stale_history(
    processes: list[StoreProcess], databases: Databases, server: RedisServer, tiered: bool
) -> None:
    run_state_machine_as_test(machine(processes, databases, server, tiered=tiered), settings=LEAN)


@pytest.mark.soak
@pytest.mark.parametrize("tiered", [False, True], ids=["Redis", "memory and Redis"])
def test_no_turn_sees_stale_history_for_twenty_thousand_steps(
    processes: list[StoreProcess], databases: Databases, server: RedisServer, tiered: bool
) -> None:
    made = machine(processes, databases, server, tiered=tiered)
    run_state_machine_as_test(made, settings=settings(LEAN, max_examples=420, stateful_step_count=60))
    print(f"{made.steps:,} steps, {made.hits:,} tails from the cache")
    assert made.steps >= 20_000, made.steps
    assert made.hits > 1000, "the cache was hardly asked"


def test_the_machine_catches_a_cache_without_the_etag_check(databases: Databases, server: RedisServer) -> None:
    with StoreProcess() as one, StoreProcess() as other:
        made = machine([one, other], databases, server)
        made.mutant, made.budget = True, 1.0  # a busy machine must not hide it behind misses
        how = settings(LEAN, max_examples=1000, phases=[Phase.generate])
        with pytest.raises(AssertionError):
            run_state_machine_as_test(made, settings=how)
