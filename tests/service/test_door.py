"""The server in front of the service."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import uvicorn

from daram.service import door
from daram.testing.servers.base import free_port


class Patient(asyncio.Protocol):
    """A protocol whose parser takes whatever comes, and waits for more."""

    cycle: Any = None
    transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


@pytest.mark.parametrize("parser", ["h11", "httptools"])
async def test_a_body_that_nobody_waits_for_takes_no_answer_with_it(
    monkeypatch: pytest.MonkeyPatch, parser: str
) -> None:
    module = pytest.importorskip(f"uvicorn.protocols.http.{parser}_impl", reason=f"{parser} is not installed")
    chosen = module.H11Protocol if parser == "h11" else module.HttpToolsProtocol
    monkeypatch.setattr(door, "_fastest", lambda: chosen)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = 401 if scope["method"] == "POST" else 204
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    port = free_port()
    config = uvicorn.Config(app, "127.0.0.1", port, http=door._protocol(3600.0), lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b"x" * (1 << 20)
    for _ in range(2):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 401")
        for start in range(0, len(body), 1 << 16):
            writer.write(body[start : start + (1 << 16)])
            await writer.drain()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 204")
    writer.close()
    server.should_exit = True
    await serving


async def test_a_head_without_end_is_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_fastest", lambda: Patient)
    server = await asyncio.get_running_loop().create_server(door._protocol(3600.0), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nx-long: " + b"y" * (1 << 18))
        with contextlib.suppress(ConnectionError):  # how a connection ends of which not all was read
            assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
