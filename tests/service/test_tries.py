"""A request that the SDK sends once more is the turn of its first try, whichever process hears it, whatever became of
the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service.people import service_settings
from tests.service.processes import House, Server, until

from daram.testing.model_replies import failure


def tried(count: int) -> dict[str, str]:
    """How the SDK counts."""
    return {"x-stainless-retry-count": str(count)}


async def ask(house: House, server: Server, body: dict[str, Any], count: int, path: str = "/responses") -> Any:
    """A whole answer."""
    answer = await house.client.post(server.url + path, json=body, headers=tried(count))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def stored(house: House, server: Server) -> list[list[tuple[str, str]]]:
    """What is said in each conversation of the caller."""
    found = (await house.get(server, "/conversations"))["data"]
    return [await house.said(server, conversation["id"]) for conversation in found]


async def a_second_try_elsewhere(house: House) -> None:
    """No conversation is named, and the process of the first try is asked no more."""
    one, two = await asyncio.gather(house.start(), house.start())
    body = {"input": "[[tokens 400]] [[delay 0.01]] Hello", "stream": True}
    # While the first is at it, and after its client has left.
    stream = house.events("POST", f"{one.url}/responses", body, tried(0))
    seen = await until(stream, 6)
    again = house.events("POST", f"{two.url}/responses", body, tried(1))
    [joined] = await until(again, 1)
    assert joined["response"]["id"] == seen[0]["response"]["id"]
    await stream.aclose()
    ended = [event async for event in again][-1]
    assert ended["response"]["status"] == "completed"
    said = [[("user", body["input"]), ("assistant", " ".join(f"word{i}" for i in range(1, 401)))]]
    assert await stored(house, one) == said
    # It came to a client, so the same words once more are another turn.
    assert [event async for event in house.events("POST", f"{one.url}/responses", body, tried(0))][-1]
    assert await stored(house, two) == said * 2
    assert len(house.model.requests) == 2


async def test_a_second_try_at_another_process(alone: House) -> None:
    await a_second_try_elsewhere(alone)


async def test_a_second_try_at_another_process_with_redis(pair: House) -> None:
    await a_second_try_elsewhere(pair)


async def test_a_second_try_after_a_crash(alone: House) -> None:
    one, two = await asyncio.gather(alone.start(), alone.start())
    body = {"input": "[[say Here.]] [[delay 60]]"}
    first = asyncio.create_task(ask(alone, one, body, 0))
    await alone.model.wait_for(lambda model: len(model.requests) == 1)
    await one.kill()
    with pytest.raises(httpx.RemoteProtocolError):
        await first
    alone.model.script("Here.")
    done = await ask(alone, two, body, 1)
    assert (done["status"], done["output"][0]["content"][0]["text"]) == ("completed", "Here.")
    [said] = await stored(alone, two)
    assert said[0] == ("user", body["input"])
    assert [role for role, _ in said] == ["user", "assistant"]


async def leave(house: House, server: Server, path: str, body: dict[str, Any]) -> str:
    """Ask, go when the model is at it, and come back when the answer is stored without anybody. Returns it."""
    asked = asyncio.create_task(ask(house, server, body, 0, path))
    await house.model.wait_for(lambda model: len(model.requests) == 1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    async with asyncio.timeout(120):
        while len(said := (await stored(house, server))[0]) != 2:
            await asyncio.sleep(0.5)
    return said[1][1]


async def test_an_answer_that_was_ready_when_nobody_waited_any_more(alone: House) -> None:
    one, two = await asyncio.gather(alone.start(), alone.start())
    body = {"input": "[[tokens 30]] [[delay 0.02]]"}
    text = await leave(alone, one, "/responses", body)
    for _ in range(2):  # of the same process: what it has delivered others know a moment later
        done = await ask(alone, two, body, 1)
        assert done["output"][0]["content"][0]["text"] == text
        alone.model.script("Anew.")
        text = "Anew."  # it was delivered: what comes now is another turn
    assert [len(said) for said in await stored(alone, one)] == [2, 2]


async def test_the_same_words_as_a_turn_that_nobody_waited_for(alone: House) -> None:
    """What is left of that one must not stand in for the request that is sent once more."""
    server = await alone.start()
    conversation = (await alone.post(server, "/conversations"))["id"]
    body = {"input": "[[tokens 30]] [[delay 0.02]]", "conversation": conversation, "stream": True}
    ids = []
    for _ in range(2):
        stream = alone.events("POST", f"{server.url}/responses", body, tried(0))
        ids.append((await until(stream, 1))[0]["response"]["id"])
        await stream.aclose()
        ended = [event async for event in alone.resume(server, ids[-1])][-1]
        assert ended["response"]["status"] == "completed"
    [again] = await until(alone.events("POST", f"{server.url}/responses", body, tried(1)), 1)
    assert again["response"]["id"] == ids[1]
    assert len(await alone.said(server, conversation)) == 4


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
async def test_the_same_words_again_after_another_turn(alone: House, path: str) -> None:
    """Somebody left a turn, said something else, then the old words: of those the first try was refused on its way."""
    server = await alone.start()
    conversation = (await alone.post(server, "/conversations"))["id"]

    def body(words: str) -> dict[str, Any]:
        if path == "/responses":
            return {"conversation": conversation, "input": words}
        return {"messages": [{"role": "user", "content": words}], "metadata": {"conversation": conversation}}

    words = "[[tokens 30]] [[delay 0.02]] Go on."
    await leave(alone, server, path, body(words))
    await ask(alone, server, body("In between."), 0, path)
    await ask(alone, server, body(words), 1, path)
    said = [text for role, text in await alone.said(server, conversation) if role == "user"]
    assert said == [words, "In between.", words]


async def test_what_was_refused_for_good_is_over(alone: House) -> None:
    """The same words after another turn, of which the first try never arrived, are not that old turn."""
    server = await alone.start()
    body = {"input": "go on", "conversation": (await alone.post(server, "/conversations"))["id"]}
    alone.model.script(failure(401))
    refused = await alone.client.post(server.url + "/responses", json=body, headers=tried(0))
    assert (refused.status_code, refused.headers["x-should-retry"]) == (502, "false")
    await ask(alone, server, {**body, "input": "between"}, 0)
    await ask(alone, server, body, 1)
    said = [text for role, text in await alone.said(server, body["conversation"]) if role == "user"]
    assert said[-2:] == ["between", "go on"]


async def test_what_is_left_of_a_try_tells_nothing(alone: House) -> None:
    """Neither the words nor a digest that one could compare with a guess; nothing at all once it was delivered."""
    from hashlib import sha256

    from daram.config import open_existing
    from daram.service.openai_api.tries import NAMESPACE

    server = await alone.start()
    body = {"input": "[[stall 1]] a secret", "stream": True}
    stream = alone.events("POST", f"{server.url}/responses", body, tried(0))
    created = (await until(stream, 1))[0]
    async with await open_existing(f"sqlite:///{alone.variables['DARAM_DATA']}/daram.db") as memory:
        [record] = (await memory.scan_records(alone.person.owner, NAMESPACE)).items
        assert b"secret" not in record.value
        assert sha256(httpx.Request("POST", "http://x", json=body).content).hexdigest() not in record.key
        await alone.post(server, f"/responses/{created['response']['id']}/cancel")
        assert [event async for event in stream][-1]["type"] == "response.incomplete"
        async with asyncio.timeout(60):
            while (await memory.scan_records(alone.person.owner, NAMESPACE)).items:
                await asyncio.sleep(0.05)


async def test_a_completion_that_is_a_turn(alone: House) -> None:
    server = await alone.start()
    conversation = (await alone.post(server, "/conversations"))["id"]
    messages = [{"role": "user", "content": "[[tokens 30]] [[delay 0.02]]"}]
    body = {"messages": messages, "metadata": {"conversation": conversation}}
    text = await leave(alone, server, "/chat/completions", body)
    done = await ask(alone, server, body, 1, "/chat/completions")
    assert done["choices"][0]["message"]["content"] == text
    assert len(await alone.said(server, conversation)) == 2


async def test_a_second_try_is_joined_where_there_is_no_room_for_more(alone: House) -> None:
    alone.variables["DARAM_STREAM_LIMIT"] = "2"
    server = await alone.start()
    conversation = (await alone.post(server, "/conversations"))["id"]
    await alone.post(server, "/responses", {"input": "[[tokens 9000]] [[delay 0.05]]", "background": True})
    messages = [{"role": "user", "content": "[[tokens 9000]] [[delay 0.05]]"}]
    body = {"messages": messages, "metadata": {"conversation": conversation}, "stream": True}
    ids = []
    for count in range(2):
        stream = alone.events("POST", f"{server.url}/chat/completions", body, tried(count))
        ids.append((await until(stream, 1))[0]["id"])
        await stream.aclose()
    assert ids[0] == ids[1]


async def test_what_was_read_ahead_has_not_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.to_thread(service_settings, tmp_path)
    from daram.service.openai_api.idempotency import Draw
    from daram.service.openai_api.responses import event_stream
    from daram.service.openai_api.tries import Try

    for left in (True, False):
        delivered: list[bool] = []
        tried = Try(Draw())
        monkeypatch.setattr(tried, "delivered", lambda told=delivered: told.append(True))
        taken, made = asyncio.Event(), asyncio.Event()

        async def frames(taken: asyncio.Event = taken, made: asyncio.Event = made) -> AsyncGenerator[bytes, None]:
            yield b"first"
            await taken.wait()
            yield b"last"
            made.set()

        sent = aiter(event_stream(frames(), tried))
        assert await anext(sent) == b"first"
        taken.set()
        await made.wait()  # all is there, and the client leaves
        if left:
            await sent.aclose()
        else:
            assert [chunk async for chunk in sent] == [b"last"]
        assert delivered == ([] if left else [True])
