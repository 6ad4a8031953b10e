"""A pooler in transaction mode, as hard on its clients as PgBouncer: each transaction gets whichever session is free.

It speaks just enough of PostgreSQL's protocol to see where a transaction ends
(https://www.postgresql.org/docs/current/protocol-message-formats.html). A session that is handed on is reset, and the
sessions are given out by turns, so that nothing that a client leaves behind is there for its next transaction.
"""

from __future__ import annotations

import asyncio
import struct
from types import TracebackType
from typing import Self

_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104
_CANCEL = 80877102


class Pooler:
    """In front of the server at ``port``, for one database and user; ``sessions`` connections to it."""

    def __init__(self, port: int, user: str, database: str, sessions: int = 3) -> None:
        self._port = port
        self._startup = b"user\0%b\0database\0%b\0\0" % (user.encode(), database.encode())
        self._sessions = sessions
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.transactions = 0

    async def __aenter__(self) -> Self:
        for _ in range(self._sessions):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.append(writer)
            body = struct.pack("!i", 196608) + self._startup
            writer.write(struct.pack("!i", len(body) + 4) + body)
            await self._until_ready(reader, None)
            self._free.put_nowait((reader, writer))
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._client(reader, writer))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            writer.close()

        task.add_done_callback(done)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size, code = struct.unpack("!ii", await reader.readexactly(8))
                await reader.readexactly(size - 8)
                if code not in (_SSL_REQUEST, _GSS_REQUEST):
                    break
                writer.write(b"N")
            if code == _CANCEL:
                return
            settings = {"server_version": "18.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
            writer.write(_message(b"R", struct.pack("!i", 0)))
            for name, value in settings.items():
                writer.write(_message(b"S", f"{name}\0{value}\0".encode()))
            writer.write(_message(b"K", struct.pack("!ii", 1, 1)) + _message(b"Z", b"I"))
            while await self._transaction(reader, writer):
                self.transactions += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def _transaction(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass one transaction on; False where the client has left."""
        kind, body = await _read(reader)
        if kind == b"X":
            return False
        up_reader, up_writer = await self._free.get()
        try:
            state = b"T"
            while True:
                up_writer.write(_message(kind, body))
                if kind in (b"S", b"Q"):  # the client waits now
                    state = await self._until_ready(up_reader, writer)
                    if state == b"I":
                        break
                kind, body = await _read(reader)
            up_writer.write(_message(b"Q", b"DISCARD ALL\0"))
            await self._until_ready(up_reader, None)
        finally:
            self._free.put_nowait((up_reader, up_writer))
        return True

    async def _until_ready(self, server: asyncio.StreamReader, client: asyncio.StreamWriter | None) -> bytes:
        """Read up to ReadyForQuery, pass it on to the client, return the state of the transaction."""
        while True:
            kind, body = await _read(server)
            if client is not None:
                client.write(_message(kind, body))
            if kind == b"Z":
                if client is not None:
                    await client.drain()
                return body


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    (size,) = struct.unpack("!i", await reader.readexactly(4))
    return kind, await reader.readexactly(size - 4)
