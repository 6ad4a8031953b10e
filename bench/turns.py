"""The cost of a turn: at any length, for one task and for many, beside the same statements written by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.contenders import OWNER, TEXT, Contender, Daram, Grouped, OneByOne, prepared
from bench.disk import SlowDisk, fsync_cost

WINDOW = 20
TASKS = 32
# From this cost of a sync on, many tasks must gain from sharing it, in seconds.
SLOW = 0.002


class Row(NamedTuple):
    """One line of the table; ``passed`` is None where nothing was promised."""

    what: str
    measured: str
    against: str
    ratio: str
    wanted: str
    passed: bool | None


class Scale(NamedTuple):
    """How much to measure."""

    rounds: int
    turns: int
    appends: int
    lengths: tuple[int, ...] = (10, 1_000, 100_000)


QUICK = Scale(rounds=40, turns=6, appends=20)
FULL = Scale(rounds=150, turns=10, appends=40)


async def turn(contender: Contender, conversation: int = 0) -> None:
    """The user's message with the last 20 messages, then the answer."""
    await contender.append(conversation, "user", WINDOW)
    await contender.append(conversation, "assistant", 0)


async def turn_times(contenders: list[Contender], scale: Scale) -> list[float]:
    """The time of a turn for each, in seconds: the median of its best round.

    Within a round all take turns, so that what slows the machine down slows down all of them.
    """
    rounds: list[list[float]] = [[] for _ in contenders]
    for n in range(scale.rounds):
        times: list[list[float]] = [[] for _ in contenders]
        for _ in range(scale.turns):
            for i in range(len(contenders)) if n % 2 else reversed(range(len(contenders))):
                start = time.perf_counter()
                await turn(contenders[i])
                times[i].append(time.perf_counter() - start)
        for found, mine in zip(rounds, times, strict=True):
            found.append(median(mine))
    return [min(found) for found in rounds]


async def by_length(home: Path, scale: Scale) -> list[Row]:
    """A turn at 10, 1,000 and 100,000 stored messages."""
    contenders: list[Contender] = [Daram(await prepared(home / f"{length}.db", 1, length)) for length in scale.lengths]
    for contender in contenders:
        await turn(contender)
    times = await turn_times(contenders, scale)
    for contender in contenders:
        await contender.close()
    rows = []
    for length, seconds in zip(scale.lengths, times, strict=True):
        ratio = seconds / times[0]
        is_first = length == scale.lengths[0]
        rows.append(
            Row(
                f"a turn at {length:,} messages",
                f"{seconds * 1000:.2f} ms",
                "" if is_first else f"{times[0] * 1000:.2f} ms at {scale.lengths[0]}",
                "" if is_first else f"{ratio:.2f}x",
                "" if is_first else "<= 1.2x",
                None if is_first else ratio <= 1.2,
            )
        )
    return rows


async def one_task(home: Path, scale: Scale) -> list[Row]:
    """One task against the same statements by hand."""
    mine = Daram(await prepared(home / "one.db", 1, 1000))
    theirs = OneByOne(await prepared(home / "one-by-hand.db", 1, 1000))
    contenders: list[Contender] = [theirs, mine]
    for contender in contenders:
        await turn(contender)
    hand, ours = await turn_times(contenders, scale)
    for contender in contenders:
        await contender.close()
    ratio = ours / hand
    # Two appends, and for each the hop to the writer and back where the disk is too fast to hide it.
    passed = ratio <= 1.5 or (ours - hand) / 2 <= 0.0002
    return [
        Row(
            "one task: a turn",
            f"{ours * 1000:.2f} ms",
            f"{hand * 1000:.2f} ms by hand",
            f"{ratio:.2f}x, {(ours - hand) / 2 * 1000:+.2f} ms an append",
            "<= 1.5x or + 0.2 ms",
            passed,
        )
    ]


async def throughput(contender: Contender, scale: Scale) -> float:
    """Appends per second of 32 tasks, each on a conversation of its own, every second one with the last 20 messages."""

    async def task(number: int) -> None:
        for i in range(scale.appends):
            await contender.append(number, "user", WINDOW if i % 2 == 0 else 0)

    start = time.perf_counter()
    await asyncio.gather(*(task(number) for number in range(TASKS)))
    return TASKS * scale.appends / (time.perf_counter() - start)


async def many_tasks(home: Path, scale: Scale, extra: float, sync: float) -> list[Row]:
    """32 tasks against one transaction each, and against a group commit written by hand."""
    disk = SlowDisk(extra) if extra else None
    vfs = disk.name if disk else None
    makers: list[Callable[[Path, str | None], Contender]] = [Daram, OneByOne, Grouped]
    found: list[list[float]] = [[] for _ in makers]
    contenders = []
    for i, make in enumerate(makers):
        contenders.append(make(await prepared(home / f"many{extra}{i}.db", TASKS, 30), vfs))
    for n in range(scale.rounds // 4):
        for i in (0, 1, 2) if n % 2 else (2, 1, 0):
            few = scale._replace(appends=max(2, scale.appends // 10)) if i == 1 else scale
            found[i].append(await throughput(contenders[i], few))
    for contender in contenders:
        await contender.close()
    if disk is not None:
        disk.unregister()
    ours, single, group = (max(mine) for mine in found)
    where = f" (+ {extra * 1000:g} ms a sync)" if extra else ""
    is_slow = sync + extra >= SLOW
    return [
        Row(
            f"{TASKS} tasks{where}",
            f"{ours:,.0f} appends/s",
            f"{single:,.0f}/s one by one",
            f"{ours / single:.1f}x",
            ">= 8x" if is_slow else f"(8x from {SLOW * 1000:g} ms a sync on)",
            ours / single >= 8 if is_slow else None,
        ),
        Row(
            f"{TASKS} tasks{where}",
            f"{ours:,.0f} appends/s",
            f"{group:,.0f}/s in groups by hand",
            f"{ours / group:.2f}x",
            ">= 0.7x",
            ours / group >= 0.7,
        ),
    ]


async def size(home: Path) -> list[Row]:
    """Bytes on disk for a message of 200 characters, search index and all."""
    count = 10_000
    path = await prepared(home / "size.db", 10, count // 10)
    each = path.stat().st_size / count
    return [Row(f"a message of {len(TEXT)} characters", f"{each:,.0f} bytes", "", f"{each / len(TEXT):.1f}x", "", None)]


async def measure(home: Path, scale: Scale, extra: float | None) -> tuple[float, list[Row]]:
    """The cost of a sync, and the table. ``extra``: seconds added to each sync for the many tasks (None: where the disk
    is fast, 3 ms once more)."""
    sync = fsync_cost(home)
    rows = await by_length(home, scale)
    rows += await one_task(home, scale)
    if extra is None:
        rows += await many_tasks(home, scale, 0, sync)
        if sync < SLOW:
            rows += await many_tasks(home, scale, 0.003, sync)
    else:
        rows += await many_tasks(home, scale, extra, sync)
    rows += await size(home)
    return sync, rows


__all__ = ["FULL", "OWNER", "QUICK", "Row", "Scale", "measure"]
