"""The server in front of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn

from daram.service import door

BODY = b"x" * (1 << 20)
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What is sent to it is refused before it is read."""
    status = 401 if scope["method"] == "POST" else 204
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def served(patience: float) -> AsyncIterator[Connect]:
    """How to connect to a server in front of the application."""
    config = uvicorn.Config(app, "127.0.0.1", 0, http=door._protocol(patience), lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    address = server.servers[0].sockets[0].getsockname()
    writers = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*address)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    server.should_exit = True
    await serving


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The status of an answer without a body."""
    return (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).split()[1]


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait until the connection is over."""
    with suppress(ConnectionError):  # how one ends of which not all was read
        await asyncio.wait_for(reader.read(), 60)
    return True


async def test_a_body_that_nobody_waits_for_takes_no_answer_with_it() -> None:
    async with served(3600.0) as connect:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(POST)
            assert await answer(reader) == b"401"
            for start in range(0, len(BODY), 1 << 16):
                writer.write(BODY[start : start + (1 << 16)])
                await writer.drain()
            writer.write(GET)
            assert await answer(reader) == b"204"


async def test_the_rest_of_a_body_has_its_time_and_the_next_head_has_it_anew() -> None:
    async with served(2.0) as connect:
        reader, writer = await connect()
        writer.write(POST)
        assert await answer(reader) == b"401"
        writer.write(BODY[:1])
        await asyncio.sleep(1.2)
        writer.write(BODY[1:])
        await asyncio.sleep(1.2)
        writer.write(GET)
        assert await answer(reader) == b"204"


@pytest.mark.parametrize("said", [POST, b""])
async def test_what_comes_drop_by_drop_is_not_waited_for_for_ever(said: bytes) -> None:
    async with served(0.3) as connect:
        reader, writer = await connect()
        writer.write(said)
        if said:
            assert await answer(reader) == b"401"
        over = asyncio.create_task(ended(reader))
        while not over.done():
            with suppress(ConnectionError):
                writer.write(b"G")
            await asyncio.sleep(0.02)
        assert over.result()


async def test_a_head_without_end_is_not_collected() -> None:
    async with served(3600.0) as connect:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nx-long: " + b"y" * (1 << 18))
        assert await ended(reader)
