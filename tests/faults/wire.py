"""A TCP proxy in the loop of the test: counts round trips, loses replies, falls silent."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Wire:
    """Between a store and the server at ``port`` of loopback; ``self.port`` is where the store connects.

    ``lose``: how many of the next requests reach the server while their reply is lost with the connection.
    ``silent``: replies are held back for as long as it is set.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.round_trips = 0
        self.lose = 0
        self.silent = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        asking = False

        async def requests() -> None:
            nonlocal asking
            while data := await reader.read(1 << 16):
                if not asking:
                    self.round_trips += 1
                asking = True
                up_writer.write(data)
                await up_writer.drain()

        async def replies() -> None:
            nonlocal asking
            while data := await up_reader.read(1 << 16):
                if self.lose:
                    self.lose -= 1
                    return
                while self.silent:
                    await asyncio.sleep(0.005)
                asking = False
                writer.write(data)
                await writer.drain()

        both = {asyncio.ensure_future(requests()), asyncio.ensure_future(replies())}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.close()
            up_writer.close()
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
