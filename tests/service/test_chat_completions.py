"""``/v1/chat/completions`` with the official SDK: passed through, or a turn of a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from tests.service.api_server import House, house
from tests.service.people import person

from daram.testing.model_replies import Reply, call, failure

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADD: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
HELLO: Any = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("completions")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def home(shared: House) -> House:
    shared.person = await person()
    shared.model.requests.clear()
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def client(home: House) -> AsyncIterator[AsyncOpenAI]:
    async with home.client() as found:
        yield found


async def test_it_is_passed_through(home: House, client: AsyncOpenAI) -> None:
    done = await client.chat.completions.create(
        model="scripted", messages=HELLO, temperature=0.5, max_tokens=50, seed=7, stop=["END"], frequency_penalty=0.1
    )
    assert done.choices[0].message.content == "You said: Hello"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert done.usage.total_tokens > 0
    [request] = home.model.requests
    assert request["messages"] == HELLO
    wanted = ("temperature", "max_tokens", "seed", "stop", "frequency_penalty")
    assert [request[name] for name in wanted] == [0.5, 50, 7, ["END"], 0.1]
    assert not (await home.memory.list(home.owner)).items


async def test_a_stream(home: House, client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="scripted", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You said: Hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    async with client.chat.completions.stream(model="scripted", messages=HELLO) as events:
        assert (await events.get_final_completion()).choices[0].message.content == "You said: Hello"


async def test_tools(home: House, client: AsyncOpenAI) -> None:
    home.model.script(call("add", {"a": 1}), Reply(tool_calls=(("add", "{}"), ("add", "{}"))))
    done = await client.chat.completions.create(model="scripted", messages=HELLO, tools=[ADD], tool_choice="auto")
    said = done.choices[0].message
    assert done.choices[0].finish_reason == "tool_calls"
    assert said.tool_calls is not None
    again: Any = [*HELLO, said.to_dict(), {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "2"}]
    async with client.chat.completions.stream(model="scripted", messages=again, tools=[ADD]) as events:
        final = await events.get_final_completion()
    assert len(final.choices[0].message.tool_calls or ()) == 2
    assert [m["role"] for m in home.model.requests[1]["messages"]] == ["system", "user", "assistant", "tool"]
    assert home.model.requests[1]["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'


async def test_a_conversation(home: House, client: AsyncOpenAI) -> None:
    """What stands behind the last answer in the request is new to the conversation."""
    conversation = await client.conversations.create()
    where = {"conversation": conversation.id}
    await client.chat.completions.create(model="scripted", messages=HELLO, metadata=where)
    both: Any = [*HELLO, {"role": "assistant", "content": "You said: Hello"}, {"role": "user", "content": "And now?"}]
    stream = await client.chat.completions.create(model="scripted", messages=both, metadata=where, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "I remember: Hello"
    items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
    said = [item.content[0].text for item in items]  # type: ignore[union-attr]
    assert said == ["Hello", "You said: Hello", "And now?", "I remember: Hello"]
    assert home.model.requests[1]["messages"][0] == HELLO[0]
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(
            model="scripted", messages=HELLO, metadata={"conversation": "conv_" + "0" * 32}
        )


async def test_a_repetition_with_a_key(home: House, client: AsyncOpenAI) -> None:
    where = {"conversation": (await client.conversations.create()).id}
    key = {"Idempotency-Key": "completion"}

    async def ask() -> Any:
        return await client.chat.completions.create(model="scripted", messages=HELLO, metadata=where, extra_headers=key)

    first, second = await ask(), await ask()
    assert (first.id, first.choices) == (second.id, second.choices)
    assert len((await client.conversations.items.list(where["conversation"])).data) == 2
    await client.conversations.delete(where["conversation"])
    with pytest.raises(openai.NotFoundError):
        await ask()


async def test_a_model_that_fails(home: House, client: AsyncOpenAI) -> None:
    home.model.script(failure(400, "no"))
    with pytest.raises(openai.APIStatusError):
        await client.chat.completions.create(model="scripted", messages=HELLO)
    home.model.script(failure(400, "no"))
    with pytest.raises(openai.APIError):
        async for _ in await client.chat.completions.create(model="scripted", messages=HELLO, stream=True):
            pass


async def test_who_leaves_stops_the_model(home: House, client: AsyncOpenAI) -> None:
    left = home.model.left
    long: Any = [{"role": "user", "content": "[[tokens 5000]] [[delay 0.01]]"}]
    stream = await client.chat.completions.create(model="scripted", messages=long, stream=True)
    await anext(stream)
    await stream.close()
    await home.model.wait_for(lambda model: model.left > left)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": HELLO, "n": 2}, "n"),
        ({"messages": HELLO, "logprobs": True}, "logprobs"),
        ({"messages": HELLO, "logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": HELLO, "surprise": 1}, "surprise"),
    ],
)
async def test_what_is_refused(home: House, body: dict[str, Any], param: str) -> None:
    async with httpx.AsyncClient(headers=home.person.headers) as bare:
        answer = await bare.post(f"{home.base_url}/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
