"""Small graphs, and a store that keeps what is looked at, for the tests of the adapter for LangGraph."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
)
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from daram.adapters.langgraph import DaramSaver
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


def add_all(state: list[AnyMessage], writes: list[Any]) -> list[AnyMessage]:
    for write in writes:
        state = add_messages(state, write)  # type: ignore[assignment]
    return state


class Beta(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(add_all, snapshot_frequency=7)]


def beta(state: Beta) -> dict[str, Any]:
    return echo({"messages": state["messages"]})


async def texts_of(memory: Memory) -> list[str]:
    state = await chat(DaramSaver(memory, owner="ann")).aget_state(thread("t"))
    return [m.text for m in state.values["messages"]]


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


class Turned(CipherProtocol):
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "turned", bytes(255 - b for b in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return bytes(255 - b for b in ciphertext)


def nested(saver: Any, node: Any) -> Any:
    inner = StateGraph(Chat)
    inner.add_node("answer", node)
    inner.add_edge(START, "answer")
    return chat(saver, inner.compile())
