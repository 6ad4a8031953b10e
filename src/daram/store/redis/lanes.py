"""Connections of the driver, used without the driver's client: that costs twice what a script and its reply do.

What is left out are retries (``Server.call`` does them, and knows what the first try may have done), metrics, and a
task for each command that is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from redis import exceptions as said


def pack(command: Sequence[Any]) -> bytes:
    """A command as it goes over the wire. Its words are bytes, text or whole numbers."""
    out = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if type(word) is bytes else word.encode() if type(word) is str else b"%d" % word
        out.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(out)


def hang_up(connections: Iterable[Any]) -> None:
    """Close the driver's connections of an event loop that has ended, and can do nothing any more."""
    for connection in connections:
        writer = connection._writer
        connection._writer = connection._reader = None  # closed, as the driver sees it
        if writer is None:
            continue
        plain = getattr(getattr(writer.transport, "_ssl_protocol", None), "_transport", None) or writer.transport
        # asyncio closes a socket in a callback of its loop, which is too late; others do it when they close.
        finish = getattr(plain, "_call_connection_lost", None)
        with suppress(RuntimeError):  # "Event loop is closed"
            plain.abort()
        if finish is not None:
            with suppress(RuntimeError):
                finish(None)


class Lanes:
    """Connections to one server for one event loop: as many as are in use at once, ``limit`` at most."""

    def __init__(self, pool: Any, timeout: float, limit: int) -> None:
        self._pool = pool  # it makes them and looks whether they are alive; it does not keep them
        self._timeout = timeout
        self._room = asyncio.Semaphore(limit)
        self._free: list[Any] = []
        self._all: list[Any] = []

    async def ask(self, *commands: bytes) -> list[Any]:
        """Send commands over one connection at once; their replies, where the server refuses with the exception.

        Raises what the driver does when the connection breaks, and its ``TimeoutError``.
        """
        if self._room.locked():
            try:
                async with asyncio.timeout(self._timeout):
                    await self._room.acquire()
            except TimeoutError:
                raise said.MaxConnectionsError("No connection available: all are in use") from None
        else:
            await self._room.acquire()
        try:
            connection = self._free.pop() if self._free else self._make()
            try:
                return await self._exchange(connection, commands)
            finally:
                self._free.append(connection)
        finally:
            self._room.release()

    def _make(self) -> Any:
        connection = self._pool.make_connection()
        # ``_exchange`` keeps the time, that of the handshake too; the driver would make a task for it.
        connection.socket_timeout = None
        self._all.append(connection)
        return connection

    async def _exchange(self, connection: Any, commands: Sequence[bytes]) -> list[Any]:
        replies: list[Any] = []
        doing = "connecting to the server"
        try:
            async with asyncio.timeout(self._timeout) as limit:
                await self._pool.ensure_connection(connection)
                doing = "waiting for its answer"
                await connection.send_packed_command(commands[0] if len(commands) == 1 else commands)
                for _ in commands:
                    limit.reschedule(asyncio.get_running_loop().time() + self._timeout)
                    try:
                        replies.append(await connection.read_response())
                    except said.ResponseError as error:
                        replies.append(error)
        except TimeoutError:
            await connection.disconnect(nowait=True)
            raise said.TimeoutError(f"{self._timeout:g} s were over while {doing}") from None
        except BaseException:
            # Replies may be left on it that nobody waits for.
            await connection.disconnect(nowait=True)
            raise
        return replies

    @property
    def connections(self) -> list[Any]:
        """All that were made."""
        return self._all

    async def close(self) -> None:
        """Close all connections; they open again when they are used."""
        for connection in self._all:
            await connection.disconnect()
