"""Events as frames: the SDK's accumulator takes every stream, and every replay gives the same frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bench.streams import measure
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from daram import Message, Part
from daram.chat.events import Event, terminal_type
from daram.errors import StoreUnavailable
from daram.model import Status
from daram.service.openai_api.responses_view import View, new_place, place_of, question_id, response_id
from daram.service.openai_api.stream import PING, frames, with_pings

ANSWER = "msg_" + "1" * 32
VIEW = View(id="resp_1", model="m", created_at=1, request={"metadata": {"a": "b"}}, conversation="conv_1")
CALL = Part(type="tool_call", data={"call_id": "call_0", "name": "add", "arguments": '{"a": 1}'})
OTHER_CALL = Part(type="tool_call", data={"call_id": "call_1", "name": "add", "arguments": ""})
THOUGHT = Part(type="reasoning", data={"text": "hm"})
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def told(*deltas: str, status: Status = "complete", parts: Sequence[Part] = (), **more: Any) -> list[Event]:
    """The log of an answer."""
    message = Message(
        id=ANSWER, role="assistant", text="".join(deltas), status=status, parts=tuple(parts), model="m", **more
    )
    events = [Event(seq=1, type="created", answer=ANSWER, question="q")]
    events += [Event(seq=i, type="delta", answer=ANSWER, text=text) for i, text in enumerate(deltas, 2)]
    return [*events, Event(seq=len(events) + 1, type=terminal_type(status), answer=ANSWER, message=message)]


async def framed(events: Sequence[Event], after: int | None = None) -> list[dict[str, Any]]:
    async def log() -> AsyncGenerator[Event, None]:
        for event in events:
            yield event

    return [parsed(data) async for data in frames(log(), VIEW, ANSWER, after=after)]


def parsed(data: bytes) -> dict[str, Any]:
    """A frame; its three lines must agree."""
    lines = data.decode().removesuffix("\n\n").split("\n")
    fields = dict(line.split(": ", 1) for line in lines)
    found: dict[str, Any] = json.loads(fields["data"])
    assert fields["event"] == found["type"]
    assert int(fields["id"]) == found["sequence_number"]
    return found


def accumulate(found: Sequence[dict[str, Any]]) -> Any:
    """What the official SDK makes of a stream; it raises where it does not like it."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for one in found:
        STREAM_EVENT.validate_python(one)
        state.handle_event(STREAM_EVENT.validate_python(one))
    return state._completed_response


CASES = {
    "words": told("Hello", " there", usage={"input_tokens": 3, "output_tokens": 2}),
    "nothing": told(),
    "call": told(parts=[CALL]),
    "words and calls": told("I add", " them.", parts=[CALL, OTHER_CALL]),
    "reasoning": told("So: 2", parts=[THOUGHT, CALL]),
    "cut": told("Once upon", status="incomplete", metadata={"finish": "length"}),
    "cut before the first word": told(status="incomplete"),
    "cancelled": told("Once", status="cancelled"),
    "failed": told(status="failed", metadata={"error": "model_timeout"}),
    "failed in the middle": told("Once", status="failed", metadata={"error": "model_broken"}),
    "not stored": [*told("Once", " more")[:-1], Event(seq=4, type="failed", answer=ANSWER, error="lost", code="store")],
}


@pytest.mark.parametrize("events", CASES.values(), ids=CASES)
async def test_the_accumulator_takes_it(events: list[Event]) -> None:
    found = await framed(events)
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert [one["type"] for one in found[:2]] == ["response.created", "response.in_progress"]
    final = accumulate(found)
    last, message = found[-1], events[-1].message
    assert last["type"] in ("response.completed", "response.incomplete", "response.failed")
    Response.model_validate(last["response"])
    if last["type"] == "response.completed":
        assert message is not None
        assert final.output_text == message.text
        assert final.metadata == {"a": "b"}
        assert final.conversation.id == "conv_1"
    for type, key in (("response.output_text.done", "text"), ("response.function_call_arguments.done", "arguments")):
        for done in (one for one in found if one["type"] == type):
            deltas = [
                one["delta"]
                for one in found
                if one["type"] == type.removesuffix("done") + "delta" and one["output_index"] == done["output_index"]
            ]
            assert "".join(deltas) == done[key]
    assert [one["item"] for one in found if one["type"] == "response.output_item.done"] == last["response"]["output"]


async def test_what_the_end_says() -> None:
    ends = {name: (await framed(events))[-1] for name, events in CASES.items()}
    assert ends["words"]["response"]["usage"]["total_tokens"] == 5
    assert ends["cut"]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert ends["cut"]["response"]["output"][0]["status"] == "incomplete"
    assert ends["cancelled"]["response"]["status"] == "cancelled"
    assert ends["failed"]["response"]["error"]["code"] == "server_error"
    assert ends["failed"]["response"]["output"] == []
    assert ends["not stored"]["response"]["error"] == {"code": "server_error", "message": "lost"}
    assert ends["not stored"]["response"]["output"][0]["content"][0]["text"] == "Once more"


@pytest.mark.parametrize("events", CASES.values(), ids=CASES)
async def test_a_replay_from_any_number_gives_the_rest(events: list[Event]) -> None:
    whole = await framed(events)
    for after in range(len(whole)):
        assert await framed(events, after) == whole[after + 1 :]


async def test_what_the_log_has_lost_is_made_up_for() -> None:
    """A whole stream for who saw nothing; the end alone for who comes back."""
    events = told("Hello", " there")
    alone = [Event(seq=1, type="completed", answer=ANSWER, message=events[-1].message)]
    whole = await framed(alone)
    assert accumulate(whole).output_text == "Hello there"
    assert [one["delta"] for one in whole if one["type"].endswith("text.delta")] == ["Hello there"]
    [end] = await framed(alone, after=5)
    assert (end["type"], end["sequence_number"]) == ("response.completed", 6)
    assert end["response"]["output"][0]["content"][0]["text"] == "Hello there"
    # Deltas that could not be published come before the end.
    gap = [events[0], events[1], Event(seq=3, type="completed", answer=ANSWER, message=events[-1].message)]
    assert [one["delta"] for one in await framed(gap) if one["type"].endswith("text.delta")] == ["Hello", " there"]


@pytest.mark.parametrize(("heard", "after", "seen"), [(0, None, 0), (0, 7, 7), (3, None, 5), (3, 9, 9)])
async def test_a_log_that_is_lost_on_the_way_is_told(heard: int, after: int | None, seen: int) -> None:
    """In a frame that leaves the numbers as they are: whoever comes back with the last one misses nothing."""

    async def log() -> AsyncGenerator[Event, None]:
        for event in told("Hello", " there")[:heard]:
            yield event
        raise StoreUnavailable("the store at db.example is gone")

    found = [data.decode() async for data in frames(log(), VIEW, ANSWER, after=after)]
    kind, data = found[-1].removesuffix("\n\n").split("\n")
    assert kind == "event: error"
    error = STREAM_EVENT.validate_python(json.loads(data.removeprefix("data: ")))
    assert (error.type, error.code, error.sequence_number) == ("error", "store_unavailable", seen)
    assert "db.example" not in error.message
    assert all("event: error" not in one for one in found[:-1])


async def test_silence_is_filled_with_comments() -> None:
    more = asyncio.Event()

    async def slow() -> AsyncGenerator[bytes, None]:
        yield b"one"
        await more.wait()
        yield b"two"

    found = with_pings(slow(), interval=0.01)
    assert [await anext(found), await anext(found)] == [b"one", PING]
    more.set()
    assert [data async for data in found if data != PING] == [b"two"]


async def test_who_reads_slowly_holds_little_and_gets_everything_in_few_pieces() -> None:
    made = 0

    async def quick() -> AsyncGenerator[bytes, None]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield b"x" * 1000

    found = with_pings(quick())
    got = await anext(found)
    for _ in range(2000):  # the client takes nothing, however long
        await asyncio.sleep(0)
    assert made * 1000 < len(got) + (1 << 16) + 2000
    pieces = [data async for data in found]
    assert len(got) + sum(map(len, pieces)) == 1000 * 1000
    assert len(pieces) < 50


async def test_who_leaves_leaves_nothing() -> None:
    left = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            left.set()

    before = asyncio.all_tasks()
    found = with_pings(endless())
    await anext(found)
    await found.aclose()
    assert left.is_set()
    assert asyncio.all_tasks() == before


def test_ids() -> None:
    for conversation in ("conv_" + "a" * 32, "conv_short", "a thread of the page", "대화", "CONV_" + "a" * 32):
        place = new_place(conversation)
        id = response_id(*place)
        assert id is not None
        assert place_of(id) == place
    assert response_id("conv_1", "an imported answer") is None
    assert question_id(question_id(place.answer)) == place.answer
    for id in (
        "",
        "resp_",
        "resp_x",
        "msg_" + "1" * 32,
        f"resp_{'1' * 32}_é",
        f"resp_{'1' * 32}_/w",
        f"resp_{'1' * 65}",
    ):
        assert place_of(id) is None
    # "conv_1" in base64 with other bits at its end would be a second id of one response.
    assert place_of(f"resp_{'1' * 32}_YQ") == ("a", ANSWER)
    assert place_of(f"resp_{'1' * 32}_YR") is None


@pytest.mark.parametrize("kind", ["bare", "service"])
async def test_the_load_that_is_measured(tmp_path: Path, kind: str) -> None:
    """Every stream of ``bench.streams`` has all of its words."""
    load = await measure(kind, 5, 4, tmp_path)
    assert (load.lost, load.words, load.frames > 0, load.cpu >= 0) == (0, 20, True, True)
