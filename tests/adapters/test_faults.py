"""What goes wrong under a framework's run: a process that is killed, a caller that is cancelled, two runs at once."""

from __future__ import annotations

import asyncio
import math
import operator
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from llama_index.core.llms import ChatMessage
from tests.adapters.crash_child import NODES, THREAD, graph, items, put_items
from tests.adapters.crash_sessions import SESSIONS, add
from tests.faults.children import environment

import daram
from daram.adapters.langchain import DaramChatMessageHistory
from daram.adapters.langgraph import DaramSaver, DaramStore
from daram.adapters.llama_index import DaramChatStore
from daram.adapters.openai_agents import DaramSession
from daram.errors import Gone, OutcomeUnknown
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper

CHILD = Path(__file__).with_name("crash_child.py")
SESSIONS_CHILD = Path(__file__).with_name("crash_sessions.py")


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("where", "left"), [("put", NODES[1:]), ("put_writes", NODES[2:])])
async def test_a_run_that_was_killed_goes_on_where_it_was(url: str, where: str, left: tuple[str, ...]) -> None:
    async with await daram.open(url):
        pass  # the server has its tables before the child comes
    with subprocess.Popen(
        [sys.executable, str(CHILD), url, where], env=environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"here\n"
        finally:
            process.kill()
    async with await daram.open(url) as memory:
        ran: list[str] = []
        found = await graph(DaramSaver(memory, owner="ann"), ran).ainvoke(None, THREAD)
        assert tuple(ran) == left  # what was acknowledged is not done again
        assert found == {"done": "go first second third"}


async def test_what_a_session_acknowledged_outlives_kill(url: str) -> None:
    async with await daram.open(url):
        pass
    with subprocess.Popen(
        [sys.executable, str(SESSIONS_CHILD), url], env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            while await asyncio.to_thread(process.stdout.readline) != b"3\n":
                assert process.poll() is None
        finally:
            process.kill()
        told = process.stdout.read().split()
    acknowledged = int(told[-1]) if told else 3
    async with await daram.open(url) as memory:
        for session in SESSIONS:
            said = [message.text for message in await memory.tail("ann", session, 1000)]
            rounds = [text for n in range(len(said)) for text in (str(n), f"to {n}")]
            assert said == rounds[: len(said)] and len(said) >= 2 * (acknowledged + 1)
            if session != "llama":  # which is given one message at a time
                assert len(said) % 2 == 0
        await add(memory, "on")
        for session in SESSIONS:
            assert [message.text for message in await memory.tail("ann", session, 2)] == ["on", "to on"]


async def whole_items(memory: Memory) -> dict[str, int]:
    """The number of each item, of which everything agrees: its text, the rest of it, and the vector it is found by."""
    numbers = {}
    for item in await items(memory).asearch(("notes",), query="1"):  # one read: what was cancelled may be on its way
        number = numbers[item.key] = int(item.value["text"])
        assert item.value["long"] == [number] * 5000
        assert item.score == pytest.approx((number + 1) / math.sqrt(2 * (number**2 + 1)), abs=1e-6)
    return numbers


async def test_items_whose_writer_was_killed_are_whole(url: str) -> None:
    async with await daram.open(url):
        pass
    with subprocess.Popen(
        [sys.executable, str(CHILD), url, "store"], env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            while await asyncio.to_thread(process.stdout.readline) != b"5\n":
                assert process.poll() is None
        finally:
            process.kill()
        told = process.stdout.read().split()
    acknowledged = int(told[-1]) if told else 5
    async with await daram.open(url) as memory:
        numbers = await whole_items(memory)
        assert numbers.keys() == {"a", "b"}
        assert all(acknowledged <= number <= acknowledged + 1 for number in numbers.values())


# --- a cancelled caller -----------------------------------------------------------------------------------------------


class Gate(StoreWrapper):
    """Holds each write behind its commit until it is let go."""

    def __init__(self, inner: Memory) -> None:
        super().__init__(inner)
        self.stored = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def _hold(self, found: Any) -> Any:
        self.stored.set()
        await self.go.wait()
        return found

    async def append(self, *args: Any, **kwargs: Any) -> Any:
        return await self._hold(await super().append(*args, **kwargs))

    async def put_record(self, *args: Any, **kwargs: Any) -> Any:
        return await self._hold(await super().put_record(*args, **kwargs))


async def cancel_in_a_write(gate: Gate, work: Awaitable[Any]) -> None:
    gate.stored.clear()
    gate.go.clear()
    task = asyncio.ensure_future(work)
    await gate.stored.wait()
    task.cancel()
    await asyncio.sleep(0)
    gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_run_that_was_cancelled_in_a_write_leaves_its_thread_whole(memory: Memory) -> None:
    gate = Gate(memory)
    answered = 0

    def answer(state: MessagesState) -> dict[str, Any]:
        nonlocal answered
        answered += 1
        return {"messages": [AIMessage(f"answer {answered}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    agent: Any = builder.compile(checkpointer=DaramSaver(gate, owner="ann"))
    await agent.ainvoke({"messages": [HumanMessage("one")]}, THREAD)
    await cancel_in_a_write(gate, agent.ainvoke({"messages": [HumanMessage("two")]}, THREAD))
    fresh: Any = builder.compile(checkpointer=DaramSaver(memory, owner="ann"))
    for reader in (agent, fresh):  # what this process remembers is what is stored
        found = await reader.ainvoke({"messages": [HumanMessage("three")]}, THREAD)
        texts = [message.text for message in found["messages"]]
        assert texts[:2] == ["one", "answer 1"]
        assert "three" in texts
        assert len({message.id for message in found["messages"]}) == len(texts)
    assert [m.text for m in await memory.tail("ann", "t", 100)] == texts


async def test_an_item_whose_put_was_cancelled_is_whole(memory: Memory) -> None:
    await put_items(items(memory), 1)
    gate = Gate(memory)
    await cancel_in_a_write(gate, put_items(items(gate), 2))
    assert set((await whole_items(memory)).values()) <= {1, 2}
    for steps in range(8):  # at other points, wherever they are
        task = asyncio.ensure_future(put_items(items(memory), 3))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert set((await whole_items(memory)).values()) <= {1, 2, 3}
    await put_items(items(memory), 4)
    assert set((await whole_items(memory)).values()) <= {3, 4}  # what was cancelled may still be on its way


Adding = Callable[[Any, str], Awaitable[Any]]
Reading = Callable[[Any], Awaitable[list[str]]]


async def _session_add(store: Any, text: str) -> None:
    await DaramSession(store, "ann", "s").add_items(
        [{"role": "user", "content": text}, {"role": "assistant", "content": f"to {text}"}]
    )


async def _session_read(store: Any) -> list[str]:
    items: list[Any] = await DaramSession(store, "ann", "s").get_items()
    return [item["content"] for item in items]


def _history(store: Any) -> DaramChatMessageHistory:
    return DaramChatMessageHistory("s", owner="ann", window=None, memory=store)


async def _history_add(store: Any, text: str) -> None:
    await _history(store).aadd_messages([HumanMessage(text), AIMessage(f"to {text}")])


async def _history_read(store: Any) -> list[str]:
    return [message.text for message in await _history(store).aget_messages()]


async def _chat_add(store: Any, text: str) -> None:
    chats = DaramChatStore(store, owner="ann")
    for role, said in (("user", text), ("assistant", f"to {text}")):
        await chats.async_add_message("s", ChatMessage(role=role, content=said))


async def _chat_read(store: Any) -> list[str]:
    return [str(message.content) for message in await DaramChatStore(store, owner="ann").aget_messages("s")]


ADAPTERS = pytest.mark.parametrize(
    ("add", "read"),
    [(_session_add, _session_read), (_history_add, _history_read), (_chat_add, _chat_read)],
    ids=["openai_agents", "langchain", "llama_index"],
)


@ADAPTERS
async def test_a_write_whose_caller_is_cancelled_is_known_to_be_there(
    memory: Memory, add: Adding, read: Reading
) -> None:
    gate = Gate(memory)
    await add(gate, "one")
    await cancel_in_a_write(gate, add(gate, "two"))
    await add(gate, "three")
    texts = await read(memory)
    assert texts[:3] == ["one", "to one", "two"]
    assert texts[-2:] == ["three", "to three"]
    assert len(texts) == len(set(texts))


@ADAPTERS
async def test_a_write_whose_outcome_is_unknown_is_there_once(memory: Memory, add: Adding, read: Reading) -> None:
    class Lossy(StoreWrapper):
        lost = 0

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            found = await super().append(*args, **kwargs)
            self.lost += 1
            if self.lost % 3:
                raise OutcomeUnknown("the connection was cut behind the commit")
            return found

    await add(Lossy(memory), "one")
    assert await read(memory) == ["one", "to one"]


@ADAPTERS
async def test_what_no_store_takes_as_it_is_comes_back(memory: Memory, add: Adding, read: Reading) -> None:
    """Half an emoji, as a model that is cut off says it, and NUL."""
    text = "다람쥐 👩\u200d👧 \ud83d and \x00 \u2028 end"
    await add(memory, text)
    assert await read(memory) == [text, f"to {text}"]
    shown = (await memory.tail("ann", "s", 1))[0].text
    assert shown == f"to {text}".replace("\ud83d", "\ufffd").replace("\x00", "\ufffd")


CLEARS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "openai_agents": lambda store: DaramSession(store, "ann", "s").clear_session(),
    "langchain": lambda store: _history(store).aclear(),
    "llama_index": lambda store: DaramChatStore(store, owner="ann").adelete_messages("s"),
}


class Cut(StoreWrapper):
    """Ends with the deletion, as a process that is killed behind it."""

    async def delete(self, *args: Any, **kwargs: Any) -> None:
        await super().delete(*args, **kwargs)
        raise ConnectionAbortedError("the process is gone")


@pytest.mark.parametrize(
    ("adapter", "add", "read"),
    [
        ("openai_agents", _session_add, _session_read),
        ("langchain", _history_add, _history_read),
        ("llama_index", _chat_add, _chat_read),
    ],
)
async def test_a_session_goes_on_whose_clearing_was_cut_off(
    memory: Memory, adapter: str, add: Adding, read: Reading
) -> None:
    await add(memory, "one")
    with pytest.raises(ConnectionAbortedError):
        await CLEARS[adapter](Cut(memory))
    assert await read(memory) == []
    await add(memory, "two")  # which is also what a run sees that adds while another clears
    assert await read(memory) == ["two", "to two"]
    await CLEARS[adapter](memory)
    await add(memory, "three")
    assert await read(memory) == ["three", "to three"]
    await memory.delete("ann", "s")  # by another door, that is on purpose
    with pytest.raises(Gone):
        await add(memory, "four")
    await CLEARS[adapter](memory)
    with pytest.raises(Gone):
        await add(memory, "five")


async def test_those_who_clear_at_once_leave_a_session_that_goes_on(memory: Memory) -> None:
    await _session_add(memory, "one")
    await asyncio.gather(*(clear(memory) for clear in CLEARS.values()))
    await _session_add(memory, "two")
    assert await _session_read(memory) == ["two", "to two"]


# --- two runs at once -------------------------------------------------------------------------------------------------


@ADAPTERS
async def test_two_processes_on_one_session_lose_nothing(url: str, add: Adding, read: Reading) -> None:
    async def run(name: str) -> None:
        async with await daram.open(url) as own:  # connections and caches of its own
            for n in range(8):
                await add(own, f"{name} {n}")

    await asyncio.gather(run("a"), run("b"))
    async with await daram.open(url) as memory:
        texts = await read(memory)
        assert sorted(texts) == sorted(f"{to}{name} {n}" for to in ("", "to ") for name in "ab" for n in range(8))
        for name in "ab":
            assert [text for text in texts if text.startswith(name)] == [f"{name} {n}" for n in range(8)]


class Fan(TypedDict):
    done: Annotated[list[str], operator.add]


async def test_tasks_that_write_behind_one_checkpoint_at_once_all_arrive(memory: Memory) -> None:
    """Two runs resume one thread: each task's writes are there once, whoever was first."""
    savers = [DaramSaver(memory, owner="ann") for _ in range(2)]
    config = await savers[0].aput(
        {"configurable": {"thread_id": "t", "checkpoint_ns": ""}},
        {
            "v": 1,
            "id": "1f0",
            "ts": "2026-01-01T00:00:00+00:00",
            "channel_values": {},
            "channel_versions": {},
            "versions_seen": {},
            "updated_channels": None,
        },
        {"source": "loop", "step": 0, "parents": {}},
        {},
    )
    await asyncio.gather(
        *(
            saver.aput_writes(config, [("done", f"{task} by {run}"), ("more", task)], f"task-{task}")
            for task in range(6)
            for run, saver in enumerate(savers)
        )
    )
    found = await DaramSaver(memory, owner="ann").aget_tuple(config)
    assert found is not None
    assert found.pending_writes is not None
    assert sorted((task, channel) for task, channel, _ in found.pending_writes) == sorted(
        (f"task-{task}", channel) for task in range(6) for channel in ("done", "more")
    )


async def test_two_who_put_one_item_leave_one_of_them_whole(memory: Memory) -> None:
    stores = [DaramStore(memory, owner="ann") for _ in range(2)]
    await asyncio.gather(
        *(store.aput(("notes",), "k", {"by": by, "n": n}) for n in range(8) for by, store in enumerate(stores))
    )
    item = await stores[0].aget(("notes",), "k")
    assert item is not None
    assert item.value in [{"by": by, "n": n} for n in range(8) for by in range(2)]
    assert len(await stores[1].asearch(("notes",))) == 1
