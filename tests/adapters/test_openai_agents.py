"""The session of the OpenAI Agents SDK: its documented behaviour, and the SDK's own loop with a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from agents import Agent, Runner, SQLiteSession, function_tool
from agents.memory import Session, SessionSettings
from openai.types.responses import ResponseFunctionToolCall
from tests.adapters.agents_scripted import Answering, Scripted, says, user

import daram
from daram.adapters.openai_agents import DaramSession
from daram.errors import Conflict, Gone, InvalidInput, OutcomeUnknown, Unsupported
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper

ITEMS: list[Any] = [
    {"role": "user", "content": "이건 뭐야?"},
    {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}],
    },
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"},
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": '{"x": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "a squirrel"},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "다람쥐", "annotations": [], "logprobs": None}],
    },
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "…"},
    {"role": "user", "content": ""},
]


async def test_items_come_back_as_they_were(memory: Memory) -> None:
    session = DaramSession(memory, "ann", "s")
    assert isinstance(session, Session)
    assert await session.get_items() == []
    await session.add_items([])
    await session.add_items(ITEMS)
    assert await DaramSession(memory, "ann", "s").get_items() == ITEMS
    assert await DaramSession(memory, "bob", "s").get_items() == []
    shown = await memory.tail("ann", "s", 20)
    assert [(m.role, m.text) for m in shown if m.text] == [
        ("user", "이건 뭐야?"),
        ("tool", "a squirrel"),
        ("assistant", "다람쥐"),
    ]
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items([user("again")])
    assert await session.get_items() == [user("again")]


async def test_limits_pop_and_pages_are_those_of_the_sdks_own(memory: Memory) -> None:
    ours, theirs = DaramSession(memory, "ann", "s"), SQLiteSession("s")
    sessions: list[Any] = [ours, theirs]
    said = [user(f"word {n}") for n in range(230)]
    for session in sessions:
        assert await session.pop_item() is None
        await session.add_items(said)
    for limit in (None, 0, 1, 7, 200, 230, 500):
        assert await ours.get_items(limit) == await theirs.get_items(limit)
    for _ in range(3):
        assert await ours.pop_item() == await theirs.pop_item()
    await ours.add_items([user("new")])
    assert [item["content"] for item in await ours.get_items(2)] == ["word 226", "new"]  # type: ignore[typeddict-item]
    ours.session_settings = SessionSettings(limit=3)
    assert len(await ours.get_items()) == 3
    theirs.close()


async def test_a_window_begins_with_nothing_that_hangs_in_the_air(memory: Memory) -> None:
    session = DaramSession(memory, "ann", "s")
    turn = ITEMS[:6]
    await session.add_items(turn * 2)
    for limit in range(1, 12):
        items: list[Any] = await session.get_items(limit)
        calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
        outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
        assert len(calls) == len(outputs), limit
        reasoning = [item for item in items if item.get("type") == "reasoning"]
        assert len(calls) <= len(reasoning), limit
        assert items == (turn * 2)[12 - len(items) :] or items[-1] == turn[-1]
    assert await session.get_items(12) == turn * 2


async def test_a_window_has_no_call_without_its_reasoning(memory: Memory) -> None:
    """Endpoints refuse whatever came of one reasoning without it: calls at once, too."""
    session = DaramSession(memory, "ann", "s")
    call, output = ITEMS[3], ITEMS[4]
    calls: list[Any] = [{**call, "id": f"fc_{n}", "call_id": f"c{n}"} for n in range(3)]
    hosted: Any = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    turn = [user("look"), ITEMS[2], hosted, *calls, *({**output, "call_id": f"c{n}"} for n in range(3)), ITEMS[5]]
    await session.add_items([*turn, user("and")])
    for limit in range(2, 10):
        assert await session.get_items(limit) == [ITEMS[5], user("and")], limit
    assert await session.get_items(10) == [*turn[1:], user("and")]
    plain = DaramSession(memory, "ann", "plain")
    said: list[Any] = [user("hi"), *({"role": "assistant", "content": str(n)} for n in range(5)), *calls[:2]]
    await plain.add_items([*said, {**output, "call_id": "c1"}])
    assert await plain.get_items(2) == [calls[1], {**output, "call_id": "c1"}]
    assert await plain.get_items(5) == [*said[4:6], *calls[:2], {**output, "call_id": "c1"}]


async def test_two_runs_on_one_session(memory: Memory) -> None:
    async def run(name: str) -> None:
        session = DaramSession(memory, "ann", "s")
        for n in range(10):
            await session.add_items([user(f"{name} {n}"), {"role": "assistant", "content": f"to {name} {n}"}])

    await asyncio.gather(run("a"), run("b"))
    said = [item["content"] for item in await DaramSession(memory, "ann", "s").get_items()]  # type: ignore[typeddict-item]
    assert len(said) == 40
    assert all(b == f"to {a}" for a, b in zip(said[::2], said[1::2], strict=True))
    popped = await asyncio.gather(*(DaramSession(memory, "ann", "s").pop_item() for _ in range(10)))
    assert sorted(item["content"] for item in popped) == sorted(said[30:])  # type: ignore[typeddict-item,index]


async def test_what_other_doors_said(memory: Memory) -> None:
    call = daram.Part(type="tool_call", data={"call_id": "c", "name": "look", "arguments": "{}"})
    await memory.append(
        "ann",
        "s",
        [daram.user("hi"), daram.assistant("let me see", parts=[call]), daram.tool("ok", call_id="c")],
        create=True,
    )
    session = DaramSession(memory, "ann", "s")
    assert await session.get_items() == [
        user("hi"),
        {"role": "assistant", "content": "let me see"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
    ]
    assert (await session.pop_item() or {})["type"] == "function_call_output"
    assert (await session.pop_item() or {})["type"] == "function_call"
    assert await session.get_items() == [user("hi"), {"role": "assistant", "content": "let me see"}]
    await memory.delete("ann", "s")
    assert await session.get_items() == []
    assert await session.pop_item() is None
    with pytest.raises(Gone):
        await session.add_items([user("on")])


@pytest.mark.parametrize("first", [True, False])
async def test_of_a_message_that_says_several_things_the_last_is_popped_in_one_piece(
    memory: Memory, first: bool
) -> None:
    class Dying(StoreWrapper):
        async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
            await super().delete_message(*args, **kwargs)
            raise ConnectionAbortedError("the process is gone")

    call = daram.Part(type="tool_call", data={"call_id": "c", "name": "look", "arguments": "{}"})
    front = [] if first else [daram.user("hi")]
    await memory.append("ann", "s", [*front, daram.assistant("let me see", parts=[call])], create=True)
    with suppress(ConnectionAbortedError):
        await DaramSession(Dying(memory), "ann", "s").pop_item()
    session = DaramSession(memory, "ann", "s")
    left = [item.get("content") for item in await session.get_items()]
    assert left == [*([] if first else ["hi"]), "let me see"]
    await session.add_items([user("on")])
    assert len(await session.get_items()) == len(left) + 1


async def test_what_says_nothing_is_not_popped_and_the_rest_of_a_message_stays_as_it_was(memory: Memory) -> None:
    image = daram.Part(type="image", data={"url": "https://example.org/tuna.png"})
    call = daram.Part(type="tool_call", data={"call_id": "c", "name": "look", "arguments": "{}"})
    said = daram.assistant("let me see", parts=[image, call], metadata={"mood": "good"})
    await memory.append("ann", "s", [daram.user("hi"), said], create=True)
    session = DaramSession(memory, "ann", "s")
    assert (await session.pop_item() or {})["type"] == "function_call"
    _, rest = await memory.tail("ann", "s", 2)
    assert (rest.text, rest.parts, rest.metadata) == ("let me see", (image,), {"mood": "good"})
    assert await session.pop_item() == {"role": "assistant", "content": "let me see"}
    await memory.append("ann", "s", [daram.Message(role="user", parts=(image,))])
    assert await session.pop_item() == user("hi")
    assert await session.pop_item() is None
    assert [message.parts for message in await memory.tail("ann", "s", 9)] == [(image,)]
    several = daram.assistant("let me see", parts=[call])
    await memory.append("ann", "s", [several, daram.Message(role="user", parts=(image,))])
    with pytest.raises(Unsupported, match="no item"):
        await session.pop_item()
    assert len(await session.get_items()) == 2


async def test_an_answer_that_is_being_made_is_not_put_out_of_sight_by_a_pop(memory: Memory) -> None:
    call = daram.Part(type="tool_call", data={"call_id": "c", "name": "look", "arguments": "{}"})
    turn = await memory.begin_turn("ann", "s", [daram.user("look", parts=[call])], create=True)
    session = DaramSession(memory, "ann", "s")
    with pytest.raises(Conflict, match="answer"):
        await session.pop_item()
    assert turn.answer is not None
    await memory.finish_turn("ann", "s", turn.answer.id, turn.answer.token, text="a tuna")
    assert [message.text for message in await memory.tail("ann", "s")] == ["look", "a tuna"]


# --- beside the engines -------------------------------------------------------------------------------------------


@pytest.fixture
async def small() -> AsyncIterator[Memory]:
    async with daram.open("memory://") as memory:
        yield memory


async def test_a_cancelled_write_is_finished_first(small: Memory) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    class Slow(StoreWrapper):
        async def append(self, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            await go.wait()
            return await super().append(*args, **kwargs)

    task = asyncio.create_task(DaramSession(Slow(small), "ann", "s").add_items([user("one")]))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await DaramSession(small, "ann", "s").get_items() == [user("one")]


async def test_an_unknown_outcome_is_asked_again_with_the_same_ids(small: Memory) -> None:
    class Lost(StoreWrapper):
        lost = 0

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            found = await super().append(*args, **kwargs)
            self.lost += 1
            if self.lost % 3:
                raise OutcomeUnknown("the connection was cut behind the commit")
            return found

    session = DaramSession(Lost(small), "ann", "s")
    await session.add_items([user("one"), user("two")])
    assert await session.get_items() == [user("one"), user("two")]


async def test_what_cannot_be_kept_is_said(small: Memory) -> None:
    session = DaramSession(small, "ann", "s")
    for bad in ({"role": "user", "content": object()}, "text", {"role": "user", "content": float("nan")}):
        with pytest.raises(InvalidInput, match="items"):
            await session.add_items([user("fine"), bad])  # type: ignore[list-item]
    assert await session.get_items() == []


def calls(name: str, arguments: str) -> list[Any]:
    return [ResponseFunctionToolCall(type="function_call", call_id="c1", name=name, arguments=arguments)]


async def test_the_sdks_own_loop(memory: Memory) -> None:
    @function_tool
    def look(at: str) -> str:
        """Look."""
        return f"{at} is called a tuna"

    for session in (DaramSession(memory, "ann", "s"), SQLiteSession("s")):
        model = Scripted(calls("look", '{"at": "squirrel"}'), says("a tuna"), says("I said: a tuna"))
        agent: Any = Agent(name="a", model=model, tools=[look])
        first = await Runner.run(agent, "what is a squirrel called?", session=session)
        assert first.final_output == "a tuna"
        second = await Runner.run(agent, "again?", session=session)
        assert second.final_output == "I said: a tuna"
        if isinstance(session, DaramSession):
            asked = model.asked
            kept = await session.get_items()
        else:
            assert model.asked == asked
            assert await session.get_items() == kept
            session.close()
    assert [m.role for m in await memory.tail("ann", "s", 10)] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]


async def test_settings_as_a_dict(small: Memory) -> None:
    session = DaramSession(small, "ann", "s", session_settings={"limit": 3})
    await session.add_items([user(str(n)) for n in range(4)])
    assert len(await session.get_items()) == 3
    assert session.session_settings == SessionSettings(limit=3)
    await Runner.run(Agent(name="a", model=Answering()), "on", session=session)
    with pytest.raises(TypeError):
        DaramSession(small, "ann", "s", session_settings={"limits": 3})
