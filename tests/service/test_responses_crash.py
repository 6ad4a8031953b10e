"""Servers that are killed in mid-answer, and clients that come back, be it to another one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from tests.service.processes import House, text_of, until

_WORDS = 9000  # more than any test takes, however late its frames are
ENDS = ("response.completed", "response.incomplete", "response.failed")


def question(number: int) -> str:
    return f"[[tokens {_WORDS}]] [[delay 0.005]] question {number}"


def answer() -> str:
    return " ".join(f"word{i}" for i in range(1, _WORDS + 1))


async def until_kept(house: House, conversation: str, stream: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The frames of a stream until the store holds some of its words."""
    seen = []
    async for event in stream:
        seen.append(event)
        if await house.kept(conversation):
            return seen
    raise AssertionError("the answer came to its end without that the store had held any of it")


async def some_of(
    house: House, conversation: str, stream: AsyncIterator[dict[str, Any]], random: Random, number: int
) -> list[dict[str, Any]]:
    """The frames of a stream up to a random moment, each second time one at which some of it must be stored."""
    seen = [] if number % 2 == 0 else await until_kept(house, conversation, stream)
    return seen + await until(stream, random.choice((1, 2, 3, 5, random.randint(5, 300 if not seen else 100))))


# --- one process ----------------------------------------------------------------------------------------------------


async def killed_alone(house: House, times: int, seed: int) -> None:
    random = Random(seed)
    server = await house.start()
    for number in range(times):
        conversation = (await house.post(server, "/conversations"))["id"]
        stream = house.ask(server, conversation, question(number))
        seen = await some_of(house, conversation, stream, random, number)
        kept = await house.kept(conversation)
        await server.kill()
        seen += [event async for event in stream]
        id = seen[0]["response"]["id"]
        server = await house.start()
        response = await house.get(server, f"/responses/{id}")
        assert response["status"] == "incomplete"
        text = "".join(item["content"][0]["text"] for item in response["output"])
        assert answer().startswith(text)
        assert text.startswith(kept)  # what was durable before is there afterwards
        assert kept or number % 2 == 0
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
        seen = await some_of(house, conversation, stream, random, number)
        id = seen[0]["response"]["id"]
        beside = house.resume(other, id)  # somebody who follows from the other process all the time
        heard = await until(beside, 1)
        kept = await house.kept(conversation)
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
        assert said[1:] == [("assistant", text_of(seen))]
        assert text_of(seen).startswith(kept)
        assert kept or number % 2 == 0
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
