"""``python -m bench.postgres_turns``: what a turn costs on PostgreSQL, beside statements written by hand."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import NamedTuple

import psycopg

from bench.contenders import OWNER, TEXT
from bench.postgres_by_hand import ByHand, Contender, Daram
from bench.turns import TASKS, WINDOW
from daram import user
from daram.store.postgres.engine import PostgresStore
from daram.testing.servers import PostgresServer

Turn = Callable[[Contender, str], Awaitable[object]]


class Scale(NamedTuple):
    """How much to measure."""

    rounds: int
    turns: int
    appends: int
    lengths: tuple[int, ...] = (10, 1_000, 100_000)


QUICK = Scale(rounds=20, turns=10, appends=5)
FULL = Scale(rounds=100, turns=10, appends=10)


async def appended(contender: Contender, conversation: str) -> None:
    """A question with the last 20 messages, then the answer."""
    await contender.append(conversation, "user", WINDOW)
    await contender.append(conversation, "assistant", 0)


async def answered(contender: Contender, conversation: str) -> None:
    """The same, with the row of the answer in between."""
    await contender.turn(conversation, WINDOW)


async def fill(store: PostgresStore, id: str, length: int) -> None:
    """``length`` messages of 200 characters."""
    await store.create(OWNER, id=id)
    for start in range(0, length, 100):
        await store.append(OWNER, id, [user(TEXT) for _ in range(min(100, length - start))])


async def turn_times(runs: list[tuple[Contender, str]], turn: Turn, scale: Scale) -> list[float]:
    """The median time of a turn for each, in seconds.

    All take turns, so that what slows the machine down slows down all of them.
    """
    times: list[list[float]] = [[] for _ in runs]
    for n in range(scale.rounds * scale.turns):
        for i in range(len(runs)) if n % 2 else reversed(range(len(runs))):
            start = time.perf_counter()
            await turn(*runs[i])
            times[i].append(time.perf_counter() - start)
    return [median(mine) for mine in times]


async def throughput(contender: Contender, turn: Turn, turns: int, name: str) -> float:
    """Turns per second of 32 tasks, each on a conversation of its own."""

    async def task(number: int) -> None:
        for _ in range(turns):
            await turn(contender, f"{name} {number}")

    start = time.perf_counter()
    await asyncio.gather(*(task(number) for number in range(TASKS)))
    return TASKS * turns / (time.perf_counter() - start)


async def many_tasks(ours: Contender, theirs: Contender, turn: Turn, scale: Scale) -> tuple[float, float]:
    """The throughput of both in their best round; they take turns, so that each has its share of the quiet moments."""
    found: tuple[list[float], list[float]] = ([], [])
    for n in range(max(2, scale.rounds)):
        for i in (0, 1) if n % 2 else (1, 0):
            contender, name = ((ours, "many"), (theirs, "theirs"))[i]
            found[i].append(await throughput(contender, turn, scale.appends, name))
    return max(found[0]), max(found[1])


def mark(passed: bool, goal: str) -> str:
    """The goal, and whether it was met."""
    return f"(wanted {goal}: {'PASS' if passed else 'FAIL'})"


async def measure(url: str, scale: Scale) -> bool:
    """Measure, print; whether every goal was met."""
    ours, theirs = Daram(url), ByHand(url)
    for length in scale.lengths:
        await fill(ours.store, str(length), length)
    for name in ("one", "by hand", *(f"{who} {n}" for who in ("many", "theirs") for n in range(TASKS))):
        await fill(ours.store, name, 30)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("VACUUM ANALYZE")
        version, commit, fsync = [
            (await (await connection.execute(query)).fetchone() or [""])[0]
            for query in ("SHOW server_version", "SHOW synchronous_commit", "SHOW fsync")
        ]
    print(f"PostgreSQL {version}, synchronous_commit={commit}, fsync={fsync}")
    good = []
    times = await turn_times([(ours, str(length)) for length in scale.lengths], answered, scale)
    for length, seconds in zip(scale.lengths, times, strict=True):
        ratio = seconds / times[0]
        good.append(ratio <= 1.2)
        print(f"a turn at {length:>7,} messages: {seconds * 1000:.2f} ms, {ratio:.2f}x {mark(good[-1], '<= 1.2x')}")
    for what, turn in (("two appends", appended), ("a turn", answered)):
        mine, hand = await turn_times([(ours, "one"), (theirs, "by hand")], turn, scale)
        good.append(mine / hand <= 1.5)
        against = f"by hand {hand * 1000:.2f} ms, {mine / hand:.2f}x"
        print(f"one task: {what}: {mine * 1000:.2f} ms, {against} {mark(good[-1], '<= 1.5x')}")
        fast, by_hand = await many_tasks(ours, theirs, turn, scale)
        good.append(fast / by_hand >= 0.7)
        against = f"by hand {by_hand:,.0f}/s, {fast / by_hand:.2f}x"
        print(f"{TASKS} tasks: {what}: {fast:,.0f}/s, {against} {mark(good[-1], '>= 0.7x')}")
    await ours.close()
    await theirs.close()
    return all(good)


def main() -> None:
    """Parse the arguments, start a server, measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.postgres_turns", description="What a turn costs.")
    parser.add_argument("--full", action="store_true", help="measure longer, for steadier numbers")
    options = parser.parse_args()
    with PostgresServer() as server:
        asyncio.run(measure(server.url, FULL if options.full else QUICK))


if __name__ == "__main__":
    main()
