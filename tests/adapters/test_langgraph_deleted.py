"""What is deleted of LangGraph's threads is gone, from the checkpoints and from the conversation: also in mid-run."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command, interrupt
from tests.adapters.graphs import Chat, chat, echo, nested, say, thread

import daram
from daram.adapters.langgraph import DaramSaver, deleted
from daram.adapters.langgraph.layout import CHECKPOINT, DELETED, DELTA, WRITE
from daram.errors import NotFound, StoreUnavailable
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper


class Held:
    """A node that waits in its middle until it is let go."""

    def __init__(self) -> None:
        self.there = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, state: Chat) -> dict[str, Any]:
        self.there.set()
        await self.go.wait()
        return {"messages": [AIMessage(f"secret {len(state['messages'])}")]}


async def left(memory: Memory) -> list[tuple[str, bytes]]:
    page = await memory.scan_all_records(limit=1000)
    return [(found.record.namespace, found.record.value) for found in page.items if found.record.namespace != DELETED]


@pytest.mark.parametrize("by", ["the same saver", "another process"])
@pytest.mark.parametrize("make", [chat, nested])
@pytest.mark.parametrize("before", [0, 1])
async def test_a_thread_that_is_deleted_in_mid_run_leaves_nothing(
    memory: Memory, make: Any, before: int, by: str
) -> None:
    saver = DaramSaver(memory, owner="ann")
    for turn in range(before):
        await say(make(saver, lambda state: {"messages": [AIMessage("to it")]}), f"word {turn}")
    node = Held()
    run = asyncio.ensure_future(say(make(saver, node), "secret question"))
    await node.there.wait()
    await (saver if by == "the same saver" else DaramSaver(memory, owner="ann")).adelete_thread("t")
    node.go.set()
    assert (await run)[-1] == f"secret {2 * before + 1}"  # who began the run gets its answer
    assert await left(memory) == []
    with pytest.raises(NotFound):
        await memory.get("ann", "t")
    assert await say(make(saver, lambda state: {"messages": [AIMessage("to it")]}), "anew") == ["anew", "to it"]
    for _ in range(2):  # that the thread was deleted once takes nothing from it
        fresh = make(DaramSaver(memory, owner="ann"), lambda state: {"messages": [AIMessage("to it")]})
        texts = await say(fresh, "on")
    assert texts == ["anew", *["to it", "on"] * 2, "to it"]
    assert [m.text for m in await memory.tail("ann", "t", 10)] == texts


async def test_a_run_on_a_deleted_thread_adds_nothing_to_the_one_begun_anew(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann")
    node = Held()
    run = asyncio.ensure_future(say(chat(saver, node), "secret question"))
    await node.there.wait()
    other = DaramSaver(memory, owner="ann")
    await other.adelete_thread("t")

    def ask(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage(f"you said {interrupt('really?')}")]}

    await say(chat(other, ask), "anew")
    node.go.set()
    await run
    assert not any(b"secret" in value for _, value in await left(memory))
    # What waits at an interrupt is kept in writes, behind a checkpoint of the new thread.
    found = await chat(DaramSaver(memory, owner="ann"), ask).ainvoke(Command(resume="yes"), thread("t"))
    assert [m.text for m in found["messages"]] == ["anew", "you said yes"]
    assert [m.text for m in await memory.tail("ann", "t", 10)] == ["anew", "you said yes"]
    assert {found.config["configurable"]["thread_id"] async for found in saver.alist(None)} == {"t"}


async def test_a_step_that_replaces_the_history_of_a_deleted_thread_adds_nothing_to_the_one_begun_anew(
    memory: Memory,
) -> None:
    saver = DaramSaver(memory, owner="ann")
    await say(chat(saver), "word")
    held = Held()

    async def node(state: Chat) -> dict[str, Any]:
        found = await held(state)
        return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *found["messages"]]}

    run = asyncio.ensure_future(say(chat(saver, node), "question"))
    await held.there.wait()
    other = DaramSaver(memory, owner="ann")
    await other.adelete_thread("t")
    await say(chat(other), "anew")
    held.go.set()
    assert await run == ["secret 3"]
    assert not any(b"secret" in value for _, value in await left(memory))
    assert await say(chat(DaramSaver(memory, owner="ann")), "on") == ["anew", "1: anew", "on", "3: on"]
    assert [m.text for m in await memory.tail("ann", "t", 10)] == ["anew", "1: anew", "on", "3: on"]


class Paused(StoreWrapper):
    """The deletion of a conversation waits, when it is done, until somebody else has had their turn."""

    def __init__(self, inner: Memory) -> None:
        super().__init__(inner)
        self.there = asyncio.Event()

    async def delete(self, *args: Any, **kwargs: Any) -> None:
        await super().delete(*args, **kwargs)
        self.there.set()


async def test_a_thread_that_is_begun_anew_while_it_is_being_deleted_is_whole(memory: Memory) -> None:
    store = Paused(memory)
    await say(chat(DaramSaver(memory, owner="ann")), "secret")
    deletion = asyncio.ensure_future(DaramSaver(store, owner="ann").adelete_thread("t"))
    await store.there.wait()  # it will look once more for what comes late
    assert await say(chat(DaramSaver(memory, owner="ann")), "anew") == ["anew", "1: anew"]
    await deletion
    texts = await say(chat(DaramSaver(memory, owner="ann")), "on")
    assert texts == ["anew", "1: anew", "on", "3: on"]
    assert [m.text for m in await memory.tail("ann", "t", 10)] == texts


async def test_a_late_step_of_a_deleted_run_leaves_the_conversation_of_the_thread_begun_anew(memory: Memory) -> None:
    """In one process, which has forgotten the old thread: the step seems to go back to before the first message."""
    saver = DaramSaver(memory, owner="ann")
    await say(chat(saver), "word")
    held = Held()
    run = asyncio.ensure_future(say(chat(saver, held), "question"))
    await held.there.wait()
    await saver.adelete_thread("t")
    await say(chat(saver), "anew")
    held.go.set()
    await run
    assert [m.text for m in (await memory.messages("ann", "t")).items] == ["anew", "1: anew"]
    assert not any(b"secret" in value for _, value in await left(memory))


async def test_a_thread_begun_anew_behind_one_deletion_outlives_another(memory: Memory) -> None:
    there, go = asyncio.Event(), asyncio.Event()

    class Slow(StoreWrapper):
        async def delete(self, owner: str, id: str, **more: Any) -> None:
            if id == "u":
                there.set()
                await go.wait()
            await super().delete(owner, id, **more)

    for id in ("t", "u"):
        await say(chat(DaramSaver(memory, owner="ann")), "word", id)
    first = asyncio.ensure_future(DaramSaver(Slow(memory), owner="ann").aprune(["t", "u"], strategy="delete"))
    await there.wait()
    await DaramSaver(memory, owner="ann").adelete_thread("t")
    await say(chat(DaramSaver(memory, owner="ann")), "anew")
    go.set()
    await first
    texts = await say(chat(DaramSaver(memory, owner="ann")), "on")
    assert texts == ["anew", "1: anew", "on", "3: on"]
    assert [m.text for m in await memory.tail("ann", "t", 10)] == texts


async def test_who_waited_for_a_deletion_sees_who_has_begun_meanwhile(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deleted.Deleted.begin
    begun = []

    async def begin(self: deleted.Deleted, space: Any) -> bool:
        if begun:
            return await real(self, space)
        begun.append(space)
        await say(chat(DaramSaver(memory, owner="ann")), "first")
        return True

    monkeypatch.setattr(deleted.Deleted, "begin", begin)
    texts = await say(chat(DaramSaver(memory, owner="ann")), "second")
    assert texts == ["first", "1: first", "second", "3: second"]


async def test_a_deletion_that_was_killed_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(StoreWrapper):
        async def delete(self, *args: Any, **kwargs: Any) -> None:
            raise ConnectionAbortedError("the process is gone")

    monkeypatch.setattr(deleted, "_PATIENCE", 0.2)
    async with daram.open("memory://") as memory:
        saver = DaramSaver(memory, owner="ann")
        await say(chat(saver), "secret")
        with pytest.raises(ConnectionAbortedError):
            await DaramSaver(Killed(memory), owner="ann").adelete_thread("t")
        waited = []
        for _ in range(2):
            begun = time.monotonic()
            assert await saver.aget_tuple(thread("t")) is None
            waited.append(time.monotonic() - begun)
        assert waited[0] >= 0.2 > waited[1]
        assert await say(chat(saver), "anew") == ["anew", "1: anew"]


async def test_writes_of_a_task_that_ends_behind_the_deletion_are_not_kept(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann")
    await say(chat(saver), "word")
    found = await saver.aget_tuple(thread("t"))
    assert found is not None
    await DaramSaver(memory, owner="ann").adelete_thread("t")
    await saver.aput_writes(found.config, [("messages", [HumanMessage("secret")])], "task")
    assert await left(memory) == []


async def test_messages_that_a_step_removed_are_not_what_the_conversation_goes_on_from(memory: Memory) -> None:
    def answer(state: Chat) -> dict[str, Any]:
        if state["messages"][-1].content == "forget":
            return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES)]}
        return echo(state)

    for turn in range(20):
        await say(chat(DaramSaver(memory, owner="ann"), answer), f"word {turn}")
    for _ in range(2):
        assert await say(chat(DaramSaver(memory, owner="ann"), answer), "forget") == []
        assert (await chat(DaramSaver(memory, owner="ann")).aget_state(thread("t"))).values == {"messages": []}
        graph = chat(DaramSaver(memory, owner="ann"), answer)
        assert await say(graph, "anew") == ["anew", "1: anew"]
        assert [m.text for m in await memory.tail("ann", "t", 10)] == ["anew", "1: anew"]
        await DaramSaver(memory, owner="ann").aprune(["t"])
        assert await say(graph, "on") == ["anew", "1: anew", "on", "3: on"]
        assert [m.text for m in await memory.tail("ann", "t", 10)] == ["anew", "1: anew", "on", "3: on"]


async def test_what_deleted_runs_said_goes_from_the_conversation_too(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann")
    graph = chat(saver)
    for turn in range(40):  # several segments
        run: Any = {**thread("t"), "metadata": {"run_id": f"one {turn}"}}
        await graph.ainvoke({"messages": [HumanMessage(f"kept {turn}")]}, run)
    for text, name in (("secret squirrel", "two"), ("secret tuna", "three")):
        await graph.ainvoke({"messages": [HumanMessage(text)]}, {**thread("t"), "metadata": {"run_id": name}})
    await DaramSaver(memory, owner="ann").adelete_for_runs(["two"])  # the later one holds its messages too
    assert len(await memory.tail("ann", "t", 100)) == 84
    await DaramSaver(memory, owner="ann").adelete_for_runs(["three", "none"])
    texts = [m.text for m in await memory.tail("ann", "t", 100)]
    assert len(texts) == 80 and texts[-2] == "kept 39"
    assert not await memory.search("ann", "secret", conversation="t")
    assert not any(b"secret" in value for _, value in await left(memory))
    assert (await say(graph, "on"))[:-2] == texts
    assert len(await memory.tail("ann", "t", 100)) == 82
    await graph.ainvoke({"messages": [HumanMessage("alone")]}, {**thread("u"), "metadata": {"run_id": "four"}})
    await DaramSaver(memory, owner="ann").adelete_for_runs(["four"])  # with which the thread goes
    with pytest.raises(NotFound):
        await memory.get("ann", "u")


async def test_a_thread_can_be_copied_to_where_one_was_deleted(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann")
    for id in ("t", "u"):
        await say(chat(saver), id, id)
    await saver.adelete_thread("u")
    await saver.acopy_thread("t", "u")
    assert [m.text for m in await memory.tail("ann", "u", 10)] == ["t", "1: t"]
    assert len(await say(chat(DaramSaver(memory, owner="ann")), "on", "u")) == 4
    assert len(await memory.tail("ann", "u", 10)) == 4


class Slow(StoreWrapper):
    """Checkpoints are long on their way: what is written behind them is there before."""

    async def put_record(self, owner: str, namespace: str, *args: Any, **kwargs: Any) -> Any:
        if namespace == CHECKPOINT:
            await asyncio.sleep(0.03)
        return await super().put_record(owner, namespace, *args, **kwargs)


@pytest.mark.parametrize("begun", ["a copy", "where the clock is behind"])
async def test_what_waits_in_a_thread_that_was_deleted_once_is_kept(memory: Memory, begun: str) -> None:
    def ask(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage(f"you said {interrupt('really?')}")]}

    saver = DaramSaver(memory, owner="ann")
    for id in ("t", "u"):
        await say(chat(saver), id, id)
    await saver.adelete_thread("u")
    expected = ["hello", "you said yes"]
    if begun == "a copy":
        await saver.acopy_thread("t", "u")
        expected = ["t", "1: t", *expected]
    else:
        later = str(uuid6()).replace("1", "2", 1).encode()
        page = await memory.scan_records("ann", DELETED)
        await memory.put_record("ann", DELETED, page.items[0].key, page.items[0].value[:1] + later)
    graph = chat(DaramSaver(Slow(memory), owner="ann"), ask)
    await graph.ainvoke({"messages": [HumanMessage("hello")]}, thread("u"))
    assert (await graph.aget_state(thread("u"))).interrupts
    found = await chat(DaramSaver(memory, owner="ann"), ask).ainvoke(Command(resume="yes"), thread("u"))
    assert [m.text for m in found["messages"]] == expected
    assert [m.text for m in await memory.tail("ann", "u", 10)] == expected


@pytest.mark.parametrize("name", [lambda: str(uuid6()), lambda: f"by hand {uuid6()}"])
async def test_of_a_run_that_had_begun_before_the_deletion_no_step_is_kept(memory: Memory, name: Any) -> None:
    saver = DaramSaver(memory, owner="ann")
    assert await saver.aget_tuple(thread("t")) is None
    await DaramSaver(memory, owner="ann").adelete_thread("t")
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    begun = time.monotonic()
    for step in range(3):
        checkpoint = empty_checkpoint()
        checkpoint["id"] = name()
        checkpoint["channel_values"] = {"messages": [HumanMessage(f"secret {n}", id=str(n)) for n in range(step + 1)]}
        checkpoint["channel_versions"] = {"messages": f"v{step}"}
        config = await saver.aput(config, checkpoint, {"step": step}, checkpoint["channel_versions"])
        await saver.aput_writes(config, [("messages", [HumanMessage("secret")])], "task")
    assert time.monotonic() - begun < 2
    assert await left(memory) == []
    with pytest.raises(NotFound):
        await memory.get("ann", "t")


class Away(StoreWrapper):
    """Is away for a moment when records of one kind are written, from when it is told."""

    kind = ""

    def __init__(self, inner: Memory) -> None:
        super().__init__(inner)
        self.asked = asyncio.Event()

    async def put_record(self, owner: str, namespace: str, *args: Any, **kwargs: Any) -> Any:
        if namespace == self.kind:
            self.kind = ""
            self.asked.set()
            await asyncio.sleep(0.3)
            raise StoreUnavailable("the server is starting")
        return await super().put_record(owner, namespace, *args, **kwargs)


@pytest.mark.parametrize("kind", [CHECKPOINT, DELTA, WRITE])
async def test_what_is_written_again_after_the_deletion_is_not_kept(memory: Memory, kind: str) -> None:
    store = Away(memory)
    node = Held()
    run = asyncio.ensure_future(say(chat(DaramSaver(store, owner="ann"), node), "secret question"))
    await node.there.wait()
    store.kind = kind
    node.go.set()
    await store.asked.wait()
    await asyncio.sleep(0.05)  # what else is written with it is there, and the look at what was deleted was made
    await DaramSaver(memory, owner="ann").adelete_thread("t")
    assert await run == ["secret question", "secret 1"]
    assert await left(memory) == []
    with pytest.raises(NotFound):
        await memory.get("ann", "t")


@pytest.mark.parametrize("source", [True, False])
async def test_a_copy_onto_a_thread_takes_the_place_of_its_conversation(memory: Memory, source: bool) -> None:
    saver = DaramSaver(memory, owner="ann")
    await say(chat(saver), "secret", "u")
    expected = ["t", "1: t"] if source else []
    for _ in range(2):  # the second time what is there already
        if source:
            await say(chat(saver), "t", "t")
        await saver.acopy_thread("t", "u")
        if not source:
            with pytest.raises(NotFound):
                await memory.get("ann", "u")
            return
        assert [m.text for m in await memory.tail("ann", "u", 10)] == expected
        assert not await memory.search("ann", "secret", conversation="u")
        expected = [*expected, "t", "3: t"]
    assert len(await say(chat(DaramSaver(memory, owner="ann")), "on", "u")) == 6
    assert len(await memory.tail("ann", "u", 10)) == 6


async def test_a_thread_that_is_copied_onto_itself_stays() -> None:
    async with daram.open("memory://") as memory:
        saver = DaramSaver(memory, owner="ann")
        await say(chat(saver), "t")
        await saver.acopy_thread("t", "t")
        assert len(await say(chat(saver), "on")) == len(await memory.tail("ann", "t", 10)) == 4


async def test_a_conversation_that_is_gone_does_not_make_steps_read_the_thread(memory: Memory) -> None:
    class Reads(StoreWrapper):
        count = 0

        async def scan_records(self, *args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return await super().scan_records(*args, **kwargs)

    store = Reads(memory)
    saver = DaramSaver(store, owner="ann")
    await say(chat(saver), "word")
    await memory.delete("ann", "t")
    found = await saver.aget_tuple(thread("t"))
    assert found is not None
    store.count = 0
    checkpoint = {**found.checkpoint, "id": str(uuid6()), "channel_versions": {"messages": "v9"}}
    checkpoint["channel_values"] = {"messages": [*found.checkpoint["channel_values"]["messages"], AIMessage("on")]}
    await saver.aput(found.config, cast(Any, checkpoint), {"step": 2}, {"messages": "v9"})
    assert store.count == 0
    with pytest.raises(NotFound):
        await memory.get("ann", "t")
