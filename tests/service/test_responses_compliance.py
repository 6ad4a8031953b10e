"""The cases of the Open Responses compliance suite (https://www.openresponses.org/compliance), written anew.

A client that takes the specification at its word finds every field that must be there, and the cases come out as they
should. What a model would decide there (to call the tool) is scripted here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.service.api_server import House, house

from daram.testing.model_replies import call

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSE = {
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "user",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
}
NEVER_NULL = {
    "tools",
    "tool_choice",
    "truncation",
    "text",
    "top_p",
    "temperature",
    "store",
    "background",
    "service_tier",
    "metadata",
}
ITEMS = {
    "message": {"type", "id", "status", "role", "content"},
    "function_call": {"type", "id", "call_id", "name", "arguments", "status"},
}
TEXT = {"type", "text", "annotations", "logprobs"}
USAGE = {"input_tokens", "output_tokens", "total_tokens", "input_tokens_details", "output_tokens_details"}
PART = {"item_id", "output_index", "content_index"}
EVENTS = {
    "response.created": {"response"},
    "response.in_progress": {"response"},
    "response.output_item.added": {"output_index", "item"},
    "response.content_part.added": {*PART, "part"},
    "response.output_text.delta": {*PART, "delta", "logprobs"},
    "response.output_text.done": {*PART, "text", "logprobs"},
    "response.content_part.done": {*PART, "part"},
    "response.function_call_arguments.delta": {"item_id", "output_index", "delta"},
    "response.function_call_arguments.done": {"item_id", "output_index", "arguments"},
    "response.output_item.done": {"output_index", "item"},
    "response.completed": {"response"},
}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place now",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
# One red pixel.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def check_response(response: dict[str, Any]) -> None:
    assert response.keys() >= RESPONSE
    assert all(response[name] is not None for name in NEVER_NULL)
    assert isinstance(response["created_at"], int)
    if response["usage"] is not None:
        assert response["usage"].keys() >= USAGE
    for tool in response["tools"]:
        assert {"type", "name", "description", "parameters", "strict"} <= tool.keys()
    for item in response["output"]:
        assert ITEMS[item["type"]] <= item.keys()
        for piece in item.get("content", ()):
            assert piece.keys() >= TEXT


def said(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("compliance")) as found:
        yield found


async def ask(home: House, body: dict[str, Any]) -> dict[str, Any]:
    async with httpx.AsyncClient(headers=home.person.headers, timeout=120.0) as bare:
        answer = await bare.post(f"{home.base_url}/responses", json={"model": "scripted", **body, "stream": False})
    assert answer.status_code == 200, answer.text
    response: dict[str, Any] = answer.json()
    check_response(response)
    assert response["status"] == "completed"
    assert response["output"]
    return response


async def ask_for_stream(home: House, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(headers=home.person.headers, timeout=120.0) as bare:
        answer = await bare.post(f"{home.base_url}/responses", json={"model": "scripted", **body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        event = json.loads(fields["data"])
        assert fields["event"] == event["type"]
        assert EVENTS[event["type"]] | {"type", "sequence_number"} <= event.keys()
        if "response" in event:
            check_response(event["response"])
        events.append(event)
    assert events[-1]["response"]["status"] == "completed"
    return events


async def test_basic_response(home: House) -> None:
    await ask(home, {"input": [said("user", "Say hello in exactly three words.")]})


async def test_streaming_response(home: House) -> None:
    events = await ask_for_stream(home, {"input": [said("user", "Count to five.")]})
    assert {event["type"] for event in events} == {name for name in EVENTS if "function" not in name}


async def test_system_prompt(home: House) -> None:
    home.model.requests.clear()
    await ask(home, {"input": [said("system", "You are a pirate."), said("user", "Say hello.")]})
    assert said("system", "You are a pirate.").items() >= home.model.requests[0]["messages"][-2].items()


async def test_tool_calling(home: House) -> None:
    home.model.script(call("get_weather", {"location": "San Francisco"}))
    response = await ask(home, {"input": [said("user", "How is the weather?")], "tools": [WEATHER]})
    assert [item["type"] for item in response["output"]] == ["function_call"]


async def test_tool_calling_streaming(home: House) -> None:
    home.model.script(call("get_weather", {"location": "San Francisco"}))
    events = await ask_for_stream(home, {"input": [said("user", "How is the weather?")], "tools": [WEATHER]})
    assert [event["type"].removeprefix("response.") for event in events[2:]] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


async def test_image_input(home: House) -> None:
    home.model.requests.clear()
    picture = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": PIXEL}]
    await ask(home, {"input": [said("user", picture)]})
    content = home.model.requests[0]["messages"][-1]["content"]
    assert [piece["type"] for piece in content] == ["text", "image_url"]
    assert content[1]["image_url"]["url"] == PIXEL


async def test_multi_turn(home: House) -> None:
    history = [
        said("user", "My cat is called Alice."),
        said("assistant", "Nice."),
        said("user", "What is the name of my cat?"),
    ]
    response = await ask(home, {"input": history})
    assert "Alice" in response["output"][0]["content"][0]["text"]
