"""Servers that are killed in mid-answer, and clients that come back, be it to another one."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from tests.faults.children import environment
from tests.postgres import Databases
from tests.service.people import Person, person, service_settings

from daram.testing.model_server import ScriptedModelServer
from daram.testing.servers import RedisServer

_CHILD = Path(__file__).with_name("service_child.py")
_WORDS = 3000
ENDS = ("response.completed", "response.incomplete", "response.failed")


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

    def __init__(self, variables: dict[str, str], who: Person, model: ScriptedModelServer) -> None:
        self.variables = variables
        self.person = who
        self.model = model
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

    async def events(self, method: str, url: str, body: dict[str, Any] | None = None) -> AsyncIterator[dict[str, Any]]:
        """The frames of a stream, until it ends or its server dies."""
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
            async with self.client.stream(method, url, json=body) as answer:
                assert answer.status_code == 200, await answer.aread()
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line[6:])

    def ask(self, server: Server, conversation: str, text: str) -> AsyncIterator[dict[str, Any]]:
        body = {"input": text, "conversation": conversation, "stream": True}
        return self.events("POST", f"{server.url}/responses", body)

    def resume(self, server: Server, id: str, after: int | None = None) -> AsyncIterator[dict[str, Any]]:
        behind = "" if after is None else f"&starting_after={after}"
        return self.events("GET", f"{server.url}/responses/{id}?stream=true{behind}")


@contextlib.asynccontextmanager
async def opened(data: Path, **variables: str) -> AsyncIterator[House]:
    async with ScriptedModelServer() as model:
        settings = await asyncio.to_thread(service_settings, data)
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
        )
        try:
            yield house
        finally:
            await house.client.aclose()
            for server in house.servers:
                await server.kill()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[House]:
    """On SQLite, the log of events in the memory of the process."""
    async with opened(tmp_path) as found:
        yield found


@pytest.fixture
async def pair(tmp_path: Path, databases: Databases, redis_server: RedisServer) -> AsyncIterator[House]:
    """On PostgreSQL and Redis."""
    redis_server.flush()
    async with opened(tmp_path, DARAM_STORE=databases.url("pair"), DARAM_REDIS=redis_server.url) as found:
        yield found
    redis_server.flush()


def question(number: int) -> str:
    return f"[[tokens {_WORDS}]] [[delay 0.005]] question {number}"


def answer() -> str:
    return " ".join(f"word{i}" for i in range(1, _WORDS + 1))


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


async def until(stream: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first frames of a stream."""
    return [await anext(stream) for _ in range(count)]


# --- one process ----------------------------------------------------------------------------------------------------


async def killed_alone(house: House, times: int, seed: int) -> None:
    random = Random(seed)
    server = await house.start()
    for number in range(times):
        conversation = (await house.post(server, "/conversations"))["id"]
        stream = house.ask(server, conversation, question(number))
        seen = await until(stream, random.choice((1, 2, 3, 5, random.randint(5, 300))))
        await server.kill()
        seen += [event async for event in stream]
        id = seen[0]["response"]["id"]
        server = await house.start()
        response = await house.get(server, f"/responses/{id}")
        assert response["status"] == "incomplete"
        text = "".join(item["content"][0]["text"] for item in response["output"])
        assert answer().startswith(text)
        said = await house.said(server, conversation)
        assert said[0] == ("user", question(number))
        assert [role for role, _ in said] == ["user", "assistant"]
        # What it missed nobody knows any more: the end alone, with all that is stored.
        [end] = [event async for event in house.resume(server, id, seen[-1]["sequence_number"])]
        assert end["type"] == "response.incomplete"
        assert end["sequence_number"] == seen[-1]["sequence_number"] + 1
        assert end["response"] == response
        done = await house.post(server, "/responses", {"input": "[[say Here.]]", "conversation": conversation})
        assert (done["status"], done["output"][0]["content"][0]["text"]) == ("completed", "Here.")
        assert [role for role, _ in await house.said(server, conversation)] == ["user", "assistant"] * 2


async def test_killed_in_mid_stream(alone: House) -> None:
    await killed_alone(alone, 2, 7)


@pytest.mark.soak
async def test_killed_in_mid_stream_again_and_again(alone: House) -> None:
    await killed_alone(alone, 100, 8)


# --- two processes --------------------------------------------------------------------------------------------------


async def killed_of_two(house: House, times: int, seed: int) -> None:
    random = Random(seed)
    maker, other = await asyncio.gather(house.start(), house.start())
    for number in range(times):
        conversation = (await house.post(maker, "/conversations"))["id"]
        stream = house.ask(maker, conversation, question(number))
        seen = await until(stream, random.choice((1, 2, 3, 5, random.randint(5, 300))))
        id = seen[0]["response"]["id"]
        beside = house.resume(other, id)  # somebody who follows from the other process all the time
        heard = await until(beside, 1)
        await maker.kill()
        seen += [event async for event in stream]
        seen += [event async for event in house.resume(other, id, seen[-1]["sequence_number"])]
        heard += [event async for event in beside]
        assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
        assert [event["type"] in ENDS for event in seen] == [*[False] * (len(seen) - 1), True]
        assert seen[-1]["type"] == "response.incomplete"
        assert heard == seen
        response = await house.get(other, f"/responses/{id}")
        assert response == seen[-1]["response"]
        said = await house.said(other, conversation)
        assert said[0] == ("user", question(number))
        assert said[1:] == ([("assistant", text_of(seen))] if text_of(seen) else [("assistant", "")])
        done = await house.post(other, "/responses", {"input": "[[say Here.]]", "conversation": conversation})
        assert done["status"] == "completed"
        maker, other = other, await house.start()


async def test_one_of_two_is_killed_in_mid_stream(pair: House) -> None:
    await killed_of_two(pair, 2, 9)


@pytest.mark.soak
async def test_one_of_two_is_killed_again_and_again(pair: House) -> None:
    await killed_of_two(pair, 100, 10)


async def test_two_processes_serve_one_conversation(pair: House) -> None:
    """Streams, cancels and queues do not care which process they reach."""
    one, two = await asyncio.gather(pair.start(), pair.start())
    conversation = (await pair.post(one, "/conversations"))["id"]
    stream = pair.ask(one, conversation, "[[tokens 30]]")
    seen = [event async for event in stream]
    id = seen[0]["response"]["id"]
    assert [event async for event in pair.resume(two, id)] == seen
    # Cancelled from the other process, followed from both.
    stream = pair.ask(one, conversation, question(1))
    seen = await until(stream, 5)
    id = seen[0]["response"]["id"]
    cancelled = await pair.post(two, f"/responses/{id}/cancel")
    seen += [event async for event in stream]
    assert cancelled["status"] == seen[-1]["response"]["status"] == "cancelled"
    assert [event async for event in pair.resume(two, id)] == seen
    # Turns in both at once: one after the other, none mixed with another.
    asked = [
        pair.post((one, two)[i % 2], "/responses", {"input": f"[[say {i}]]", "conversation": conversation})
        for i in range(16)
    ]
    assert {done["status"] for done in await asyncio.gather(*asked)} == {"completed"}
    said = (await pair.said(one, conversation))[4:]
    assert len(said) == 32
    for (role, asked_text), (other_role, text) in zip(said[::2], said[1::2], strict=True):
        assert (role, other_role, asked_text) == ("user", "assistant", f"[[say {text}]]")


# --- the end --------------------------------------------------------------------------------------------------------


async def test_sigterm_drains(alone: House) -> None:
    """What does not finish in time is closed as incomplete, and whoever listens hears it."""
    server = await alone.start()
    conversation = (await alone.post(server, "/conversations"))["id"]
    stream = alone.ask(server, conversation, question(1))
    seen = await until(stream, 6)
    ending = asyncio.create_task(server.kill(signal.SIGTERM))
    seen += [event async for event in stream]
    assert seen[-1]["type"] == "response.incomplete"
    async with asyncio.timeout(120):
        assert await ending in (0, -signal.SIGTERM)  # uvicorn raises the signal again when it is done
    server = await alone.start()
    response = await alone.get(server, f"/responses/{seen[0]['response']['id']}")
    assert response == seen[-1]["response"]
    assert answer().startswith(text_of(seen))
