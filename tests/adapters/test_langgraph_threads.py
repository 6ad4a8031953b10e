"""Threads as a whole: pruned, deleted, of several owners, looked at, with two runs at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
)
from tests.adapters.graphs import Chat, Watched, chat, say, texts_of, thread, written

from daram.adapters.langgraph import DaramSaver, layout
from daram.adapters.langgraph.layout import thread_key
from daram.errors import InvalidInput, NotFound
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper


async def test_pruning_keeps_the_messages_and_little_else(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann")
    graph = chat(saver)
    for turn in range(20):
        await say(graph, f"word {turn}")
    before = await written(memory)
    await saver.aprune(["t"])
    assert await written(memory) < before / 3
    fresh = chat(DaramSaver(memory, owner="ann"))
    assert len(await say(fresh, "on")) == 42
    await saver.acopy_thread("t", "u")
    assert len(await say(fresh, "on", "u")) == 44
    assert len(await say(fresh, "on", "t")) == 44
    assert len(await memory.tail("ann", "u", 100)) == 44


async def test_pruning_leaves_what_a_run_is_writing(memory: Memory) -> None:
    graph = chat(DaramSaver(memory, owner="ann"))
    for turn in range(3):
        await say(graph, f"word {turn}")

    class Halfway(StoreWrapper):
        """The parts of a checkpoint are stored; the checkpoint itself waits until somebody has pruned."""

        async def put_record(self, owner: str, namespace: str, *args: Any, **kwargs: Any) -> Any:
            if namespace == layout.CHECKPOINT:
                await asyncio.gather(*parts)
                await DaramSaver(memory, owner="ann").aprune(["t"])
                return await super().put_record(owner, namespace, *args, **kwargs)
            parts.append(asyncio.ensure_future(super().put_record(owner, namespace, *args, **kwargs)))
            return await parts[-1]

    parts: list[asyncio.Future[Any]] = []
    said = await say(chat(DaramSaver(Halfway(memory), owner="ann")), "meanwhile")
    assert await texts_of(memory) == said


async def test_pruning_leaves_the_steps_that_came_meanwhile(memory: Memory) -> None:
    graph = chat(DaramSaver(memory, owner="ann"))
    await say(graph, "before")

    class Late(StoreWrapper):
        """A run goes on while somebody prunes, who has seen the newest checkpoint already."""

        async def scan_records(self, owner: str, namespace: str, *args: Any, **kwargs: Any) -> Any:
            found = await super().scan_records(owner, namespace, *args, **kwargs)
            if namespace == layout.CHECKPOINT and not said:
                said.append("")  # once
                said[:] = await say(graph, "meanwhile")
            return found

    said: list[str] = []
    await DaramSaver(Late(memory), owner="ann").aprune(["t"])
    assert await texts_of(memory) == said
    assert len(await say(graph, "behind")) == len(said) + 2


async def test_what_only_a_deleted_run_said_is_not_kept(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann", messages=None)
    graph = chat(saver)
    for run in ("one", "two"):
        config: Any = {**thread("t"), "metadata": {"run_id": run}}
        await graph.ainvoke({"messages": [HumanMessage(f"said in run {run}")]}, config)
    await saver.adelete_for_runs(["two"])
    assert [m for m in await texts_of(memory) if "said in" in m] == ["said in run one", "1: said in run one"]
    page = await memory.scan_all_records(limit=1000)
    assert not any(b"said in run two" in found.record.value for found in page.items)


async def test_a_thread_that_another_process_deleted_is_begun_anew(memory: Memory) -> None:
    graph, other = chat(DaramSaver(memory, owner="ann")), DaramSaver(memory, owner="ann")
    await say(graph, "before")
    await other.adelete_thread("t")
    assert await say(graph, "after") == ["after", "1: after"]
    assert [m.text for m in await memory.tail("ann", "t", 10)] == ["after", "1: after"]
    assert {found.config["configurable"]["thread_id"] async for found in other.alist(None)} == {"t"}
    await memory.delete("ann", "t")  # the conversation alone: it stays deleted
    assert len(await say(graph, "on")) == 4
    with pytest.raises(NotFound):
        await memory.get("ann", "t")


async def test_half_a_character_in_the_name_of_a_thread_is_refused_in_words(memory: Memory) -> None:
    graph = chat(DaramSaver(memory, owner="ann"))
    with pytest.raises(InvalidInput, match="thread_id: has half of a character at 1"):
        await graph.ainvoke({"messages": [HumanMessage("hello")]}, thread("t\ud83d"))
    saver = DaramSaver(memory, owner="ann")
    with pytest.raises(InvalidInput, match="checkpoint_id: has half of a character at 1"):
        await saver.aget_tuple(thread("t", checkpoint_id="1\ud83d"))
    for field, call in (
        ("thread_id", saver.adelete_thread("t\ud83d")),
        ("source_thread_id", saver.acopy_thread("t\ud83d", "u")),
        ("target_thread_id", saver.acopy_thread("t", "u\ud83d")),
        ("thread_ids", saver.aprune(["t", "u\ud83d"])),
    ):
        with pytest.raises(InvalidInput, match=f"^{field}: has half of a character at 1"):
            await call


async def test_two_owners_have_threads_of_one_name(memory: Memory) -> None:
    graph = chat(DaramSaver(memory))
    for owner in ("ann", "bob"):
        await graph.ainvoke({"messages": [HumanMessage(owner)]}, thread("t", owner=owner))
    state = await graph.aget_state(thread("t", owner="bob"))
    assert [m.text for m in state.values["messages"]] == ["bob", "1: bob"]
    with pytest.raises(InvalidInput, match="owner"):
        await graph.aget_state(thread("t"))
    with pytest.raises(InvalidInput, match="owner"):
        await DaramSaver(memory).adelete_thread("t")
    await DaramSaver(memory).of("ann").adelete_thread("t")
    assert (await graph.aget_state(thread("t", owner="ann"))).values == {}
    assert len((await graph.aget_state(thread("t", owner="bob"))).values["messages"]) == 2


async def test_going_back_in_time_where_each_run_names_the_owner(memory: Memory) -> None:
    graph = chat(DaramSaver(memory))
    ann = thread("t", owner="ann")
    for turn in range(2):
        await graph.ainvoke({"messages": [HumanMessage(f"word {turn}")]}, ann)
    history = [state async for state in graph.aget_state_history(ann)]
    assert all(state.config["configurable"]["owner"] == "ann" for state in history)
    assert [state.parent_config for state in history[:-1]] == [state.config for state in history[1:]]
    fork = next(state for state in history if not state.next and len(state.values["messages"]) == 2)
    found = await graph.ainvoke({"messages": [HumanMessage("another")]}, fork.config)
    assert [m.text for m in found["messages"]] == ["word 0", "1: word 0", "another", "3: another"]
    updated = await graph.aupdate_state(ann, {"messages": [HumanMessage("by hand")]})
    assert (await graph.aget_state(updated)).values["messages"][-1].text == "by hand"
    assert "owner" not in (await chat(DaramSaver(memory, owner="ann")).aget_state(thread("t"))).config["configurable"]


async def test_a_look_at_one_checkpoint_reads_no_others(memory: Memory) -> None:
    store = Watched(memory)
    saver = DaramSaver(store, owner="ann", messages=None)
    graph = chat(saver)
    for turn in range(25):
        await say(graph, f"word {turn}")
    configs = [found.config async for found in saver.alist(thread("t"))]
    for given, before, limit, expected in (
        (thread("t"), configs[60], 1, configs[61:62]),
        (thread("t"), configs[60], 3, configs[61:64]),
        (thread("t"), configs[-2], None, configs[-1:]),
        (thread("t"), configs[-1], None, []),
        (thread("t"), None, 1, configs[:1]),
        (thread("t"), None, 0, []),
        (configs[40], None, None, configs[40:41]),
        ({"configurable": {**configs[40]["configurable"], "checkpoint_id": "none"}}, None, None, []),
    ):
        store.read = 0
        assert [found.config async for found in saver.alist(given, before=before, limit=limit)] == expected
        assert store.read < 60, (given, before, limit, store.read)  # the deltas of a tail among them
    assert [found.config async for found in saver.alist(configs[40], before=configs[40])] == []


async def test_what_runs_left_is_found_without_a_look_at_other_threads(memory: Memory) -> None:
    store = Watched(memory)
    saver = DaramSaver(store, owner="ann")
    graph = chat(saver)
    for id, run in (("both", "r1"), ("both", "r2"), ("one", "r1"), *((f"other {n}", f"r{3 + n}") for n in range(9))):
        await graph.ainvoke({"messages": [HumanMessage(run)]}, {**thread(id), "metadata": {"run_id": run}})
    await saver.acopy_thread("one", "copy")
    store.looked.clear()
    await saver.adelete_for_runs(["r1", "none"])
    others = {thread_key(f"other {n}") for n in range(9)}
    assert not [key for key in store.looked if key == "" or others & set(key.split("/"))]
    assert {t.config["configurable"]["thread_id"] async for t in saver.alist(None)} == {
        "both",
        *(f"other {n}" for n in range(9)),
    }
    assert {t.metadata["run_id"] async for t in saver.alist(thread("both"))} == {"r2"}
    await saver.adelete_for_runs(["r2"])
    for n in range(9):
        await saver.adelete_thread(f"other {n}")
    assert await written(memory) == 0


async def test_two_runs_at_once_on_one_thread_leave_it_whole(memory: Memory) -> None:
    async def slow(state: Chat) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"messages": [AIMessage(f"to {state['messages'][-1].content}")]}

    for _ in range(5):
        graphs = [chat(DaramSaver(memory, owner="ann"), slow) for _ in range(2)]
        await asyncio.gather(*(say(graph, f"from {i}") for i, graph in enumerate(graphs)))
    reader = chat(DaramSaver(memory, owner="ann"), slow)
    states = [state async for state in reader.aget_state_history(thread("t"))]
    lists = [[m.text for m in state.values.get("messages", [])] for state in states]
    for state, texts in zip(states, lists, strict=True):
        assert len({m.id for m in state.values.get("messages", [])}) == len(texts)
    # What one of the two that began at once had said by then (two messages) stands before the other.
    conversation = [m.text for m in await memory.tail("ann", "t", 100)]
    assert any(conversation[before:] in lists for before in range(3))
