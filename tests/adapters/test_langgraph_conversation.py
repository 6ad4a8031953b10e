"""A LangGraph thread as a conversation for the other doors: what is too much for it, and where branches begin."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.adapters.graphs import Chat, Turned, chat, say, thread

import daram
from daram.adapters.langgraph import DaramSaver
from daram.memory import Memory

HALF = {"type": "reasoning", "reasoning": "cut off \ud83d"}
CALLS: Any = [{"name": "run", "args": {"code": "다" * 100_000}, "id": f"c{n}"} for n in range(5)]


@pytest.mark.parametrize(
    "answer",
    [
        AIMessage("five calls", tool_calls=CALLS),  # each fits, all of them are more than 1 MiB
        AIMessage([HALF, {"type": "text", "text": "half a character"}]),
        AIMessage([{"type": "reasoning", "score": float("inf")}, {"type": "text", "text": "not a number"}]),
    ],
    ids=lambda answer: answer.text,
)
async def test_what_a_conversation_cannot_hold_is_told_in_short(
    memory: Memory, answer: AIMessage, caplog: pytest.LogCaptureFixture
) -> None:
    await say(chat(DaramSaver(memory, owner="ann"), lambda state: {"messages": [answer]}), "question")
    for _ in range(2):
        await say(chat(DaramSaver(memory, owner="ann")), "on")
    stored = await memory.tail("ann", "t", 10)
    assert [m.text for m in stored][:3] == ["question", answer.text, "on"]
    assert len(stored) == 6
    assert [part.data["name"] for part in stored[1].parts if part.type == "tool_call"] == ["run"] * len(
        answer.tool_calls
    )
    assert not caplog.records
    found = (await chat(DaramSaver(memory, owner="ann")).aget_state(thread("t"))).values["messages"][1]
    assert found.text == answer.text and found.tool_calls == answer.tool_calls


async def test_going_back_to_before_the_first_message_opens_a_branch(memory: Memory) -> None:
    graph = chat(DaramSaver(memory, owner="ann"))
    for text in ("one", "two"):
        await say(graph, text)
    history = [state async for state in graph.aget_state_history(thread("t"))]
    assert history[-1].values == {"messages": []}
    for text in ("edited", "edited again"):
        fresh = chat(DaramSaver(memory, owner="ann"))
        await fresh.ainvoke({"messages": [HumanMessage(text)]}, history[-1].config)
        assert [m.text for m in await memory.tail("ann", "t", 10)] == [text, f"1: {text}"]
    first = (await memory.tail("ann", "t", 10))[0]
    assert [m.text for m in await memory.branches("ann", "t", first.id)] == ["one", "edited", "edited again"]
    assert len(await say(chat(DaramSaver(memory, owner="ann")), "on")) == len(await memory.tail("ann", "t", 10)) == 4


async def test_a_thread_goes_on_from_what_another_door_said_before_it(memory: Memory) -> None:
    await memory.append("ann", "t", [daram.Message(role="user", text="by another door")], create=True)
    await say(chat(DaramSaver(memory, owner="ann")), "one")
    assert [m.text for m in await memory.tail("ann", "t", 10)] == ["by another door", "one", "1: one"]


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("turns", [4, 12])
async def test_a_copy_of_a_checkpoint_leaves_it_as_it_is(memory: Memory, pruned: bool, turns: int) -> None:
    """The copy has the versions of what it copies; behind a pruned one there is nothing to compare it with."""

    def answer(state: Chat) -> dict[str, Any]:
        old = state["messages"]
        return {"messages": [*(RemoveMessage(id=str(m.id)) for m in old[:-3]), AIMessage(f"to {old[-1].text}")]}

    for turn in range(turns):
        texts = await say(chat(DaramSaver(memory, owner="ann"), answer), f"word {turn}")
    if pruned:
        await DaramSaver(memory, owner="ann").aprune(["t"])
    told = [m.text for m in await memory.tail("ann", "t", 100)]
    graph = chat(DaramSaver(memory, owner="ann"), answer)
    original = (await graph.aget_state(thread("t"))).config
    copy = await graph.aupdate_state(thread("t"), None, as_node="__copy__")
    for config in (copy, original):
        for reader in (graph, chat(DaramSaver(memory, owner="ann"), answer)):
            state = await reader.aget_state(config)
            assert [m.text for m in state.values["messages"]] == texts
    shown = [m.text for m in await memory.tail("ann", "t", 100)]
    assert shown == (texts if pruned else told)
    for config in (copy, original):  # one behind the other, by one that remembers both
        found = await graph.ainvoke({"messages": [HumanMessage("on")]}, config)
        assert [m.text for m in found["messages"]] == [*texts[-2:], "on", "to on"]
        state = await chat(DaramSaver(memory, owner="ann"), answer).aget_state(thread("t"))
        assert [m.text for m in state.values["messages"]] == [*texts[-2:], "on", "to on"]


async def test_a_thread_that_is_sealed_has_no_conversation_to_delete() -> None:
    serde = EncryptedSerializer(Turned(), JsonPlusSerializer(allowed_msgpack_modules=None))
    async with daram.open("memory://") as memory:
        await memory.append("ann", "t", [daram.Message(role="user", text="by another door")], create=True)
        saver = DaramSaver(memory, owner="ann", serde=serde)
        await say(chat(saver), "hello", "u")
        await saver.acopy_thread("u", "t")
        assert len(await say(chat(saver), "on")) == 4
        await saver.adelete_thread("t")
        assert [m.text for m in await memory.tail("ann", "t", 10)] == ["by another door"]
        assert (await chat(saver).aget_state(thread("t"))).values == {}
