"""``python -m bench.redis_turns``: what a turn costs on Redis and Valkey, and what a message takes there.

A turn is the question, stored with the last 20 messages and a lease on the answer, and then the answer. Beside Daram
stand the same turn by one Lua script by hand (the ratio that counts: at most 1.5 times its time for one task, at least
0.7 times its throughput for 32), and bare lists, which keep nothing of what the other two promise: the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from statistics import median

from bench.contenders import TEXT
from bench.redis_by_hand import Contender, Daram, Lists, Script
from bench.turns import TASKS
from daram.testing.servers import DURABLE, RedisServer

LENGTHS = (10, 1_000, 100_000)


async def turn_ms(contenders: list[Contender], id: str, rounds: int) -> list[float]:
    """The median of a turn of each, in milliseconds; they take turns, so that what is slow is so for all."""
    times: list[list[float]] = [[] for _ in contenders]
    for n in range(rounds):
        for i in range(len(contenders)) if n % 2 else reversed(range(len(contenders))):
            start = time.perf_counter()
            await contenders[i].turn(id)
            times[i].append(time.perf_counter() - start)
    return [median(each) * 1000 for each in times]


async def throughput(contender: Contender, turns: int) -> float:
    """Turns per second of 32 tasks on conversations of their own."""

    async def task(number: int) -> None:
        for _ in range(turns):
            await contender.turn(f"many {number}")

    start = time.perf_counter()
    await asyncio.gather(*(task(number) for number in range(TASKS)))
    return TASKS * turns / (time.perf_counter() - start)


def verdict(ratio: float, passed: bool) -> str:
    """How the ratio is printed."""
    return f"{ratio:.2f}x {'PASS' if passed else 'FAIL'}"


async def measure(server: RedisServer, rounds: int) -> None:
    """Measure, print."""
    ours, hand, lists = Daram(server.url), Script(server.port), Lists(server.port)
    contenders: list[Contender] = [ours, hand, lists]
    for length in LENGTHS:
        for each in contenders:
            await each.fill(str(length), length)
        assert [await each.turn(str(length)) for each in contenders] == [min(length + 1, 20)] * 3
        a, b, floor = await turn_ms(contenders, str(length), rounds)
        print(
            f"a turn at {length:>7,} messages: {a:.2f} ms; {hand.name} {b:.2f} ms: {verdict(a / b, a <= 1.5 * b)}; "
            f"{lists.name} {floor:.2f} ms: {a / floor:.2f}x"
        )
    passes = [[await throughput(each, max(5, rounds // 10)) for each in contenders] for _ in range(5)]
    a, b, floor = (median(each) for each in zip(*passes, strict=True))
    print(
        f"{TASKS} tasks: {a:,.0f} turns/s; {hand.name} {b:,.0f}/s: {verdict(a / b, a >= 0.7 * b)}; "
        f"{lists.name} {floor:,.0f}/s: {a / floor:.2f}x"
    )
    for each in contenders:
        await each.close()


async def sizes(server: RedisServer) -> None:
    """Print what messages and conversations take of the server's memory, beside the raw text."""
    ours, hand, lists = Daram(server.url), Script(server.port), Lists(server.port)
    raw = len(TEXT.encode())
    for each in (ours, hand, lists):
        server.run("FLUSHALL", "SYNC")
        await each.turn("warm")  # scripts and what else is kept once
        start = _used(server)
        for n in range(1000):
            await each.fill(f"c{n}", 1)
        conversation = (_used(server) - start) / 1000
        line = []
        for length in LENGTHS[1:]:
            before = _used(server)
            await each.fill(f"long {length}", length)
            line.append(f"{(_used(server) - before) / length:,.0f} bytes at {length:,} messages")
        print(
            f"a message of {raw} bytes, {each.name}: {', '.join(line)}; a conversation of one {conversation:,.0f} bytes"
        )
        await each.close()


def _used(server: RedisServer) -> int:
    with server.connect() as client:
        return int(client.info("memory")["used_memory"])


def main() -> None:
    """Parse the arguments, start a server of each kind, measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.redis_turns", description="What a turn costs on Redis.")
    parser.add_argument("--full", action="store_true", help="measure longer, for steadier numbers")
    options = parser.parse_args()
    for kind, settings in (("redis", {}), ("valkey", {}), ("valkey", DURABLE)):
        print(f"\n{kind}, {'appendonly yes, appendfsync always' if settings else 'appendonly no'}")
        with RedisServer(kind, settings) as server:  # type: ignore[arg-type]  # one of the two names
            asyncio.run(measure(server, 1000 if options.full else 150))
            if not settings:
                asyncio.run(sizes(server))


if __name__ == "__main__":
    main()
