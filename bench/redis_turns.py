"""``python -m bench.redis_turns``: what a turn costs on Redis, beside RPUSH and LRANGE by hand on the same driver.

The list by hand keeps JSON without ids, versions, branches, owners or a list of conversations: it is the least that can
be done in one round trip, not the same work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import redis.asyncio

from bench.contenders import OWNER, TEXT
from bench.turns import TASKS, WINDOW
from daram.model import Message, user
from daram.store.redis.engine import RedisStore
from daram.testing.servers import DURABLE, RedisServer

LENGTHS = (10, 1_000, 100_000)
Append = Callable[[str, int], Awaitable[int]]


async def fill(store: RedisStore, id: str, length: int) -> None:
    """``length`` messages of 200 characters."""
    for start in range(0, length, 100):
        batch: list[Message] = [user(TEXT) for _ in range(min(100, length - start))]
        await store.append(OWNER, id, batch, create=True)


def by_daram(store: RedisStore) -> Append:
    async def append(id: str, window: int) -> int:
        return len((await store.append(OWNER, id, [user(TEXT)], create=True, window=window)).tail)

    return append


def by_hand(client: Any) -> Append:
    async def append(id: str, window: int) -> int:
        async with client.pipeline(transaction=False) as pipe:
            pipe.rpush(f"hand:{id}", json.dumps({"role": "user", "text": TEXT}))
            if window:
                pipe.lrange(f"hand:{id}", -window, -1)
            done = await pipe.execute()
        return len([json.loads(each) for each in done[1]]) if window else 0

    return append


async def turn_ms(append: Append, id: str, rounds: int) -> float:
    """The median of a question with its window and an answer, in milliseconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        await append(id, WINDOW)
        await append(id, 0)
        times.append(time.perf_counter() - start)
    return median(times) * 1000


async def throughput(append: Append, appends: int) -> float:
    """Appends per second of 32 tasks on conversations of their own, every second one with the last 20 messages."""

    async def task(number: int) -> None:
        for i in range(appends):
            await append(f"many {number}", WINDOW if i % 2 == 0 else 0)

    start = time.perf_counter()
    await asyncio.gather(*(task(number) for number in range(TASKS)))
    return TASKS * appends / (time.perf_counter() - start)


async def measure(server: RedisServer, rounds: int) -> None:
    """Measure in turns, print."""
    store = RedisStore(server.url)
    client = redis.asyncio.Redis(port=server.port, protocol=2)
    contenders = {"daram": by_daram(store), "by hand": by_hand(client)}
    for length in LENGTHS:
        await fill(store, str(length), length)
        for start in range(0, length, 1000):
            size = min(1000, length - start)
            await client.rpush(f"hand:{length}", *[json.dumps({"role": "user", "text": TEXT})] * size)
    for length in LENGTHS:
        ms = {
            name: median([await turn_ms(each, str(length), rounds) for _ in range(3)])
            for name, each in contenders.items()
        }
        ratio = ms["daram"] / ms["by hand"]
        print(f"a turn at {length:>7,} messages: {ms['daram']:.2f} ms, by hand {ms['by hand']:.2f} ms, {ratio:.2f}x")
    many = {
        name: median([await throughput(each, max(10, rounds // 5)) for _ in range(3)])
        for name, each in contenders.items()
    }
    ratio = many["daram"] / many["by hand"]
    print(f"{TASKS} tasks: {many['daram']:,.0f} appends/s, by hand {many['by hand']:,.0f}/s, {ratio:.2f}x")
    await store.append(OWNER, "size", [user(TEXT)], create=True)
    before = (await client.info("memory"))["used_memory"]
    await fill(store, "size", 10_000)
    each = ((await client.info("memory"))["used_memory"] - before) / 10_000
    print(f"a message of {len(TEXT)} characters: {each:,.0f} bytes of the server's memory")
    await store.close()
    await client.aclose()


def main() -> None:
    """Parse the arguments, start a server of each kind, measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.redis_turns", description="What a turn costs on Redis.")
    parser.add_argument("--full", action="store_true", help="measure longer, for steadier numbers")
    options = parser.parse_args()
    for kind, settings in (("redis", {}), ("valkey", {}), ("valkey", DURABLE)):
        print(f"\n{kind}, {'appendonly yes, appendfsync always' if settings else 'appendonly no'}")
        with RedisServer(kind, settings) as server:  # type: ignore[arg-type]  # one of the two names
            asyncio.run(measure(server, 1000 if options.full else 150))


if __name__ == "__main__":
    main()
