"""LlamaIndex's chat store on every engine, and in LlamaIndex's own memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.memory import ChatMemoryBuffer

import daram
from daram import sync
from daram.adapters.llama_index import DaramChatStore
from daram.errors import InvalidInput
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper

SAID = [
    ChatMessage(role="system", content="be brief"),
    ChatMessage(role="user", blocks=[TextBlock(text="이건 뭐야?"), ImageBlock(url="https://example.org/a.png")]),
    ChatMessage(role="assistant", content="다람쥐", additional_kwargs={"tool_calls": [{"id": "c", "n": [1, None]}]}),
    ChatMessage(role="tool", content="ok", additional_kwargs={"tool_call_id": "c"}),
]


async def test_messages_come_back_as_they_were_in_their_order(memory: Memory) -> None:
    store = DaramChatStore(memory, owner="ann")
    assert await store.aget_messages("s") == []
    assert await store.adelete_last_message("s") is None
    for message in SAID:
        await store.async_add_message("s", message)
    fresh = DaramChatStore(memory, owner="ann")
    assert await fresh.aget_messages("s") == SAID
    assert await DaramChatStore(memory, owner="ann", window=2).aget_messages("s") == SAID[-2:]
    assert await DaramChatStore(memory, owner="bob").aget_messages("s") == []
    assert [(m.role, m.text) for m in await memory.tail("ann", "s")] == [
        ("system", "be brief"),
        ("user", "이건 뭐야?"),
        ("assistant", "다람쥐"),
        ("tool", "ok"),
    ]
    assert await fresh.adelete_message("s", 1) == SAID[1]
    assert await fresh.adelete_message("s", 7) is None
    assert await fresh.aget_messages("s") == [SAID[0], *SAID[2:]]
    assert await fresh.adelete_last_message("s") == SAID[3]
    await fresh.aset_messages("s", SAID)
    assert await fresh.aget_messages("s") == SAID
    assert await fresh.adelete_messages("s") == SAID
    assert await fresh.aget_messages("s") == []
    assert await fresh.adelete_messages("s") is None


async def test_long_conversations_keys_and_two_writers(memory: Memory) -> None:
    store = DaramChatStore(memory, owner="ann")
    said = [ChatMessage(role="user", content=f"word {n}") for n in range(230)]
    await store.aset_messages("long", said)
    assert await store.aget_messages("long") == said
    await asyncio.gather(*(store.async_add_message("busy", message) for message in said[:10]))
    assert len(await store.aget_messages("busy")) == 10
    assert sorted(await store.aget_keys()) == ["busy", "long"]


async def test_replacing_what_was_said_loses_nothing_in_between(memory: Memory) -> None:
    def said(*texts: str) -> list[ChatMessage]:
        return [ChatMessage(role="user", content=text) for text in texts]

    seen: list[list[ChatMessage]] = []

    class Watched(StoreWrapper):
        async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(await chat.aget_messages("k"))
            if len(seen) > 4:
                raise ConnectionAbortedError("the process is gone")
            return await super().delete_message(*args, **kwargs)

        async def delete(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("whoever reads now finds nothing")

    chat = DaramChatStore(memory, owner="ann")
    watched = DaramChatStore(Watched(memory), owner="ann")
    await watched.aset_messages("k", said("one", "two"))
    new = said("one", *(f"more {n}" for n in range(150)))
    await watched.aset_messages("k", new)
    assert seen == [new, new]
    assert await chat.aget_messages("k") == new
    kept = [entry.message.text for entry in await memory.log("ann", "k") if not entry.deleted]
    assert kept[:2] == ["one", "more 0"]  # of the old ones nothing is left
    newest = said("in the end")
    with pytest.raises(ConnectionAbortedError):
        await watched.aset_messages("k", newest)
    assert await chat.aget_messages("k") == newest
    await chat.aset_messages("k", [])
    assert await chat.aget_messages("k") == []


def test_in_llama_indexs_own_memory() -> None:
    with sync.open("memory://") as memory:
        for text in ("one", "two"):
            buffer = ChatMemoryBuffer.from_defaults(
                chat_store=DaramChatStore(memory, owner="ann"), chat_store_key="s", token_limit=1000
            )
            buffer.put(ChatMessage(role="user", content=text))
        assert [message.content for message in buffer.get()] == ["one", "two"]
        buffer.reset()
        assert buffer.get() == []


async def test_windows_of_nothing_are_refused() -> None:
    async with daram.open("memory://") as memory:
        with pytest.raises(InvalidInput):
            DaramChatStore(memory, owner="ann", window=0)
