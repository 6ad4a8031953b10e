"""The server in front of the service."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from daram.service import door


class Patient(asyncio.Protocol):
    """A protocol whose parser takes whatever comes, and waits for more."""

    cycle: Any = None
    transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


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
