"""The floor of a session's turn: its two reads and writes by hand, and nothing else.

The last 20 texts of a conversation are read, then two are added, durably, each in one statement or command on the
driver that Daram uses. Nothing is checked, decoded or made into messages; there is no thread between (SQLite), no list
of conversations, and what is sent twice is stored twice. A store that asks its server for each of the two, and promises
the same of the disk, has this before it begins; one that reads from a cache would not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

from bench.peers_stores import WINDOW, Kept, Place, pair, text


class ByHand:
    """A conversation is the rows with its name."""

    def __init__(
        self, read: Callable[[str], Awaitable[Any]], write: Callable[[str, list[str]], Awaitable[object]]
    ) -> None:
        self._read = read
        self._write = write

    async def fill(self, name: str, length: int) -> None:
        await self._put(name, range(length))

    async def turn(self, name: str) -> object:
        found = await self._read(name)
        await self.add(name)
        return found

    async def add(self, name: str) -> None:
        await self._put(name, pair())

    async def _put(self, name: str, numbers: Iterable[int]) -> None:
        await self._write(name, [text(number) for number in numbers])


_TABLE = "CREATE TABLE IF NOT EXISTS said (id INTEGER PRIMARY KEY, name TEXT, text TEXT)"
_LAST = "SELECT text FROM said WHERE name = {0} ORDER BY id DESC LIMIT {1}"


async def on_sqlite(place: Place, stack: AsyncExitStack) -> Kept:
    """One connection, on the thread of the event loop."""
    import apsw

    connection = apsw.Connection(str(place.path))
    stack.callback(connection.close)
    connection.pragma("journal_mode", "WAL")
    connection.pragma("synchronous", "FULL")
    connection.pragma("wal_autocheckpoint", 0)  # as in Daram, which does it when it has answered
    connection.execute(_TABLE)
    connection.execute("CREATE INDEX IF NOT EXISTS by_name ON said (name, id)")

    async def read(name: str) -> list[Any]:
        return connection.execute(_LAST.format("?", "?"), (name, WINDOW)).fetchall()

    async def write(name: str, texts: list[str]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO said (name, text) VALUES (?, ?)", [(name, each) for each in texts])
        connection.execute("COMMIT")

    return ByHand(read, write)


async def on_postgres(place: Place, stack: AsyncExitStack) -> Kept:
    """One connection, whose statements are prepared by the driver."""
    from psycopg import AsyncConnection

    connection = await AsyncConnection.connect(place.url(), autocommit=True)
    stack.push_async_callback(connection.close)
    key = "bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY"
    await connection.execute(_TABLE.replace("INTEGER PRIMARY KEY", key))
    await connection.execute("CREATE INDEX IF NOT EXISTS by_name ON said (name, id)")

    async def read(name: str) -> list[Any]:
        return await (await connection.execute(_LAST.format("%s", "%s"), (name, WINDOW))).fetchall()

    async def write(name: str, texts: list[str]) -> None:
        await connection.execute("INSERT INTO said (name, text) SELECT %s, unnest(%s::text[])", (name, texts))

    return ByHand(read, write)


async def on_redis(place: Place, stack: AsyncExitStack) -> Kept:
    """The driver's client."""
    from redis.asyncio import Redis

    client = Redis.from_url(place.url())
    stack.push_async_callback(client.aclose)

    async def read(name: str) -> Any:
        return await client.lrange(name, -WINDOW, -1)

    async def write(name: str, texts: list[str]) -> None:
        await client.rpush(name, *texts)

    return ByHand(read, write)
