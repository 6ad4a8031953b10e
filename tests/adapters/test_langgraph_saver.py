"""LangGraph's own loop on DaramSaver: what comes back, what is written, what other doors see."""

from __future__ import annotations

import asyncio
import base64
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt

import daram
from daram import sync
from daram.adapters.langgraph import DaramSaver, layout
from daram.adapters.langgraph.layout import Side, thread_key
from daram.errors import ConfigError, InvalidInput, NotFound, SyncInAsync, Unsupported
from daram.memory import Memory
from daram.model import Page, Record
from daram.store.base import Store
from daram.store.wrapper import StoreWrapper


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def echo(state: Chat) -> dict[str, Any]:
    last = state["messages"][-1]
    return {"messages": [AIMessage(f"{len(state['messages'])}: {last.content}")]}


def chat(saver: Any, node: Any = echo, schema: Any = Chat) -> Any:
    builder = StateGraph(schema)
    builder.add_node("answer", node)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder.compile(checkpointer=saver)


def thread(id: str, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": id, **more}}


async def say(graph: Any, text: str, id: str = "t") -> list[str]:
    found = await graph.ainvoke({"messages": [HumanMessage(text)]}, thread(id))
    return [message.text for message in found["messages"]]


async def written(memory: Memory, owner: str = "ann") -> int:
    """The bytes in an owner's records, as they are stored."""
    total = 0
    for namespace in ("thread", "checkpoint", "write", "blob", "delta", "segment", "part", "runs", "run"):
        cursor = None
        while True:
            page = await memory.scan_records(owner, f"langgraph.{namespace}", limit=1000, cursor=cursor)
            total += sum(len(record.value) for record in page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
    return total


async def test_a_chat_goes_on_in_another_process(memory: Memory) -> None:
    for turn in range(20):
        graph = chat(DaramSaver(memory, owner="ann"))  # nothing is known from the turn before
        texts = await say(graph, f"word {turn}")
        assert texts[-1] == f"{2 * turn + 1}: word {turn}"
    assert len(texts) == 40
    assert texts[::2] == [f"word {turn}" for turn in range(20)]


async def test_a_chat_in_one_process_is_the_same_as_in_the_memory_of_the_framework(memory: Memory) -> None:
    graph, model = chat(DaramSaver(memory, owner="ann")), chat(InMemorySaver())
    for turn in range(20):
        assert await say(graph, f"word {turn}") == await say(model, f"word {turn}")
    ours = [state async for state in graph.aget_state_history(thread("t"))]
    theirs = [state async for state in model.aget_state_history(thread("t"))]
    assert [(s.next, s.metadata["step"], [m.text for m in s.values.get("messages", [])]) for s in ours] == [
        (s.next, s.metadata["step"], [m.text for m in s.values.get("messages", [])]) for s in theirs
    ]


async def test_a_step_writes_what_it_added(memory: Memory) -> None:
    graph = chat(DaramSaver(memory, owner="ann"))
    sizes = [0]
    for turn in range(48):
        await say(graph, f"{turn} " + "다람쥐 " * 20)
        if turn in (7, 23, 47):
            sizes.append(await written(memory))
    early, middle, late = sizes[1] / 8, (sizes[2] - sizes[1]) / 16, (sizes[3] - sizes[2]) / 24
    assert middle < early * 1.3
    assert late < middle * 1.3  # a list that is written again would be about twice as much


async def test_a_thread_is_a_conversation_for_the_other_doors(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann")
    graph = chat(saver)
    for turn in range(3):
        await say(graph, f"word {turn}", "talk")
    found = await memory.tail("ann", "talk", 100)
    assert [(m.role, m.text) for m in found] == [
        pair for turn in range(3) for pair in (("user", f"word {turn}"), ("assistant", f"{2 * turn + 1}: word {turn}"))
    ]
    assert [hit.text for hit in await memory.search("ann", "word 2", conversation="talk")]
    assert not await memory.search("bob", "word 2", conversation="talk")
    await saver.adelete_thread("talk")
    with pytest.raises(NotFound):
        await memory.get("ann", "talk")
    assert await written(memory) == 0


async def test_a_photo_does_not_end_the_conversation(memory: Memory) -> None:
    photo = {"type": "image", "base64": base64.b64encode(bytes(1 << 21)).decode(), "mime_type": "image/png"}
    graph = chat(DaramSaver(memory, owner="ann"))
    await graph.ainvoke({"messages": [HumanMessage([{"type": "text", "text": "look"}, photo])]}, thread("t"))
    await say(graph, "and now?")
    state = await chat(DaramSaver(memory, owner="ann")).aget_state(thread("t"))
    assert state.values["messages"][0].content[1] == photo
    stored = await memory.tail("ann", "t", 10)
    assert [m.role for m in stored] == ["user", "assistant", "user", "assistant"]
    assert stored[0].text == "look"
    assert [(part.type, list(part.data)) for part in stored[0].parts] == [("image", ["omitted"])]
    assert stored[1].text.startswith("1: [{") and len(stored[1].text) == 100_001  # it repeats all of it


async def test_going_back_in_time_opens_a_branch(memory: Memory) -> None:
    graph = chat(DaramSaver(memory, owner="ann"))
    for turn in range(3):
        await say(graph, f"word {turn}")
    history = [state async for state in graph.aget_state_history(thread("t"))]
    earlier = next(state for state in history if not state.next and len(state.values["messages"]) == 2)
    await graph.ainvoke({"messages": [HumanMessage("another")]}, earlier.config)
    state = await graph.aget_state(thread("t"))
    assert [m.text for m in state.values["messages"]] == ["word 0", "1: word 0", "another", "3: another"]
    assert [m.text for m in await memory.tail("ann", "t", 10)] == ["word 0", "1: word 0", "another", "3: another"]
    newest = await graph.aget_state(history[0].config)
    assert len(newest.values["messages"]) == 6  # what was there is still there


async def test_edits_and_removals(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann")
    graph = chat(saver)
    for turn in range(30):
        await say(graph, f"word {turn}")
    messages = (await graph.aget_state(thread("t"))).values["messages"]
    edited = HumanMessage("edited", id=messages[4].id)
    await graph.aupdate_state(thread("t"), {"messages": [edited, RemoveMessage(id=messages[10].id)]})
    expected = [*messages[:4], edited, *messages[5:10], *messages[11:]]
    for reader in (graph, chat(DaramSaver(memory, owner="ann"))):
        assert (await reader.aget_state(thread("t"))).values["messages"] == expected
    await say(graph, "on")
    assert [m.text for m in await memory.tail("ann", "t", 100)][:5] == [m.text for m in expected[:5]]
    assert len(await memory.tail("ann", "t", 100)) == 61


async def test_a_message_changed_in_its_place_is_seen(memory: Memory) -> None:
    def annotate(state: Chat) -> dict[str, Any]:
        state["messages"][0].additional_kwargs["seen"] = len(state["messages"])
        return {"messages": [AIMessage("noted")]}

    graph = chat(DaramSaver(memory, owner="ann"), annotate)
    for turn in range(20):
        await say(graph, f"word {turn}")
    found = (await chat(DaramSaver(memory, owner="ann")).aget_state(thread("t"))).values["messages"]
    assert found[0].additional_kwargs == {"seen": 39}
    assert len(found) == 40


EVERY_KIND: list[AnyMessage] = [
    SystemMessage("be brief", id="s"),
    HumanMessage(
        [{"type": "text", "text": "what is this?"}, {"type": "image", "base64": "aGk=", "mime_type": "image/png"}],
        id="h",
    ),
    AIMessage(
        "",
        id="a",
        tool_calls=[{"name": "look", "args": {"at": [1, {"x": None}]}, "id": "c1", "type": "tool_call"}],
        invalid_tool_calls=[{"name": "bad", "args": "{", "id": "c2", "error": "no", "type": "invalid_tool_call"}],
        usage_metadata={"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
        response_metadata={"model_name": "m", "finish_reason": "tool_calls"},
        additional_kwargs={"refusal": None, "deep": {"er": [1.5]}},
        name="bot",
    ),
    ToolMessage("a squirrel", tool_call_id="c1", artifact={"raw": b"\x00\xff"}, status="error", id="o"),
    AIMessage(
        [{"type": "text", "text": "It is "}, {"type": "text", "text": "a squirrel 다람쥐"}], id="b", extra_field=3
    ),
]


async def test_every_kind_of_message_comes_back_as_it_was(memory: Memory) -> None:
    graph = chat(DaramSaver(memory, owner="ann"), lambda state: {})
    await graph.ainvoke({"messages": EVERY_KIND}, thread("t"))
    found = (await chat(DaramSaver(memory, owner="ann")).aget_state(thread("t"))).values["messages"]
    assert found == EVERY_KIND
    assert [type(m) for m in found] == [type(m) for m in EVERY_KIND]
    assert [m.model_dump() for m in found] == [m.model_dump() for m in EVERY_KIND]
    conversation = await memory.tail("ann", "t", 10)
    assert [m.role for m in conversation] == ["system", "user", "assistant", "tool", "assistant"]
    assert [p.data["name"] for p in conversation[2].parts if p.type == "tool_call"] == ["look"]
    assert conversation[4].text == "It is a squirrel 다람쥐"


async def test_interrupt_and_resume_across_processes(memory: Memory) -> None:
    def ask(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage(f"you said {interrupt('really?')}")]}

    found = await chat(DaramSaver(memory, owner="ann"), ask).ainvoke({"messages": [HumanMessage("hi")]}, thread("t"))
    assert found["__interrupt__"][0].value == "really?"
    found = await chat(DaramSaver(memory, owner="ann"), ask).ainvoke(Command(resume="yes"), thread("t"))
    assert [m.text for m in found["messages"]] == ["hi", "you said yes"]


class Fan(TypedDict):
    done: Annotated[list[int], operator.add]
    large: str


async def test_parallel_nodes_large_values_and_a_failed_task(memory: Memory) -> None:
    failing = True

    def work(state: dict[str, int]) -> dict[str, list[int]]:
        if failing and state["n"] == 3:
            raise RuntimeError("not yet")
        return {"done": [state["n"]]}

    def graph() -> Any:
        builder = StateGraph(Fan)
        builder.add_node("work", work)  # type: ignore[type-var]
        builder.add_conditional_edges(START, lambda state: [Send("work", {"n": n}) for n in range(6)])
        return builder.compile(checkpointer=DaramSaver(memory, owner="ann"))

    large = "".join(chr(0xAC00 + i * 7919 % 11172) for i in range(700_000))  # above 1 MiB when packed
    with pytest.raises(RuntimeError):
        await graph().ainvoke({"done": [], "large": large}, thread("t"))
    failing = False
    found = await graph().ainvoke(None, thread("t"))
    assert found["done"] == list(range(6))
    assert found["large"] == large
    saver = DaramSaver(memory, owner="ann")
    await saver.aprune(["t"])
    assert (await graph().aget_state(thread("t"))).values["large"] == large
    await saver.adelete_thread("t")
    assert await written(memory) == 0


async def test_subgraphs_and_streaming(memory: Memory) -> None:
    inner = StateGraph(Chat)
    inner.add_node("answer", echo)
    inner.add_edge(START, "answer")
    outer = StateGraph(Chat)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_edge(START, "inner")
    graph = outer.compile(checkpointer=DaramSaver(memory, owner="ann"))
    for turn in range(2):
        chunks = [
            chunk
            async for chunk in graph.astream({"messages": [HumanMessage(f"w{turn}")]}, thread("t"), subgraphs=True)
        ]
        assert any(ns for ns, _ in chunks)
    state = await graph.aget_state(thread("t"))
    assert [m.text for m in state.values["messages"]][::2] == ["w0", "w1"]
    spaces = {
        t.config["configurable"]["checkpoint_ns"] async for t in DaramSaver(memory, owner="ann").alist(thread("t"))
    }
    assert len(spaces) == 2


def add_all(state: list[AnyMessage], writes: list[Any]) -> list[AnyMessage]:
    for write in writes:
        state = add_messages(state, write)  # type: ignore[assignment]
    return state


class Beta(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(add_all, snapshot_frequency=7)]


def beta(state: Beta) -> dict[str, Any]:
    return echo({"messages": state["messages"]})


async def test_the_frameworks_delta_channel(memory: Memory) -> None:
    saver = DaramSaver(memory, owner="ann")
    ours, theirs = chat(saver, beta, Beta), chat(InMemorySaver(), beta, Beta)
    for turn in range(12):
        assert await say(ours, f"w{turn}") == await say(theirs, f"w{turn}")
    before = (await ours.aget_state(thread("t"))).values["messages"]
    await saver.aprune(["t"])
    after = (await chat(DaramSaver(memory, owner="ann"), beta, Beta).aget_state(thread("t"))).values["messages"]
    assert after == before
    assert len([t async for t in saver.alist(thread("t"))]) == 1
    assert len(await say(ours, "on")) == 26


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


async def texts_of(memory: Memory) -> list[str]:
    state = await chat(DaramSaver(memory, owner="ann")).aget_state(thread("t"))
    return [m.text for m in state.values["messages"]]


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


class Watched(StoreWrapper):
    """Keeps which keys and prefixes of records are looked at."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.looked: list[str] = []
        self.read = 0

    async def get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        self.looked.append(key)
        return await super().get_record(owner, namespace, key)

    async def scan_records(
        self, owner: str, namespace: str, prefix: str = "", *, limit: int = 100, cursor: str | None = None
    ) -> Page[Record]:
        self.looked.append(prefix)
        found = await super().scan_records(owner, namespace, prefix, limit=limit, cursor=cursor)
        self.read += len(found.items)
        return found


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


def test_the_synchronous_face(url: str) -> None:
    with sync.open(url) as memory:
        saver = DaramSaver(memory, owner="ann")
        graph = chat(saver)
        for turn in range(3):
            found = graph.invoke({"messages": [HumanMessage(f"w{turn}")]}, thread("t"))
        assert len(found["messages"]) == 6
        history = list(graph.get_state_history(thread("t")))
        assert len(history) == 9
        fork = graph.update_state(history[3].config, {"messages": [HumanMessage("by hand")]})
        assert [m.text for m in graph.get_state(fork).values["messages"]][-2:] == ["3: w1", "by hand"]
        beta_graph = chat(saver, beta, Beta)
        for turn in range(9):
            beta_graph.invoke({"messages": [HumanMessage(f"w{turn}")]}, thread("d"))
        given = saver.get_delta_channel_history(config=thread("d"), channels=["messages"])
        assert given == sync.portal().run(saver.aget_delta_channel_history(config=thread("d"), channels=["messages"]))
        assert given["messages"]["writes"]
        saver.copy_thread("t", "u")
        saver.prune(["u"])
        saver.delete_for_runs(["none"])
        saver.delete_thread("t")
        assert graph.get_state(thread("t")).values == {}
        assert graph.get_state(thread("u")).values["messages"][-1].text == "by hand"


def test_a_synchronous_graph_is_not_called_on_a_running_loop(tmp_path: Any) -> None:
    with sync.open(f"sqlite:///{tmp_path}/daram.db") as memory:
        graph = chat(DaramSaver(memory, owner="ann"))
        graph.invoke({"messages": [HumanMessage("w")]}, thread("t"))

        async def inside() -> None:
            with pytest.raises(SyncInAsync):
                graph.get_state(thread("t"))
            assert len((await graph.aget_state(thread("t"))).values["messages"]) == 2

        asyncio.run(inside())


async def test_a_stream_of_tokens_is_kept_as_one_message(memory: Memory) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("a squirrel hides nuts"), AIMessage("and finds them")]))

    async def ask(state: Chat) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    for text, answer in (("what is it?", "a squirrel hides nuts"), ("and then?", "and finds them")):
        graph = chat(DaramSaver(memory, owner="ann"), ask)
        given = {"messages": [HumanMessage(text)]}
        stream = graph.astream(given, thread("t"), stream_mode="messages")
        pieces = [piece.text async for piece, _ in stream if isinstance(piece, AIMessageChunk)]
        assert "".join(pieces) == answer and len(pieces) > 4
    texts = ["what is it?", "a squirrel hides nuts", "and then?", "and finds them"]
    assert await texts_of(memory) == texts
    assert [m.text for m in await memory.tail("ann", "t", 10)] == texts


# --- beside the engines -------------------------------------------------------------------------------------------


@pytest.fixture
async def small() -> Any:
    async with daram.open("memory://") as memory:
        yield memory


async def test_a_checkpoint_without_one_of_its_parts_is_not_there(small: Memory) -> None:
    graph = chat(DaramSaver(small, owner="ann"))
    await say(graph, "one")
    known = {record.key for record in (await small.scan_records("ann", "langgraph.delta")).items}
    await say(graph, "two")
    # As a crash leaves it: the checkpoint arrived, what it added did not.
    for record in (await small.scan_records("ann", "langgraph.delta")).items:
        if record.key not in known:
            await small.delete_record("ann", "langgraph.delta", record.key)
    fresh = chat(DaramSaver(small, owner="ann"))
    state = await fresh.aget_state(thread("t"))
    texts = [m.text for m in state.values["messages"]]
    assert texts == ["one", "1: one", "two"]  # that it came in was a checkpoint before
    assert (await say(fresh, "three"))[:3] == [*texts[:2], "three"]


class Trap:
    sprung = 0

    def __init__(self, x: int = 0) -> None:
        Trap.sprung += 1
        self.x = x

    def model_dump(self) -> dict[str, int]:
        return {"x": self.x}


async def test_nothing_stored_comes_to_life_that_was_not_allowed(small: Memory) -> None:
    class Loose(TypedDict):
        thing: Any

    graph = chat(DaramSaver(small, owner="ann"), lambda state: {}, Loose)
    await graph.ainvoke({"thing": Trap()}, thread("t"))
    made = Trap.sprung
    assert (await graph.aget_state(thread("t"))).values["thing"] == {"x": 0}
    assert Trap.sprung == made
    allowed = chat(DaramSaver(small, owner="ann", types=[Trap]), lambda state: {}, Loose)
    assert isinstance((await allowed.aget_state(thread("t"))).values["thing"], Trap)


async def test_unsafe_serializers_and_stores_without_records_are_refused(small: Memory) -> None:
    for unsafe in (
        JsonPlusSerializer(pickle_fallback=True, allowed_msgpack_modules=None),
        JsonPlusSerializer(allowed_msgpack_modules=True),
    ):
        with pytest.raises(ConfigError):
            DaramSaver(small, serde=unsafe)
        with pytest.raises(ConfigError):
            DaramSaver(small, serde=EncryptedSerializer(Turned(), unsafe))

    with pytest.raises(Unsupported):
        DaramSaver(object())  # type: ignore[arg-type]


class Turned(CipherProtocol):
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "turned", bytes(255 - b for b in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return bytes(255 - b for b in ciphertext)


async def test_an_encrypting_serializer_leaves_nothing_readable(small: Memory) -> None:
    serde = EncryptedSerializer(Turned(), JsonPlusSerializer(allowed_msgpack_modules=None))
    for turn in range(20):
        texts = await say(chat(DaramSaver(small, owner="ann", serde=serde)), f"secret {turn}")
    assert len(texts) == 40
    with pytest.raises(NotFound):
        await small.get("ann", "t")
    for namespace in ("checkpoint", "write", "blob", "delta", "segment"):
        async for data in _opened(small, f"langgraph.{namespace}"):
            assert b"secret" not in data


async def _opened(memory: Memory, namespace: str) -> Any:
    async for _, data in Side(memory, "ann").scan(namespace, ""):
        yield data
