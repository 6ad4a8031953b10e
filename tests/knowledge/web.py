"""A web server for tests that answers what it is told to, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Self

Page = bytes | Callable[[asyncio.StreamWriter], object]


class Web:
    """``pages``: what stands at a path: a whole answer (see ``answer``), or a coroutine function that writes one."""

    def __init__(self) -> None:
        self.pages: dict[str, object] = {}
        self.asked: list[dict[str, str]] = []
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncGenerator[Self, None]:
        web = cls()
        server = await asyncio.start_server(web._serve, "127.0.0.1", 0)
        web.port = server.sockets[0].getsockname()[1]
        try:
            yield web
        finally:
            server.close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = head[0].split()[1]
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            self.asked.append({"path": path, **headers})
            page = self.pages.get(path, answer(b"", status="404 Not Found"))
            if isinstance(page, bytes):
                writer.write(page)
                await writer.drain()
            else:
                await page(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def answer(body: bytes, kind: str | None = None, *, status: str = "200 OK", **headers: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"content-type: {kind}"] if kind else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
