"""The service in a process of its own, on a free port, which it prints as its first line. Settings: the environment."""

from __future__ import annotations

import asyncio
import os
import socket

import uvicorn

from daram.service.asgi import create_app
from daram.service.door import door
from daram.settings import Settings


async def main() -> None:
    settings = Settings.from_env()
    service = create_app(settings, page=False)
    listener = socket.create_server(("127.0.0.1", 0))

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            os.write(1, f"http://127.0.0.1:{listener.getsockname()[1]}\n".encode())

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            draining = asyncio.create_task(service.drain())
            await super().shutdown(sockets)
            await draining

    await Server(door(service, settings)).serve([listener])


if __name__ == "__main__":
    asyncio.run(main())
