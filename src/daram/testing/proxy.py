"""A TCP proxy for tests, in the event loop of the test: it counts round trips, delays, cuts, loses and falls silent.

async with TcpProxy(server.port) as proxy:
    store = open_it_at(proxy.port)
    proxy.lose = 1                  # the next request is carried out, but its reply is lost with the connection
    await store.append(…)
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class TcpProxy:
    """Between a client, which connects to ``self.port`` of loopback, and the server at ``port``.

    ``round_trips``: requests that went out since the start; a request is all that a client says until it is answered.
    ``bytes_out``, ``bytes_in``: what clients said and what they were answered since the start.
    ``delay``: seconds by which each reply is late. ``lose``: of how many of the next requests the reply is lost, and
    the connection with it. ``drop``: how many of the next requests do not even reach the server;
    ``about``: these two look only at requests that hold these bytes. ``silent``:
    while it is set nothing passes in either direction, and nobody is told (a black hole). ``refusing``: while it is set
    new connections are closed at once.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self.port = 0
        self.round_trips = 0
        self.bytes_out = 0
        self.bytes_in = 0
        self.delay = 0.0
        self.lose = 0
        self.drop = 0
        self.about = b""
        self.refusing = False
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()

    @property
    def silent(self) -> bool:
        return not self._passing.is_set()

    @silent.setter
    def silent(self, value: bool) -> None:
        if value:
            self._passing.clear()
        else:
            self._passing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    async def cut(self) -> int:
        """Close all connections at once, whatever is under way; returns how many there were."""
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        return len(connections)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(_Connection(self, reader, writer).run(*self._target))
        self._connections.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._connections.discard(task)
            writer.close()  # also where it was cancelled before it ran

        task.add_done_callback(done)

    async def pass_on(self) -> None:
        """Wait while the proxy is silent."""
        await self._passing.wait()


class _Connection:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, proxy: TcpProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._asking = False
        self._concerned = False

    async def run(self, host: str, port: int) -> None:
        up_writer: asyncio.StreamWriter | None = None
        ways: list[asyncio.Task[None]] = []
        try:
            await self._proxy.pass_on()
            if self._proxy.refusing:
                return
            up_reader, up_writer = await asyncio.open_connection(host, port)
            ways = [
                asyncio.ensure_future(self._requests(up_writer)),
                asyncio.ensure_future(self._replies(up_reader)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            return  # the server is not there: the client finds its connection closed
        except asyncio.CancelledError:
            for writer in (self._writer, up_writer):
                if writer is not None:
                    writer.transport.abort()
            raise
        finally:
            for way in ways:
                way.cancel()
            for writer in (self._writer, up_writer):
                if writer is not None:
                    writer.close()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(self, server: asyncio.StreamWriter) -> None:
        while data := await self._reader.read(1 << 16):
            await self._proxy.pass_on()
            if not self._asking:
                self._concerned = self._proxy.about in data
                if self._proxy.drop and self._concerned:
                    self._proxy.drop -= 1
                    return
                self._proxy.round_trips += 1
            self._asking = True
            self._proxy.bytes_out += len(data)
            server.write(data)
            await server.drain()

    async def _replies(self, server: asyncio.StreamReader) -> None:
        while data := await server.read(1 << 16):
            await self._proxy.pass_on()
            if self._proxy.delay:
                await asyncio.sleep(self._proxy.delay)
            if self._proxy.lose and self._concerned:
                self._proxy.lose -= 1
                return
            self._asking = False
            self._proxy.bytes_in += len(data)
            self._writer.write(data)
            await self._writer.drain()
