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
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt
from tests.adapters.graphs import Beta, Chat, beta, chat, echo, say, texts_of, thread, written

from daram import sync
from daram.adapters.langgraph import DaramSaver
from daram.errors import NotFound, SyncInAsync
from daram.memory import Memory


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
