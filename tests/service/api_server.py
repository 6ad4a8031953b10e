"""The service on a real port in this process, and clients of the official SDK for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from openai import AsyncOpenAI
from tests.service.people import Person, person, service_settings

from daram.service.asgi import Service, create_app
from daram.testing.model_server import ScriptedModelServer


class House:
    """A running service: its address, its model, and whoever asks it."""

    def __init__(self, url: str, model: ScriptedModelServer, service: Service, who: Person) -> None:
        self.url = url
        self.model = model
        self.service = service
        self.person = who

    @property
    def base_url(self) -> str:
        return self.url + "/v1"

    @property
    def owner(self) -> str:
        return self.person.owner

    @property
    def memory(self) -> Any:
        return self.service.runtime.memory

    def client(self, who: Person | None = None, **options: Any) -> AsyncOpenAI:
        """An official client; it repeats nothing unless the test says so."""
        key = (who or self.person).key
        return AsyncOpenAI(base_url=self.base_url, api_key=key, **{"max_retries": 0, "timeout": 120.0} | options)


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The address of an ASGI application on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5))
    running = asyncio.create_task(server.serve([listener]))
    try:
        while not server.started:
            if running.done():
                running.result()
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        listener.close()


@contextlib.asynccontextmanager
async def house(data: Path, *, model: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[House]:
    """The service with a scripted model behind it."""
    async with ScriptedModelServer(**(model or {})) as scripted:
        given = {"model": "openai:scripted", "base_url": scripted.base_url, "titles": False, "wait": 60.0} | settings
        chosen = await asyncio.to_thread(service_settings, data, **given)
        app = create_app(chosen, page=False)
        async with serving(app) as url:
            yield House(url, scripted, app, await person())
