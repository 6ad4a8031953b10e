"""A store that loses replies, or is away for a moment, under LangGraph's own loop; and two runs at once."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from tests.adapters.graphs import Chat, chat, say, thread

import daram
from daram.adapters.langgraph import DaramSaver, DaramStore, layout
from daram.errors import DaramError, OutcomeUnknown, StoreUnavailable
from daram.memory import Memory
from daram.store.base import Store
from daram.store.wrapper import StoreWrapper


class Faulty(StoreWrapper):
    """The first try of each write goes wrong: it is stored and its reply lost, or it does not arrive."""

    def __init__(self, inner: Store, error: type[DaramError]) -> None:
        super().__init__(inner)
        self.error = error
        self.tried: set[Any] = set()

    async def _through(self, what: Any, write: Callable[[], Awaitable[Any]]) -> Any:
        if what in self.tried:
            return await write()
        self.tried.add(what)
        if self.error is OutcomeUnknown:
            await write()
        raise self.error("the connection was cut")

    async def append(self, *args: Any, **kwargs: Any) -> Any:
        append = super().append
        return await self._through(tuple(message.id for message in args[2]), lambda: append(*args, **kwargs))

    async def put_record(self, *args: Any, **kwargs: Any) -> Any:
        put = super().put_record
        return await self._through(args, lambda: put(*args, **kwargs))


def two_steps(saver: Any) -> Any:
    def ask(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage(f"you said {interrupt('really?')}")]}

    builder = StateGraph(Chat)
    builder.add_node("first", lambda state: {"messages": [AIMessage("first")]})
    builder.add_node("ask", ask)
    builder.add_edge(START, "first")
    builder.add_edge("first", "ask")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("error", [OutcomeUnknown, StoreUnavailable])
async def test_writes_that_went_wrong_once_are_made_again(memory: Memory, error: type[DaramError]) -> None:
    store = Faulty(memory, error)
    await two_steps(DaramSaver(store, owner="ann")).ainvoke({"messages": [HumanMessage("hello")]}, thread("t"))
    found = await two_steps(DaramSaver(store, owner="ann")).ainvoke(Command(resume="yes"), thread("t"))
    assert len(store.tried) > 15
    fresh = await two_steps(DaramSaver(memory, owner="ann")).aget_state(thread("t"))
    assert fresh.values["messages"] == found["messages"]
    texts = [m.text for m in found["messages"]]
    assert texts == ["hello", "first", "you said yes"]
    assert [m.text for m in await memory.tail("ann", "t", 10)] == texts


@pytest.mark.parametrize("error", [OutcomeUnknown, StoreUnavailable])
async def test_items_that_went_wrong_once_are_put_again(error: type[DaramError]) -> None:
    async with daram.open("memory://") as memory:
        await DaramStore(Faulty(memory, error), owner="ann").aput(("notes",), "k", {"n": 1})
        found = await DaramStore(memory, owner="ann").aget(("notes",), "k")
        assert found is not None and found.value == {"n": 1}


async def test_what_the_conversation_missed_comes_with_the_next_step(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(StoreWrapper):
        """Takes records and no messages."""

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            raise StoreUnavailable("the server is down")

    async def told() -> list[str]:
        return [m.text for m in await memory.tail("ann", "t", 100)]

    graph = chat(DaramSaver(memory, owner="ann"))
    for turn in range(2):
        await say(graph, f"word {turn}")
    with pytest.raises(StoreUnavailable):  # not silently
        await say(chat(DaramSaver(Away(memory), owner="ann")), "missed")
    texts = await say(chat(DaramSaver(memory, owner="ann")), "on")
    assert "missed" in texts
    assert await told() == texts
    # What another door deletes stays deleted, and the rest goes on.
    last = (await memory.tail("ann", "t", 1))[0]
    await memory.delete_message("ann", "t", last.id)
    with caplog.at_level(logging.WARNING, "daram.langgraph"):
        more = await say(chat(DaramSaver(memory, owner="ann")), "behind it")
    assert await told() == [*texts[:-1], *more[len(texts) :]]
    assert not caplog.records


async def test_of_two_runs_at_once_the_later_one_is_the_thread_and_all_is_kept(memory: Memory) -> None:
    """As with the framework's own savers: each run goes on from what it began with, and the last to end is in view."""
    savers = [DaramSaver(memory, owner="ann") for _ in range(2)]
    await say(chat(savers[0]), "start")

    async def during(state: Chat) -> dict[str, Any]:
        if state["messages"][-1].content == "slow":
            await say(chat(savers[1], during), "quick")  # which begins and ends in its midst
        return {"messages": [AIMessage(f"to {state['messages'][-1].content}")]}

    slow = await say(chat(savers[0], during), "slow")
    assert slow == ["start", "1: start", "slow", "to slow"]
    reader = chat(DaramSaver(memory, owner="ann"))
    assert [m.text for m in (await reader.aget_state(thread("t"))).values["messages"]] == slow
    assert [m.text for m in await memory.tail("ann", "t", 10)] == slow
    ends = [state async for state in reader.aget_state_history(thread("t")) if not state.next]
    quick = next(state for state in ends if "to quick" in [m.text for m in state.values["messages"]])
    on = await reader.ainvoke({"messages": [HumanMessage("on")]}, quick.config)
    # What the slow one had said before the quick one began, the quick one goes on from.
    assert [m.text for m in on["messages"]][-4:] == ["quick", "to quick", "on", f"{len(on['messages']) - 1}: on"]
    first = (await memory.tail("ann", "t", 10))[0]
    assert first.text == "start"
    assert [hit.text for hit in await memory.search("ann", "slow", conversation="t")]  # a branch that is not in use


async def test_what_cannot_be_kept_is_said_and_nothing_else(recwarn: pytest.WarningsRecorder) -> None:
    class Loose(Chat):
        thing: Any

    async with daram.open("memory://") as memory:
        graph = chat(
            DaramSaver(memory, owner="ann"), lambda state: {"thing": object(), "messages": [AIMessage("k")]}, Loose
        )
        with pytest.raises(TypeError, match="serializable"):
            await say(graph, "hello")
        gc.collect()
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


async def test_writes_take_the_place_of_those_that_cannot_be_read_any_more() -> None:
    async with daram.open("memory://") as memory:
        saver = DaramSaver(memory, owner="ann")
        await say(chat(saver), "hello")
        found = await saver.aget_tuple(thread("t"))
        assert found is not None
        await saver.aput_writes(found.config, [("messages", "x" * (3 << 20))], "task")
        await saver.aput_writes(found.config, [("messages", random.Random(1).randbytes(3 << 20))], "other")
        for record in (await memory.scan_records("ann", layout.PART)).items:
            await memory.delete_record("ann", layout.PART, record.key)
        async with asyncio.timeout(10):
            await saver.aput_writes(found.config, [("messages", "new")], "other")
        found = await saver.aget_tuple(thread("t"))
        assert found is not None and found.pending_writes is not None
        assert sorted((task, len(value)) for task, _, value in found.pending_writes) == [
            ("other", 3),
            ("task", 3 << 20),
        ]
