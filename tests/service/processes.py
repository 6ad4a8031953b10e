"""Processes of the service on one store, to be killed and started again, and a client of all of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from tests.faults.children import environment
from tests.service.people import Person, person, service_settings

from daram.config import open_memory
from daram.memory import Memory
from daram.testing.model_server import ScriptedModelServer

_CHILD = Path(__file__).with_name("service_child.py")


@dataclasses.dataclass
class Server:
    """One process of the service."""

    process: asyncio.subprocess.Process
    url: str

    async def kill(self, number: int = signal.SIGKILL) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


class House:
    """Processes of the service on one store, with one model."""

    def __init__(self, variables: dict[str, str], who: Person, model: ScriptedModelServer, memory: Memory) -> None:
        self.variables = variables
        self.person = who
        self.model = model
        self.memory = memory  # the store as this process sees it, which is none of the servers
        self.servers: list[Server] = []
        self.client = httpx.AsyncClient(headers=who.headers, timeout=httpx.Timeout(120.0))

    async def start(self) -> Server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(_CHILD), env=environment() | self.variables, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(120):
            line = (await process.stdout.readline()).decode().strip()
        assert line, f"the service ended with {await process.wait()}"
        self.servers.append(Server(process, line + "/v1"))
        return self.servers[-1]

    async def post(self, server: Server, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = await self.client.post(server.url + path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def get(self, server: Server, path: str) -> dict[str, Any]:
        answer = await self.client.get(server.url + path)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def said(self, server: Server, conversation: str) -> list[tuple[str, str]]:
        """The items of a conversation, in order: role and text."""
        page = await self.get(server, f"/conversations/{conversation}/items?order=asc&limit=100")
        return [(item["role"], item["content"][0]["text"]) for item in page["data"]]

    async def kept(self, conversation: str) -> str:
        """What the store holds of the answer that is being made."""
        return "".join([answer.text for answer in await self.memory.answers(self.person.owner, conversation)])

    async def events(
        self, method: str, url: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The frames of a stream, until it ends or its server dies."""
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
            async with self.client.stream(method, url, json=body, headers=headers) as answer:
                assert answer.status_code == 200, await answer.aread()
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line[6:])

    def ask(self, server: Server, conversation: str, text: str) -> AsyncGenerator[dict[str, Any], None]:
        body = {"input": text, "conversation": conversation, "stream": True}
        return self.events("POST", f"{server.url}/responses", body)

    def resume(self, server: Server, id: str, after: int | None = None) -> AsyncGenerator[dict[str, Any], None]:
        behind = "" if after is None else f"&starting_after={after}"
        return self.events("GET", f"{server.url}/responses/{id}?stream=true{behind}")


@contextlib.asynccontextmanager
async def opened(data: Path, **variables: str) -> AsyncIterator[House]:
    settings = await asyncio.to_thread(service_settings, data)
    where = dataclasses.replace(settings, store=variables.get("DARAM_STORE", settings.store))
    async with ScriptedModelServer() as model, await open_memory(where) as memory:
        house = House(
            {
                "DARAM_DATA": str(data),
                "DATABASE_URL": settings.accounts,
                "DARAM_MODEL": "openai:scripted",
                "OPENAI_BASE_URL": model.base_url,
                "DARAM_TITLES": "off",
                "DARAM_DRAIN": "0.2",
                **variables,
            },
            await person(),
            model,
            memory,
        )
        try:
            yield house
        finally:
            await house.client.aclose()
            for server in house.servers:
                await server.kill()


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


async def until(stream: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first frames of a stream."""
    return [await anext(stream) for _ in range(count)]
