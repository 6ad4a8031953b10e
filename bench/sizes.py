"""``python -m bench.sizes``: what a message of 200 characters and a conversation cost in storage, by engine.

Messages are of words drawn from a vocabulary of 4,000, so that the search index has as much to do as with prose.
SQLite: the file, closed. PostgreSQL: all relations of the schema with their indexes, after a VACUUM. Redis: the memory
that the server says it uses.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.contenders import OWNER
from daram.model import user
from daram.store.base import Store
from daram.store.url import store_from_url
from daram.testing.servers import PostgresServer, RedisServer

CHARACTERS = 200
_PG_SIZE = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = 'daram' AND c.relkind = 'r'"
)


class Size(NamedTuple):
    """Bytes for each message and for each conversation that has none."""

    engine: str
    message: float
    conversation: float


def prose(seed: int = 1) -> Iterator[str]:
    """Texts of 200 characters."""
    draw = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = range(len(letters), 0, -1)
    words = ["".join(draw.choices(letters, weights, k=draw.randint(2, 9))) for _ in range(4000)]
    while True:
        yield " ".join(draw.choices(words, k=CHARACTERS // 3))[:CHARACTERS]


async def fill(store: Store, conversations: int, messages: int, name: str) -> None:
    """So many conversations with a title, of so many messages each; the search index has all of them at the end."""
    texts = prose()
    for number in range(conversations):
        await store.create(OWNER, id=f"{name}{number}", title="A title of thirty characters..")
        for start in range(0, messages, 100):
            batch = [user(next(texts)) for _ in range(min(100, messages - start))]
            await store.append(OWNER, f"{name}{number}", batch)
    if conversations:
        await store.search(OWNER, "a", conversation=f"{name}0", limit=1)


async def grown(open_store: Callable[[], Store], used: Callable[[], int], conversations: int, messages: int) -> int:
    """By how many bytes the storage grows."""
    async with open_store() as store:
        await fill(store, 1, 1, "first ")
    before = used()
    async with open_store() as store:
        await fill(store, conversations, messages, "c")
    return used() - before


async def measure(home: Path, conversations: int, messages: int) -> list[Size]:
    """``messages`` in ten conversations; and ``conversations`` without any."""
    found: list[Size] = []

    async def one(engine: str, place: Callable[[str], tuple[Callable[[], Store], Callable[[], int]]]) -> None:
        many = await grown(*place("messages"), 10, messages // 10)
        few = await grown(*place("conversations"), conversations, 0)
        found.append(Size(engine, many / messages, few / conversations))

    def file(name: str) -> tuple[Callable[[], Store], Callable[[], int]]:
        path = home / f"{name}.db"
        return lambda: store_from_url(f"sqlite:///{path}"), lambda: path.stat().st_size

    await one("SQLite", file)
    with PostgresServer() as postgres:

        def database(_: str) -> tuple[Callable[[], Store], Callable[[], int]]:
            name = postgres.database()

            def used() -> int:
                with postgres.connect(name) as connection:
                    connection.execute("VACUUM")
                    row = connection.execute(_PG_SIZE).fetchone()
                    return int(row[0]) if row else 0

            return lambda: store_from_url(postgres.url_of(name)), used

        await one("PostgreSQL", database)
    for kind in ("redis", "valkey"):
        with RedisServer(kind) as server:  # type: ignore[arg-type]  # one of the two names

            def emptied(_: str, server: RedisServer = server) -> tuple[Callable[[], Store], Callable[[], int]]:
                server.flush()

                def used() -> int:
                    with server.connect() as client:
                        return int(client.info("memory")["used_memory"])  # type: ignore[index]

                return lambda: store_from_url(server.url), used

            await one(kind.capitalize(), emptied)
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizes", description="What messages and conversations take.")
    parser.add_argument("--full", action="store_true", help="with more of them")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # that a server without a disk keeps nothing is meant here
    conversations, messages = (20_000, 100_000) if options.full else (2_000, 10_000)
    with tempfile.TemporaryDirectory(prefix="daram-bench-") as home:
        found = asyncio.run(measure(Path(home), conversations, messages))
    print(f"{messages:,} messages of {CHARACTERS} characters in 10 conversations; {conversations:,} conversations")
    for each in found:
        ratio = each.message / CHARACTERS
        print(
            f"{each.engine:<12}{each.message:>7,.0f} bytes a message ({ratio:.1f}x its text)"
            f"{each.conversation:>8,.0f} bytes a conversation"
        )


if __name__ == "__main__":
    main()
