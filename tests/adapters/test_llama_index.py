"""LlamaIndex's chat store on every engine, and in LlamaIndex's own memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.memory import ChatMemoryBuffer
from tests.adapters.dying import Dying

import daram
from daram import sync
from daram.adapters.llama_index import DaramChatStore
from daram.errors import Conflict, InvalidInput, OutcomeUnknown
from daram.memory import Memory
from daram.model import user
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


def said(*texts: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text) for text in texts]


async def test_replacing_what_was_said_is_all_or_nothing(memory: Memory) -> None:
    """Killed behind any of its writes, it leaves the old list or the new one."""

    chat, dying = DaramChatStore(memory, owner="ann"), Dying(memory)
    old, new = said("one", "two"), said("one", *(f"more {n}" for n in range(249)))
    for before in ([], old):
        for lives in range(3):
            await chat.aset_messages("k", old)
            await chat.aset_messages("k", before)
            dying.lives = lives
            try:
                await DaramChatStore(dying, owner="ann").aset_messages("k", new)
            except ConnectionAbortedError:
                assert await chat.aget_messages("k") in (before, new)
        assert await chat.aget_messages("k") == new
    kept = [entry.message.text for entry in await memory.log("ann", "k", limit=1000) if not entry.deleted]
    assert kept == [message.content for message in new]  # of the old ones nothing is left
    assert await memory.search("ann", "two", conversation="k") == []
    await chat.aset_messages("k", [])
    assert await chat.aget_messages("k") == []


async def test_what_another_says_while_a_list_is_replaced_is_behind_it(memory: Memory) -> None:
    other = DaramChatStore(memory, owner="ann")
    spoken = 0

    class Talking(StoreWrapper):
        """Whenever the list is about to be written, somebody says something (three times)."""

        async def _talk(self) -> None:
            nonlocal spoken
            if spoken < 3:
                spoken += 1
                await other.async_add_message("k", *said(f"late {spoken}"))

        async def append(self, *args: Any, **kwargs: Any) -> Any:
            await self._talk()
            return await super().append(*args, **kwargs)

        async def load(self, *args: Any, **kwargs: Any) -> Any:
            await self._talk()
            return await super().load(*args, **kwargs)

    await other.aset_messages("k", said("one", "two"))
    before = await memory.update("ann", "k", title="Trees", metadata={"a": "b"})
    await DaramChatStore(Talking(memory), owner="ann").aset_messages("k", said("new"))
    assert await other.aget_messages("k") == said("new", "late 1", "late 2", "late 3")
    after = await memory.get("ann", "k")
    assert (after.title, after.metadata) == ("Trees", {"a": "b"}) and after.version > before.version
    lists = [said(f"{by}", f"{by} more") for by in "abcd"]
    chats = [DaramChatStore(memory, owner="ann") for _ in lists]
    ends = await asyncio.gather(
        *(chat.aset_messages("k", each) for chat, each in zip(chats, lists, strict=True)), return_exceptions=True
    )
    assert {type(end) for end in ends} <= {type(None), Conflict}
    assert await other.aget_messages("k") in [each for each, end in zip(lists, ends, strict=True) if end is None]


async def test_whatever_others_do_meanwhile_what_they_add_is_not_lost(memory: Memory) -> None:
    other = DaramChatStore(memory, owner="ann")

    async def deletes(key: str) -> None:
        await other.adelete_last_message(key)
        await other.async_add_message(key, *said("late"))

    async def edits(key: str) -> None:
        first = (await memory.messages("ann", key, limit=1)).items[0].id
        await memory.append("ann", key, [user("late")], parent=first)

    async def empties(key: str) -> None:
        await other.aset_messages(key, [])

    async def replaces(key: str) -> None:
        await other.aset_messages(key, said("theirs", "too"))
        await other.async_add_message(key, *said("late"))

    class Between(StoreWrapper):
        """Before the list is written the first time, somebody does something."""

        does: Callable[[str], Awaitable[None]] | None = None

        async def load(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
            does, self.does = self.does, None
            if does is not None:
                await does(conversation.id)
            return await super().load(conversation, *args, **kwargs)

    between = Between(memory)
    chat = DaramChatStore(between, owner="ann")
    for does, found in ((deletes, ("new", "late")), (edits, ("new", "late")), (empties, ("new",))):
        await other.aset_messages(does.__name__, said("one", "two"))
        between.does = does
        await chat.aset_messages(does.__name__, said("new"))
        assert await other.aget_messages(does.__name__) == said(*found)
    await other.aset_messages("replaces", said("one", "two"))
    between.does = replaces
    with pytest.raises(Conflict, match="replaced"):
        await chat.aset_messages("replaces", said("new"))
    assert await other.aget_messages("replaces") == said("theirs", "too", "late")


async def test_where_others_never_stop_it_gives_up_and_changes_nothing(memory: Memory) -> None:
    other = DaramChatStore(memory, owner="ann")

    class Talking(StoreWrapper):
        async def load(self, *args: Any, **kwargs: Any) -> Any:
            await other.async_add_message("k", *said("more"))
            return await super().load(*args, **kwargs)

    class Asking(StoreWrapper):
        async def load(self, *args: Any, **kwargs: Any) -> Any:
            await memory.begin_turn("ann", "k", [user("a question")])
            return await super().load(*args, **kwargs)

    await other.aset_messages("k", said("one"))
    with pytest.raises(Conflict, match="all the time"):
        await DaramChatStore(Talking(memory), owner="ann").aset_messages("k", said("new"))
    talked = await other.aget_messages("k")
    assert talked == said("one", *["more"] * (len(talked) - 1))
    with pytest.raises(Conflict, match="answer"):
        await DaramChatStore(Asking(memory), owner="ann").aset_messages("k", said("new"))
    assert await other.aget_messages("k") == [*talked, *said("a question")]
    assert len(await memory.answers("ann", "k")) == 1


async def test_an_answer_that_is_being_made_is_not_lost(memory: Memory) -> None:
    chat = DaramChatStore(memory, owner="ann")
    turn = await memory.begin_turn("ann", "k", [user("one")], create=True)
    assert turn.answer is not None
    with pytest.raises(Conflict, match="answer"):
        await chat.aset_messages("k", said("new"))
    await memory.finish_turn("ann", "k", turn.answer.id, turn.answer.token, text="the answer")
    assert [message.content for message in await chat.aget_messages("k")] == ["one", "the answer"]
    await memory.begin_turn("ann", "k", [user("two")], lease=0.01)
    await asyncio.sleep(0.05)  # its maker is dead
    await chat.aset_messages("k", said("new"))
    assert await chat.aget_messages("k") == said("new")


async def test_a_replacing_whose_outcome_is_unknown_is_there_once(memory: Memory) -> None:
    class Lossy(StoreWrapper):
        async def load(self, *args: Any, **kwargs: Any) -> Any:
            await super().load(*args, **kwargs)
            await other.async_add_message("k", *said("more"))
            raise OutcomeUnknown("the connection was cut behind the commit")

    other = DaramChatStore(memory, owner="ann")
    await other.aset_messages("k", said("one"))
    await DaramChatStore(Lossy(memory), owner="ann").aset_messages("k", said("new"))
    assert await other.aget_messages("k") == said("new", "more")


async def test_lists_too_long_to_be_replaced_at_once_change_nothing() -> None:
    async with daram.open("memory://") as memory:
        chat = DaramChatStore(memory, owner="ann")
        long = said(*(str(n) for n in range(1001)))
        await chat.aset_messages("k", long)  # there is nothing yet that could be lost
        with pytest.raises(InvalidInput, match="delete_messages"):
            await chat.aset_messages("k", long)
        assert await chat.aget_messages("k") == long


async def test_a_window_never_begins_with_the_result_of_a_call_that_is_in_front_of_it(memory: Memory) -> None:
    chat = DaramChatStore(memory, owner="ann")
    said = [*SAID[:3], *(ChatMessage(role="tool", content=f"{n}") for n in range(3)), ChatMessage(content="thanks")]
    await chat.aset_messages("s", said)
    for window, found in ((1, said[-1:]), (2, said[-1:]), (4, said[-1:]), (5, said[-5:]), (7, said)):
        assert await DaramChatStore(memory, owner="ann", window=window).aget_messages("s") == found
    await chat.aset_messages("s", said[3:])
    assert await DaramChatStore(memory, owner="ann", window=4).aget_messages("s") == said[3:]  # nothing is cut off


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
