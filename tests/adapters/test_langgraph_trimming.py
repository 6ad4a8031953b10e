"""Histories that a graph shortens: what a turn writes, what the conversation shows, and that checkpoints stay exact."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Annotated, Any, TypedDict, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, SystemMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from tests.adapters.graphs import Watched

import daram
from daram.adapters.langgraph import DaramSaver, layout
from daram.memory import Memory
from daram.model import Page, Record
from daram.store.wrapper import StoreWrapper

THREAD: Any = {"configurable": {"thread_id": "t"}}
KEPT = 10


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def oldest(old: list[AnyMessage]) -> list[Any]:
    return [RemoveMessage(id=cast(str, m.id)) for m in old[:-KEPT]]


def all_but_the_last(old: list[AnyMessage]) -> list[Any]:
    return [RemoveMessage(id=REMOVE_ALL_MESSAGES), *old[-KEPT:]]


def behind_the_system_message(old: list[AnyMessage]) -> list[Any]:
    rest = [m for m in old if m.type != "system"]
    return [RemoveMessage(id=cast(str, m.id)) for m in rest[:-KEPT]]


def summary(old: list[AnyMessage]) -> list[Any]:
    if len(old) < 2 * KEPT:
        return []
    return [RemoveMessage(id=REMOVE_ALL_MESSAGES), HumanMessage(f"summary of {old[-KEPT - 1].text}"), *old[-KEPT:]]


Trim = Callable[[list[AnyMessage]], list[Any]]


def trimming(saver: DaramSaver, trim: Trim) -> Any:
    def answer(state: Chat) -> dict[str, Any]:
        reply = AIMessage(f"to {state['messages'][-1].text}")
        shortened = trim([*state["messages"], reply])
        return {"messages": shortened if REMOVE_ALL_MESSAGES in {m.id for m in shortened} else [*shortened, reply]}

    builder = StateGraph(Chat)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


async def written(memory: Memory) -> tuple[int, int]:
    """The records of an owner's lists, and their bytes."""
    found: list[int] = []
    for namespace in (layout.DELTA, layout.SEGMENT):
        cursor = None
        while True:
            page = await memory.scan_records("ann", namespace, limit=1000, cursor=cursor)
            found += [len(record.value) for record in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
    return len(found), sum(found)


async def test_a_turn_of_a_trimmed_history_writes_what_it_added(memory: Memory) -> None:
    await write_what_was_added(memory, oldest)


@pytest.mark.parametrize("trim", [all_but_the_last, behind_the_system_message, summary])
async def test_however_it_is_trimmed(trim: Trim) -> None:
    async with daram.open("memory://") as memory:
        await write_what_was_added(memory, trim)


async def write_what_was_added(memory: Memory, trim: Trim) -> None:
    graph = trimming(DaramSaver(memory, owner="ann"), trim)
    if trim is behind_the_system_message:
        await graph.aupdate_state(THREAD, {"messages": [SystemMessage("be brief")]}, as_node="__start__")
    sizes = []
    for turn in range(60):
        words = " ".join(f"{turn * 7919 % (n + 101)}" for n in range(30))
        state = await graph.ainvoke({"messages": [HumanMessage(f"{turn}: {words}")]}, THREAD)
        if turn in (19, 39, 59):
            sizes.append(await written(memory))
    assert len(state["messages"]) <= 2 * KEPT + 1
    (early, early_bytes), (middle, middle_bytes), (late, late_bytes) = sizes
    assert late - middle <= (middle - early) * 1.2 and late <= 160  # two lists a turn, now and then a segment
    assert late_bytes - middle_bytes < (middle_bytes - early_bytes) * 1.2
    assert late_bytes < 60 * 700
    # The others see all that was said, once, on one branch.
    said = [m.text for m in await memory.tail("ann", "t", 1000) if m.role != "system"]
    assert [text.partition(": ")[0] for text in said] == [x for n in range(60) for x in (f"{n}", f"to {n}")]
    fresh = trimming(DaramSaver(memory, owner="ann"), trim)
    assert (await fresh.aget_state(THREAD)).values == state
    # And so they do of a copy, and behind it.
    saver = DaramSaver(memory, owner="ann")
    await saver.acopy_thread("t", "u")
    copied: Any = {"configurable": {"thread_id": "u"}}
    assert (await trimming(saver, trim).aget_state(copied)).values == state
    await trimming(saver, trim).ainvoke({"messages": [HumanMessage("more")]}, copied)
    texts = [m.text for m in await memory.tail("ann", "u", 1000) if m.role != "system"]
    assert texts == [*said, "more", "to more"]
    # Of a pruned one too, as far as it is kept.
    both = (await written(memory))[0]
    await saver.aprune(["t"])
    assert (await written(memory))[0] < both - late / 2
    fresh = trimming(DaramSaver(memory, owner="ann"), trim)
    assert (await fresh.aget_state(THREAD)).values == state
    await fresh.ainvoke({"messages": [HumanMessage("more")]}, THREAD)
    assert [m.text for m in await memory.tail("ann", "t", 1000) if m.role != "system"] == texts
    await saver.aprune(["t"])
    await saver.acopy_thread("t", "v")
    await trimming(saver, trim).ainvoke({"messages": [HumanMessage("on")]}, {"configurable": {"thread_id": "v"}})
    last = [m.text for m in await memory.tail("ann", "v", 1000)]
    assert last[-4:] == ["more", "to more", "on", "to on"] and KEPT <= len(last) < 80
    await saver.adelete_thread("t")
    await saver.adelete_thread("u")
    await saver.adelete_thread("v")
    assert await written(memory) == (0, 0)


class Counted(StoreWrapper):
    """Counts the segments that are read."""

    read = 0

    async def get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        self.read += namespace == layout.SEGMENT
        return await super().get_record(owner, namespace, key)

    async def scan_records(self, owner: str, namespace: str, *args: Any, **kwargs: Any) -> Page[Record]:
        found = await super().scan_records(owner, namespace, *args, **kwargs)
        self.read += len(found.items) if namespace == layout.SEGMENT else 0
        return found


async def test_of_an_old_thread_what_is_left_of_it_is_read() -> None:
    async with daram.open("memory://") as memory:
        saver = DaramSaver(memory, owner="ann", messages=None)
        messages: list[Any] = []
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        for step in range(100):
            messages = [*messages, *(HumanMessage(f"{step}.{n}", id=f"{step}.{n}") for n in range(32))][-300:]
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": messages}
            checkpoint["channel_versions"] = {"messages": f"v{step}"}
            config = await saver.aput(config, checkpoint, {}, checkpoint["channel_versions"])
        for pruned in (False, True):
            store = Counted(memory)
            found = await DaramSaver(store, owner="ann").aget_tuple(config)
            assert found is not None and found.checkpoint["channel_values"]["messages"] == messages
            assert 10 <= store.read <= 26  # those that count are ten
            if not pruned:
                await saver.aprune(["t"])
        assert (await written(memory))[0] == 10


async def test_a_list_that_is_emptied_again_and_again_is_read_no_dearer() -> None:
    async with daram.open("memory://") as memory:
        saver = DaramSaver(memory, owner="ann", messages=None)
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        messages: list[Any] = []
        for step in range(121):
            messages = [] if step % 4 == 3 else [*messages, HumanMessage(f"{step}", id=f"{step}")]
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": messages}
            checkpoint["channel_versions"] = {"messages": f"v{step}"}
            config = await saver.aput(config, checkpoint, {}, checkpoint["channel_versions"])
            if step % 4 != 2:
                continue
            store = Watched(memory)
            found = await DaramSaver(store, owner="ann").aget_tuple(config)
            assert found is not None and found.checkpoint["channel_values"]["messages"] == messages
            assert len(messages) == 3 and store.read < 10


# --- any edits, compared with plain lists -------------------------------------------------------------------------

EDITS = (
    "add",
    "add",
    "add many",
    "trim",
    "trim and add",
    "keep",
    "change",
    "change last",
    "remove",
    "replace",
    "front",
)


def edited(edit: str, old: list[Any], where: int, new: Callable[[], Any]) -> list[Any]:
    at = where % len(old) if old else 0
    if edit == "add" or not old:
        return [*old, new(), new()]
    if edit == "add many":
        return [*old, *(new() for _ in range(1 + 7 * (where % 12)))]
    if edit == "trim":
        return old[at:]
    if edit == "trim and add":
        return [*old[at:], new()]
    if edit == "keep":
        return [*old[-1 - where % 5 :], new()]
    if edit == "change":
        return [*old[:at], old[at].model_copy(update={"content": f"changed {new().text}"}), *old[at + 1 :]]
    if edit == "change last":
        return [*old[at:-1], new()]
    if edit == "remove":
        return [*old[:at], *old[at + 1 :]] or [new()]
    if edit == "replace":
        return [new() for _ in range(1 + where % 40)]
    keep_first = where % 2
    return [*(old[:1] if keep_first else [new()]), *old[max(at, keep_first) :]]


class Versions:
    """A thread of a saver beside the lists that it should hold."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.saver = DaramSaver(memory, owner="ann")
        self.lists: dict[str, list[Any]] = {}
        self.runs: dict[str, str] = {}
        self.ids = count()

    def message(self) -> Any:
        n = next(self.ids)
        kind = (HumanMessage, AIMessage, SystemMessage)[0 if n % 2 else 1 if n % 10 else 2]
        return kind(f"m{n}", id=f"id{n}")

    async def step(self, edit: str, where: int, parent: str | None, *, fresh: bool) -> None:
        if fresh:
            self.saver = DaramSaver(self.memory, owner="ann")
        old = [] if parent is None else self.lists[parent]
        new = edited(edit, old, where, self.message)
        n = next(self.ids)
        checkpoint = empty_checkpoint()
        checkpoint["id"] = f"{n:06}"
        checkpoint["channel_values"] = {"messages": new}
        checkpoint["channel_versions"] = {"messages": f"v{n}"}
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": parent}}
        run = f"run {where % 3}"
        metadata: Any = {"source": "loop", "step": n, "run_id": run}
        await self.saver.aput(config, checkpoint, metadata, checkpoint["channel_versions"])
        self.lists[checkpoint["id"]] = new
        self.runs[checkpoint["id"]] = run
        if new[-1:] != old[-1:] and new[-1] not in old:
            shown = await self.memory.tail("ann", "t", 1000)
            assert shown[-1].text == new[-1].text
            assert len(shown) == len({m.id for m in shown})

    async def check(self, thread: str = "t") -> None:
        reader = DaramSaver(self.memory, owner="ann")
        config: Any = {"configurable": {"thread_id": thread}}
        found = {t.checkpoint["id"]: t.checkpoint["channel_values"]["messages"] async for t in reader.alist(config)}
        assert found == self.lists

    async def care(self, what: str, where: int) -> None:
        if what == "prune":
            await self.saver.aprune(["t"])
            newest = max(self.lists)
            self.lists = {newest: self.lists[newest]}
        elif what == "copy":
            await self.saver.acopy_thread("t", "u")
            await self.check("u")
        elif what == "fork":  # as LangGraph copies a checkpoint: the same versions, behind the same parent
            id = sorted(self.lists)[where % len(self.lists)]
            found = await self.saver.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_id": id}})
            assert found is not None
            new = f"{next(self.ids):06}"
            none: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
            metadata: Any = {"source": "fork", "run_id": self.runs[id]}
            await self.saver.aput(found.parent_config or none, {**found.checkpoint, "id": new}, metadata, {})
            self.lists[new], self.runs[new] = self.lists[id], self.runs[id]
        else:
            run = f"run {where % 3}"
            if {id for id in self.lists if self.runs[id] != run}:
                await self.saver.adelete_for_runs([run])
                self.lists = {id: found for id, found in self.lists.items() if self.runs[id] != run}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(EDITS),
        st.integers(0, 60),
        st.sampled_from((0, 0, 0, 0, 1, 3, 8)),  # how many checkpoints to go back first
        st.booleans(),
        st.sampled_from((None, None, None, None, "prune", "prune", "copy", "runs", "fork", "fork")),
    ),
    min_size=4,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_every_checkpoint_has_the_list_that_was_put(steps: list[tuple[str, int, int, bool, str | None]]) -> None:
    async def run() -> None:
        async with daram.open("memory://") as memory:
            versions = Versions(memory)
            for edit, where, back, fresh, care in steps:
                known = sorted(versions.lists)
                parent = known[max(-len(known), -1 - back)] if known else None
                await versions.step(edit, where, parent, fresh=fresh)
                if care is not None:
                    await versions.care(care, where)
                    await versions.check()
            await versions.check()

    asyncio.run(run())
