"""``/v1/responses`` with the official SDK, over a real port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from agents import Agent, OpenAIConversationsSession, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from tests.service.api_server import House, house
from tests.service.people import person

from daram.service.openai_api.responses_view import place_of
from daram.testing.model_replies import Reply, call, failure

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}, "strict": False}
DEEP: dict[str, Any] = {"a": {"b" * 100: {"c" * 100: json.loads("[" * 150 + "]" * 150)}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("responses")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(data: Path) -> AsyncIterator[House]:
    async with house(data) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def home(shared: House) -> House:
    """The one house of this module, with somebody new in it."""
    shared.person = await person()
    shared.model.requests.clear()
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def client(home: House) -> AsyncIterator[AsyncOpenAI]:
    async with home.client() as found:
        yield found


async def test_a_string_is_answered(home: House, client: AsyncOpenAI) -> None:
    response = await client.responses.create(
        model="scripted", input="Hello", metadata={"a": "b"}, instructions="Be short.", temperature=0.5
    )
    assert response.output_text == "You said: Hello"
    assert (response.status, response.model, response.metadata) == ("completed", "scripted", {"a": "b"})
    assert (response.instructions, response.temperature, response.conversation) == ("Be short.", 0.5, None)
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    [request] = home.model.requests
    assert request["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
    ]
    assert request["temperature"] == 0.5
    again = await client.responses.retrieve(response.id)
    assert again == response


async def test_the_sync_client(home: House) -> None:
    def ask() -> tuple[str, str]:
        with OpenAI(base_url=home.base_url, api_key=home.person.key, max_retries=0) as client:
            first = client.responses.create(model="scripted", input="one two")
            with client.responses.stream(model="scripted", input="three four", previous_response_id=first.id) as stream:
                for _ in stream:
                    pass
                return first.output_text, stream.get_final_response().output_text

    assert await asyncio.to_thread(ask) == ("You said: one two", "I remember: one two")


async def test_a_conversation(home: House, client: AsyncOpenAI) -> None:
    """Both sides are items of it; instructions are not carried over."""
    conversation = await client.conversations.create()
    await client.responses.create(input="One thing", conversation=conversation.id, instructions="Rule.")
    second = await client.responses.create(input="Another", conversation={"id": conversation.id})
    assert second.conversation is not None
    assert second.conversation.id == conversation.id
    assert [m["role"] for m in home.model.requests[1]["messages"]][-3:] == ["user", "assistant", "user"]
    assert "Rule." not in json.dumps(home.model.requests[1])
    items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
    said = [item.content[0].text for item in items]  # type: ignore[union-attr]
    assert said == ["One thing", "You said: One thing", "Another", "I remember: One thing"]
    listed = [item.id async for item in client.responses.input_items.list(second.id)]
    assert listed == [items[2].id]


async def test_a_chain_without_copies(home: House, client: AsyncOpenAI) -> None:
    first = await client.responses.create(input="a newt is called Tim")
    second = await client.responses.create(input="second", previous_response_id=first.id)
    third = await client.responses.create(input="what is the name of the newt?", previous_response_id=second.id)
    assert "Tim" in third.output_text
    assert third.previous_response_id == second.id
    places = [place_of(response.id) for response in (first, second, third)]
    assert len({place.conversation for place in places if place}) == 1
    [place] = {place.conversation for place in places if place}
    assert len((await home.memory.messages(home.owner, place)).items) == 6


async def test_two_on_one_response_run_side_by_side(home: House, client: AsyncOpenAI) -> None:
    first = await client.responses.create(input="root")
    stalled = await client.responses.create(input="[[stall 2]]", previous_response_id=first.id, stream=True)
    while (await anext(stalled)).type != "response.output_text.delta":  # the model is at it
        pass
    other = await client.responses.create(input="beside", previous_response_id=first.id)
    assert other.output_text == "I remember: root"
    await stalled.close()
    running = [m["messages"][-1]["content"] for m in home.model.requests]
    assert running == ["root", "[[stall 2]]", "beside"]


async def test_a_busy_conversation_is_waited_for_then_refused(data: Path) -> None:
    async with house(data, wait=0.2) as home, home.client() as client:
        conversation = await client.conversations.create()
        running = await client.responses.create(input="[[stall 1]]", conversation=conversation.id, background=True)
        assert running.status == "queued"
        with pytest.raises(openai.ConflictError) as caught:
            await client.responses.create(input="me too", conversation=conversation.id)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        with pytest.raises(openai.ConflictError):
            await client.responses.create(input="me too", previous_response_id=running.id)
        cancelled = await client.responses.cancel(running.id)
        assert cancelled.status == "cancelled"
        done = await client.responses.create(input="now", conversation=conversation.id)
        assert done.status == "completed"


async def test_sixteen_at_once_make_sixteen_pairs(home: House, client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    await asyncio.gather(
        *(client.responses.create(input=f"[[say answer {i}]]", conversation=conversation.id) for i in range(16))
    )
    items = [item async for item in client.conversations.items.list(conversation.id, order="asc", limit=100)]
    said = [item.content[0].text for item in items]  # type: ignore[union-attr]
    assert len(said) == 32
    assert set(said[::2]) == {f"[[say answer {i}]]" for i in range(16)}
    assert [f"[[say {answer}]]" for answer in said[1::2]] == said[::2]


async def test_a_stream_is_replayed_from_any_number(home: House, client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="scripted", input="[[tokens 5]]") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert final.output_text == "word1 word2 word3 word4 word5"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole = [event async for event in await client.responses.retrieve(final.id, stream=True)]
    assert [event.sequence_number for event in whole] == list(range(len(events)))
    for after in (0, 3, len(events) - 2):
        rest = [event async for event in await client.responses.retrieve(final.id, stream=True, starting_after=after)]
        assert rest == whole[after + 1 :]
    async with httpx.AsyncClient(headers=home.person.headers | {"Last-Event-ID": "3"}) as bare:
        text = (await bare.get(f"{home.base_url}/responses/{final.id}?stream=true")).text
        assert text.startswith("id: 4\nevent: ")
        refused = await bare.get(f"{home.base_url}/responses/{final.id}?stream=true", headers={"Last-Event-ID": "x"})
        assert refused.status_code == 400


async def test_a_lost_client_does_not_stop_the_answer(home: House, client: AsyncOpenAI) -> None:
    stream = await client.responses.create(input="[[tokens 40]] [[delay 0.01]]", stream=True)
    created = await anext(stream)
    while (event := await anext(stream)).type != "response.output_text.delta":
        pass
    await stream.close()
    resumed = await client.responses.retrieve(
        created.response.id,
        stream=True,
        starting_after=event.sequence_number,  # type: ignore[union-attr]
    )
    numbers = [one.sequence_number async for one in resumed]
    assert numbers == list(range(event.sequence_number + 1, event.sequence_number + 1 + len(numbers)))
    done = await client.responses.retrieve(created.response.id)  # type: ignore[union-attr]
    assert done.status == "completed"
    assert done.output_text.endswith("word40")


async def test_in_the_background(home: House, client: AsyncOpenAI) -> None:
    started = await client.responses.create(input="[[tokens 20]] [[delay 0.01]]", background=True)
    assert (started.status, started.background, started.output) == ("queued", True, [])
    async with asyncio.timeout(60):
        while (response := await client.responses.retrieve(started.id)).status in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
    assert response.status == "completed"
    streamed = await client.responses.create(input="[[tokens 3]]", background=True, stream=True)
    assert [event async for event in streamed][-1].type == "response.completed"


async def test_tools(home: House, client: AsyncOpenAI) -> None:
    """The calls of an answer come out as items, their outputs go in, and the model sees both together."""
    home.model.script(Reply(text="Wait.", tool_calls=(("add", '{"a": 1}'), ("add", '{"a": 2}'))), "It is 3.")
    async with client.responses.stream(
        model="scripted", input="1 + 2?", tools=[ADD], tool_choice="required", parallel_tool_calls=True
    ) as stream:
        async for _ in stream:
            pass
        asked = await stream.get_final_response()
    words, *calls = asked.output
    assert words.type == "message"
    assert [(one.type, one.call_id, one.arguments) for one in calls] == [  # type: ignore[union-attr]
        ("function_call", "call_0", '{"a": 1}'),
        ("function_call", "call_1", '{"a": 2}'),
    ]
    request = home.model.requests[0]
    assert request["tools"][0]["function"]["name"] == "add"
    assert (request["tool_choice"], request["parallel_tool_calls"]) == ("required", True)
    outputs: Any = [{"type": "function_call_output", "call_id": f"call_{i}", "output": str(i)} for i in range(2)]
    told = await client.responses.create(input=outputs, previous_response_id=asked.id, tools=[ADD])
    assert told.output_text == "It is 3."
    assert [m["role"] for m in home.model.requests[1]["messages"]][-4:] == ["user", "assistant", "tool", "tool"]
    # The same, all of it in one request.
    everything: Any = [
        {"role": "user", "content": "1 + 2?"},
        *[{k: v for k, v in one.to_dict().items() if k != "id"} for one in calls],
        *outputs,
    ]
    home.model.script("Still 3.")
    assert (await client.responses.create(input=everything, tools=[ADD])).output_text == "Still 3."
    [_question, answer, *results] = home.model.requests[2]["messages"][-4:]
    assert len(answer["tool_calls"]) == len(results) == 2
    assert {result["tool_call_id"] for result in results} == {"call_0", "call_1"}


async def test_a_call_of_a_tool_without_words(home: House, client: AsyncOpenAI) -> None:
    home.model.script(call("add", {}))
    response = await client.responses.create(input="add", tools=[ADD])
    assert [item.type for item in response.output] == ["function_call"]


async def test_structured_outputs(home: House, client: AsyncOpenAI) -> None:
    class Sum(BaseModel):
        total: int

    home.model.script('{"total": 3}')
    parsed = await client.responses.parse(model="scripted", input="1 + 2", text_format=Sum)
    assert parsed.output_parsed == Sum(total=3)
    wanted = home.model.requests[0]["response_format"]
    assert wanted["type"] == "json_schema"
    assert wanted["json_schema"]["schema"]["properties"]["total"]["type"] == "integer"


async def test_nothing_is_stored(home: House, client: AsyncOpenAI) -> None:
    before = len((await home.memory.list(home.owner)).items)
    response = await client.responses.create(input="secret", store=False)
    async with client.responses.stream(model="scripted", input="secret", store=False) as stream:
        assert (await stream.get_final_response()).output_text == "You said: secret"
    assert response.output_text == "You said: secret"
    assert response.store is False  # type: ignore[attr-defined]
    assert len((await home.memory.list(home.owner)).items) == before
    assert not (await home.memory.search(home.owner, "secret"))
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    kept = await client.responses.create(input="known")
    aside = await client.responses.create(input="and?", previous_response_id=kept.id, store=False)
    assert aside.output_text == "I remember: known"
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(input="x", store=False, background=True)


async def test_an_answer_that_is_cut_is_incomplete(home: House, client: AsyncOpenAI) -> None:
    home.model.script(Reply(text="one two", end="no-finish"))
    with pytest.raises(openai.APIStatusError):
        await client.responses.create(input="x")


async def test_a_model_that_fails(home: House, client: AsyncOpenAI) -> None:
    """An error for who waits, a last frame for who streams; the user's message is kept."""
    home.model.script(failure(400, "no"))
    with pytest.raises(openai.APIStatusError) as caught:
        await client.responses.create(input="lost?")
    assert caught.value.status_code in (502, 503)
    home.model.script(failure(400, "no"))
    stream = await client.responses.create(input="lost too?", stream=True)
    last = [event async for event in stream][-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert "127.0.0.1" not in last.response.error.message
    assert len(await home.memory.search(home.owner, "lost")) == 2
    assert (await client.responses.retrieve(last.response.id)).status == "failed"


async def test_the_sdk_tries_again(home: House) -> None:
    """Its second try of a turn that failed is the same turn: the message is stored once."""
    home.model.script(failure(429), failure(429), failure(429), "Here I am.")  # more than the model's client tries
    async with home.client(max_retries=2) as client:
        conversation = await client.conversations.create()
        home.model.script()
        with pytest.raises(openai.APIStatusError):
            await client.with_options(max_retries=0).responses.create(input="Hi", conversation=conversation.id)
        again = await client.responses.create(
            input="Hi", conversation=conversation.id, extra_headers={"x-stainless-retry-count": "1"}
        )
        assert again.output_text == "Here I am."
        items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
        assert len([item for item in items if getattr(item, "role", "") == "user"]) == 1
        # It has come to its client: the next equal one is a turn of its own.
        home.model.script("Again.")
        other = await client.responses.create(
            input="Hi", conversation=conversation.id, extra_headers={"x-stainless-retry-count": "1"}
        )
        assert other.output_text == "Again."


async def test_a_second_try_joins_a_stream_that_broke(home: House, client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    body: dict[str, Any] = {"input": "[[stall 3]]", "conversation": conversation.id, "stream": True}
    stream = await client.responses.create(**body)
    created = await anext(stream)
    await stream.close()
    again = await client.responses.create(**body, extra_headers={"x-stainless-retry-count": "1"})
    joined = await anext(again)
    assert joined.response.id == created.response.id  # type: ignore[union-attr]
    await client.responses.cancel(joined.response.id)  # type: ignore[union-attr]
    last = [event async for event in again][-1]
    assert last.response.status == "cancelled"  # type: ignore[union-attr]
    assert [item.type for item in (await client.conversations.items.list(conversation.id)).data] == ["message"] * 2


async def test_an_idempotency_key(home: House, client: AsyncOpenAI) -> None:
    headers = {"Idempotency-Key": "only once"}
    first = await client.responses.create(input="Hi", extra_headers=headers)
    second = await client.responses.create(input="Hi", extra_headers=headers)
    assert first == second
    assert len(home.model.requests) == 1
    await client.responses.delete(first.id)
    with pytest.raises(openai.APIStatusError) as gone:
        await client.responses.create(input="Hi", extra_headers=headers)
    assert gone.value.status_code in (404, 409), "what was deleted does not come back"
    assert len(home.model.requests) == 1
    streams = [
        [
            event
            async for event in await client.responses.create(
                input="Ho", stream=True, extra_headers={"Idempotency-Key": "a stream"}
            )
        ]
        for _ in range(2)
    ]
    assert streams[0] == streams[1]
    assert len(home.model.requests) == 2


async def test_the_input_is_found_in_one_read(
    home: House, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await client.responses.create(input="in front")
    said: Any = [{"role": "user", "content": f"{number}"} for number in range(60)]
    second = await client.responses.create(input=said, previous_response_id=first.id)
    reads: list[str] = []
    message = type(home.memory).message

    async def counted(self: Any, *args: Any) -> Any:
        reads.append(args[-1])
        return await message(self, *args)

    monkeypatch.setattr(type(home.memory), "message", counted)
    listed: Any = (await client.responses.input_items.list(second.id, limit=100, order="asc")).data
    assert [item.content[0].text for item in listed] == [str(number) for number in range(60)]
    assert len(reads) < 5
    # What stands in front of one that was deleted is no more told apart from what was said before.
    place = place_of(second.id)
    assert place is not None
    await home.memory.delete_message(home.owner, place.conversation, listed[30].id)
    listed = (await client.responses.input_items.list(second.id, limit=100, order="asc")).data
    assert [item.content[0].text for item in listed] == [str(number) for number in range(31, 60)]


async def test_delete(home: House, client: AsyncOpenAI) -> None:
    first = await client.responses.create(input="[[say Bye.]] gone tomorrow")
    second = await client.responses.create(input="[[say Fine.]] stays", previous_response_id=first.id)
    await client.responses.delete(first.id)
    for _ in range(2):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
    assert not await home.memory.search(home.owner, "tomorrow", any_word=False)
    assert (await client.responses.retrieve(second.id)).status == "completed"
    await client.responses.delete(second.id)
    place = place_of(second.id)
    assert place is not None
    with pytest.raises(LookupError):
        await home.memory.get(home.owner, place.conversation)
    conversation = await client.conversations.create()
    third = await client.responses.create(input="an item", conversation=conversation.id)
    await client.responses.delete(third.id)
    assert len([item async for item in client.conversations.items.list(conversation.id)]) == 1


async def test_answers_that_nobody_waits_for_are_bounded_as_well(tmp_path: Path) -> None:
    slow: Any = {"input": "[[tokens 9000]] [[delay 0.05]]", "background": True}
    async with house(tmp_path, stream_limit=2, drain=0.0) as own, own.client() as client:
        first, _second = [await client.responses.create(**slow) for _ in range(2)]
        conversation = await client.conversations.create()
        turn: Any = {"messages": [{"role": "user", "content": "x"}], "metadata": {"conversation": conversation.id}}
        for refused in (client.responses.create(**slow), client.chat.completions.create(model="scripted", **turn)):
            with pytest.raises(openai.RateLimitError) as error:
                await refused
            assert "2 answers are being made" in error.value.message
            assert error.value.response.headers["retry-after"] == "1"
        assert (await client.responses.create(input="said by the way", store=False)).status == "completed"
        async with own.client(await person()) as another:
            assert (await another.responses.create(input="x")).status == "completed"
        await client.responses.cancel(first.id)
        assert (await client.responses.create(input="x")).status == "completed"


async def test_what_is_not_ready_is_told_to_this_machine_only(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ready() -> str:
        return "the weights in /home/ann are not there"

    monkeypatch.setattr(home.service.runtime.model, "ready", ready)
    async with httpx.AsyncClient(base_url=home.url, timeout=60) as bare:
        for passed_on, told in (({}, await ready()), ({"forwarded": "for=192.0.2.1"}, "unavailable")):
            assert (await bare.get("/readyz", headers=passed_on)).json()["model"] == told


async def test_what_is_not_stored_is_asked_as_what_is(home: House, client: AsyncOpenAI) -> None:
    """Endpoints refuse calls without results and results without calls."""
    lone: Any = [
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
        {"role": "user", "content": "Never mind."},
        {"type": "function_call_output", "call_id": "c2", "output": "3"},
    ]
    conversation = await client.conversations.create(items=lone)
    home.model.script(failure(401))
    with pytest.raises(openai.APIStatusError):
        await client.responses.create(input="one", conversation=conversation.id)
    for store in (False, True):
        await client.responses.create(
            input="two", conversation=conversation.id, store=store, instructions="Be short.", truncation="auto"
        )
    stateless, stored = (request["messages"] for request in home.model.requests[-2:])
    assert stateless == stored
    assert {message["role"] for message in stored} == {"system", "user"}


async def test_what_is_not_stored_is_fitted_as_what_is(tmp_path: Path) -> None:
    """The oldest messages are left out, and the server's own rules hold, unless the request has others."""
    async with house(tmp_path, context_tokens=3000, system="Speak like a newt.") as home, home.client() as client:
        last = await client.responses.create(input="A newt is called Tim.")
        for _ in range(3):
            last = await client.responses.create(input="word " * 800, previous_response_id=last.id)
        home.model.requests.clear()
        for more in ({"store": False}, {"store": True}):
            body: Any = {"input": "Who?", "previous_response_id": last.id, **more}
            await client.responses.create(**body)
            await client.responses.create(**body, instructions="Be short.")
        stateless, other, stored, other_stored = (request["messages"] for request in home.model.requests)
        assert (stateless, other) == (stored, other_stored)
        assert stored[0]["content"].startswith("Speak like a newt.")
        assert other[0]["content"].startswith("Be short.")
        assert len(stored) < 9, "what does not fit is left out"
        # Of a whole history that comes with the request as well; a question that is too long by itself is refused.
        history: Any = [{"role": "user", "content": f"{i} " + "word " * 800} for i in range(9)]
        await client.responses.create(input=[*history, {"role": "user", "content": "Who?"}], store=False)
        told = home.model.requests[-1]["messages"]
        assert told[-1]["content"] == "Who?"
        assert 2 < len(told) < 9
        assert told[-2]["content"].startswith("8 ")
        asked = len(home.model.requests)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(input="word " * 9000, store=False)
        assert caught.value.code == "context_length_exceeded"
        assert len(home.model.requests) == asked
        counted = await client.responses.input_tokens.count(input="word " * 9000)
        assert counted.input_tokens > 3000, "counting is there to tell that it is too long"


async def test_a_whole_history_comes_with_a_request_that_is_not_stored(home: House, client: AsyncOpenAI) -> None:
    history: Any = [
        {"role": role, "content": f"{number} {role}"} for number in range(100) for role in ("user", "assistant")
    ]
    question: Any = [*history, {"role": "user", "content": "And now?"}]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(input=question)
    assert caught.value.param == "input"
    response = await client.responses.create(input=question, store=False)
    assert response.status == "completed"
    told = [message["content"] for message in home.model.requests[-1]["messages"]]
    assert told[-201:] == [*(f"{i} {role}" for i in range(100) for role in ("user", "assistant")), "And now?"]
    counted = await client.responses.input_tokens.count(input=question)
    assert counted.input_tokens > 400
    home.model.script("Much was said.")
    made = await client.responses.compact(model="scripted", input=question)
    assert [item.type for item in made.output] == [*["message"] * 101, "compaction"]
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(input=history * 11, store=False)


async def test_what_stands_on_another_branch_outlives_a_deletion(home: House, client: AsyncOpenAI) -> None:
    first = await client.responses.create(input="one")
    stays = await client.responses.create(input="two", previous_response_id=first.id)
    beside = await client.responses.create(input="three", previous_response_id=first.id)
    for gone in (first, beside):
        await client.responses.delete(gone.id)
    assert await client.responses.retrieve(stays.id) == stays
    await client.responses.delete(stays.id)
    place = place_of(stays.id)
    assert place is not None
    with pytest.raises(LookupError):
        await home.memory.get(home.owner, place.conversation)


async def test_a_conversation_with_metadata_outlives_its_responses(home: House, client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(metadata={"topic": "nuts"})
    first = await client.responses.create(input="one", conversation=conversation.id)
    second = await client.responses.create(input="two", previous_response_id=first.id)
    for item in (await client.responses.input_items.list(first.id)).data:
        await client.conversations.items.delete(item.id, conversation_id=conversation.id)
    for gone in (first, second):
        await client.responses.delete(gone.id)
    assert not (await client.conversations.items.list(conversation.id)).data
    assert (await client.conversations.retrieve(conversation.id)).metadata == {"topic": "nuts"}


async def test_at_the_end_of_a_process_clients_are_sent_to_the_next_one(tmp_path: Path) -> None:
    """By the refusals that the SDK tries again on, and before a stream has begun."""
    async with house(tmp_path, drain=0.0) as ending, ending.client() as client:
        done = await client.responses.create(input="Hello")
        await ending.service.drain()
        for call in (
            client.responses.create(input="too late"),
            client.responses.create(input="too late", stream=True),
            client.responses.retrieve(done.id, stream=True),
        ):
            with pytest.raises(openai.InternalServerError) as refused:
                await call
            assert (refused.value.status_code, refused.value.code) == (503, "shutting_down")
            assert refused.value.response.headers["retry-after"] == "1"
            assert "x-should-retry" not in refused.value.response.headers
        assert await client.responses.retrieve(done.id) == done


async def test_whose_is_whose(home: House, client: AsyncOpenAI) -> None:
    """Another's response is as one that is not there."""
    mine = await client.responses.create(input="mine")
    missing = mine.id[:-8] + "00000000"
    other = await person()
    async with httpx.AsyncClient(base_url=home.base_url, headers=other.headers) as bare:
        for method, path in (
            ("GET", ""),
            ("GET", "?stream=true"),
            ("DELETE", ""),
            ("POST", "/cancel"),
            ("GET", "/input_items"),
        ):
            found = [await bare.request(method, f"/responses/{id}{path}") for id in (mine.id, missing)]
            assert [one.status_code for one in found] == [404, 404]
            assert found[0].text.replace(mine.id, "ID") == found[1].text.replace(missing, "ID")
        for id in (mine.id, missing):
            found = await bare.post("/responses", json={"input": "x", "previous_response_id": id})
            assert found.status_code == 400
            assert "previous_response_id" in found.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "x", "conversation": "conv_1", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "surprise": 1}, "surprise"),
        ({"input": "x", "top_logprobs": 3}, "top_logprobs"),
        ({"input": "x", "include": ["message.output_text.logprobs"]}, "include"),
        ({"input": "x", "tools": [{**ADD, "parameters": DEEP}]}, "tools[0].parameters.a"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "3"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "3"}], "store": False}, "input"),
        ({"input": "x", "s" * 3000: 1}, "ssss"),
        ({"input": "x", "temperature": 3}, "temperature"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice"),
        ({"input": "x", "model": "gpt-999"}, "model"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "x", "truncation": "maybe"}, "truncation"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({}, "input"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": "x", "previous_response_id": "resp_nothing"}, "previous_response_id"),
        ({"input": "x", "metadata": {"k": "v" * 513}}, "metadata"),
    ],
)
async def test_what_is_refused(home: House, body: dict[str, Any], param: str) -> None:
    async with httpx.AsyncClient(headers=home.person.headers) as bare:
        answer = await bare.post(f"{home.base_url}/responses", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)
    assert len(error["param"]) <= 200, "what the caller made up is told, but not at any length"
    assert "message" not in error["param"] and len(error["message"]) <= 2000
    assert home.model.requests == []


async def test_input_tokens(home: House, client: AsyncOpenAI) -> None:
    few = await client.responses.input_tokens.count(input="one")
    many = await client.responses.input_tokens.count(input="one " * 500, instructions="rule " * 100)
    assert 0 < few.input_tokens < 50 < many.input_tokens
    first = await client.responses.create(input="words " * 200)
    after = await client.responses.input_tokens.count(input="one", previous_response_id=first.id)
    assert after.input_tokens > few.input_tokens + 100


async def test_the_agents_sdk(home: House, client: AsyncOpenAI) -> None:
    """Its session keeps a conversation itself; with ``conversation_id`` the service does; tools run in between."""
    set_tracing_disabled(True)

    @function_tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    model = OpenAIResponsesModel(model="scripted", openai_client=client)
    agent = Agent(name="adder", instructions="You add.", model=model, tools=[add])
    conversation = await client.conversations.create()
    home.model.script(call("add", {"a": 1, "b": 2}), "It is 3.", "You asked for 1 + 2.")
    first = await Runner.run(agent, "1 + 2?", conversation_id=conversation.id)
    assert first.final_output == "It is 3."
    streamed = Runner.run_streamed(agent, "What did I ask?", conversation_id=conversation.id)
    deltas = [
        event.data.delta
        async for event in streamed.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    assert "".join(deltas) == streamed.final_output == "You asked for 1 + 2."
    items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
    assert [item.type for item in items] == [
        "message", "function_call", "function_call_output", "message", "message", "message"
    ]  # fmt: skip
    assert items[2].output == "3"  # type: ignore[union-attr]
    session = OpenAIConversationsSession(openai_client=client)
    home.model.requests.clear()
    for text in ("A newt is called Tim.", "what is the name of the newt?"):
        result = await Runner.run(agent, text, session=session)
    assert "Tim" in result.final_output
    assert len(await session.get_items()) == 4
    await session.clear_session()


async def test_nothing_is_left_out(data: Path) -> None:
    """``truncation=disabled``: the whole branch, of which the turn reads far less otherwise; or a refusal."""
    async with house(data, window=2, context_tokens=3000) as home, home.client() as client:
        first = await client.responses.create(input="A newt is called Tim.")
        last = first
        for number in range(4):
            last = await client.responses.create(input=f"{number}", previous_response_id=last.id)
        last = await client.responses.create(input="Who?", previous_response_id=last.id, truncation="disabled")
        said = [m["content"] for m in home.model.requests[-1]["messages"] if m["role"] == "user"]
        assert said == ["A newt is called Tim.", "0", "1", "2", "3", "Who?"]
        assert last.truncation == "disabled"
        await client.responses.create(input="x", previous_response_id=last.id)
        assert len(home.model.requests[-1]["messages"]) < 6
        # The same for what is not stored, and for a conversation that is named.
        for more in ({"store": False}, {"store": True}):
            body: Any = {"previous_response_id": last.id, "truncation": "disabled", **more}
            await client.responses.create(input="Who?", **body)
            assert "Tim" in json.dumps(home.model.requests[-1])
            asked = len(home.model.requests)
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(input="word " * 3000, **body)
            assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
            assert len(home.model.requests) == asked
        conversation = await client.conversations.create()
        for _ in range(2):
            await client.responses.create(input="word " * 800, conversation=conversation.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(input="word " * 800, conversation=conversation.id, truncation="disabled")
        assert caught.value.code == "context_length_exceeded"
        items = (await client.conversations.items.list(conversation.id)).data
        assert len(items) == 4, "what is refused is not stored"
        done = await client.responses.create(input="word " * 800, conversation=conversation.id, truncation="auto")
        assert done.status == "completed"


async def test_a_deleted_message_does_not_end_the_past(home: House, client: AsyncOpenAI) -> None:
    first = await client.responses.create(input="A newt is called Tim.")
    second = await client.responses.create(input="forget this", previous_response_id=first.id)
    third = await client.responses.create(input="x", previous_response_id=second.id)
    place = place_of(second.id)
    assert place is not None
    await home.memory.delete_message(home.owner, *place)
    aside = await client.responses.create(
        input="what is the name of the newt?", previous_response_id=third.id, store=False
    )
    assert "Tim" in aside.output_text


async def test_codes_of_what_is_not_there(home: House, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as unknown:
        await client.responses.create(input="x", model="gpt-999")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as missing:
        await client.models.retrieve("gpt-999")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as completion:
        await client.chat.completions.create(model="gpt-999", messages=[{"role": "user", "content": "x"}])
    assert completion.value.code == "model_not_found"
    for id in ("resp_nothing", "resp_" + "0" * 64):
        with pytest.raises(openai.BadRequestError) as previous:
            await client.responses.create(input="x", previous_response_id=id)
        assert (previous.value.code, previous.value.param) == ("previous_response_not_found", "previous_response_id")
        assert id in previous.value.message
    assert [model.id async for model in client.models.list()] == ["scripted"]
    assert home.model.requests == []


async def test_compaction(home: House, client: AsyncOpenAI) -> None:
    """What the user said stays, the rest becomes a summary, and the next response goes on from both."""
    first = await client.responses.create(input="A newt is called Tim.")
    second = await client.responses.create(input="It eats flies.", previous_response_id=first.id)
    home.model.script("There is a newt, Tim.")
    made = await client.responses.compact(
        model="scripted", previous_response_id=second.id, input=[{"role": "user", "content": "and gnats"}]
    )
    record = home.model.requests[-1]["messages"][-1]["content"]
    assert record.splitlines() == [
        "user: A newt is called Tim.",
        "assistant: You said: A newt is called Tim.",
        "user: It eats flies.",
        "assistant: I remember: A newt is called Tim.",
        "user: and gnats",
    ]
    assert [item.type for item in made.output] == ["message", "message", "message", "compaction"]
    assert made.usage.total_tokens > 0
    items: Any = [item.to_dict() for item in made.output[3:]]
    await client.responses.create(input=[*items, {"role": "user", "content": "Who?"}])
    summary = [m for m in home.model.requests[-1]["messages"] if "There is a newt, Tim." in m["content"]]
    assert [m["role"] for m in summary] == ["system"]
    items[0]["encrypted_content"] = "somebody else's"
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(input=[*items, {"role": "user", "content": "Who?"}])
