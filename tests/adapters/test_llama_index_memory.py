"""LlamaIndex's ``Memory`` on every engine."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import Memory as LlamaMemory
from llama_index.core.storage.chat_store.base_db import MessageStatus

from daram import sync
from daram.adapters.llama_index import DaramChatStore
from daram.adapters.llama_index.memory import DaramMemoryStore
from daram.errors import InvalidInput, OutcomeUnknown
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper

ARCHIVED = MessageStatus.ARCHIVED
takes_a_store = pytest.mark.skipif(
    "chat_store" not in inspect.signature(LlamaMemory.from_defaults).parameters, reason="before 0.14.24"
)


def said(*texts: str) -> list[ChatMessage]:
    return [ChatMessage(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(texts)]


def queue(store: Any) -> LlamaMemory:
    return LlamaMemory.from_defaults(
        session_id="s", chat_store=store, token_limit=40, token_flush_size=10, chat_history_token_ratio=0.5
    )


@takes_a_store
async def test_a_memory_goes_on_after_a_restart_and_keeps_what_left_its_queue(memory: Memory) -> None:
    told = said(*(f"{n}: the quick brown squirrel jumps" for n in range(12)))
    for message in told:
        await queue(DaramMemoryStore(memory, owner="ann")).aput(message)
    again = queue(DaramMemoryStore(memory, owner="ann"))
    shown = await again.aget()
    assert 0 < len(shown) < 6 and shown == told[-len(shown) :] and shown[0].role.value == "user"
    assert await again.aget_all() == told
    assert await again.aget_all(ARCHIVED) == told[: -len(shown)]
    assert [message.text for message in await memory.tail("ann", "s")] == [message.content for message in told]
    assert await queue(DaramMemoryStore(memory, owner="bob")).aget() == []
    await again.aset(said("one"))
    assert await again.aget() == await again.aget_all() == said("one")
    await again.areset()
    assert await again.aget_all() == []


async def test_the_queue_and_what_left_it(memory: Memory) -> None:
    store = DaramMemoryStore(memory, owner="ann")
    assert await store.get_messages("s") == await store.archive_oldest_messages("s", 2) == []
    told = said(*(str(n) for n in range(120)))
    await store.add_messages("s", told)
    assert await store.archive_oldest_messages("s", 2) == told[:2]
    assert await store.archive_oldest_messages("s", 1) == told[2:3]
    assert await store.get_messages("s") == told[3:]
    assert await store.get_messages("s", limit=2, offset=1) == told[4:6]
    assert await store.get_messages("s", ARCHIVED) == told[:3]
    counts = [await store.count_messages("s", status) for status in (MessageStatus.ACTIVE, ARCHIVED, None)]
    assert counts == [117, 3, 120]
    await memory.delete_message("ann", "s", (await memory.messages("ann", "s", limit=3)).items[2].id)  # by another door
    assert await store.get_messages("s") == told[3:]
    assert await store.get_messages("s", ARCHIVED) == told[:2]
    assert await store.delete_oldest_messages("s", -1) == []
    assert await store.delete_oldest_messages("s", 1) == told[3:4]
    assert await store.delete_message("s", 0) == told[0]
    await store.delete_messages("s", ARCHIVED)
    assert await store.get_messages("s", None) == await store.get_messages("s") == told[4:]
    await DaramChatStore(memory, owner="ann").aset_messages("s", told[:9])  # another door begins anew
    assert await store.get_messages("s") == told[:9]
    with pytest.raises(InvalidInput):
        await store.add_message("s", told[0], ARCHIVED)
    assert await store.get_keys() == ["s"]


async def test_what_those_who_archive_at_once_take_is_archived_and_nothing_else(memory: Memory) -> None:
    class Lossy(StoreWrapper):
        """Before the mark is set the first time somebody else is faster; then each reply is lost."""

        tries = 0

        async def put_record(self, *args: Any, **more: Any) -> Any:
            self.tries += 1
            if self.tries == 1:
                await other.archive_oldest_messages("s", 1)
            await super().put_record(*args, **more)
            raise OutcomeUnknown("the connection was cut behind the commit")

    other, told = DaramMemoryStore(memory, owner="ann"), said(*"abcdef")
    await other.add_messages("s", told)
    assert await DaramMemoryStore(Lossy(memory), owner="ann").archive_oldest_messages("s", 2) == told[:2]
    assert await other.get_messages("s") == told[2:]
    taken = await asyncio.gather(*(other.archive_oldest_messages("s", 1) for _ in range(3)))
    distinct = {message.content for messages in taken for message in messages} | {"a", "b"}
    assert {message.content for message in await other.get_messages("s", ARCHIVED)} == distinct
    assert await other.get_messages("s") == told[len(distinct) :]


async def test_a_list_that_is_refused_leaves_the_archive_as_it_was(memory: Memory) -> None:
    store, told = DaramMemoryStore(memory, owner="ann"), said(*"abc")
    await store.add_messages("s", told)
    await store.archive_oldest_messages("s", 2)
    with pytest.raises(InvalidInput):
        await store.set_messages("s", said(*(str(n) for n in range(1001))))
    assert await store.get_messages("s", ARCHIVED) == told[:2]
    assert await store.get_messages("s") == told[2:]


@pytest.mark.parametrize("where", ["load", "delete_record"])
async def test_a_replacing_that_is_cancelled_is_finished_first(memory: Memory, where: str) -> None:
    class Slow(StoreWrapper):
        async def load(self, *args: Any, **more: Any) -> Any:
            return await self._tell("load", await super().load(*args, **more))

        async def delete_record(self, *args: Any, **more: Any) -> Any:
            return await self._tell("delete_record", await super().delete_record(*args, **more))

        async def _tell(self, what: str, found: Any) -> Any:
            if what == where:
                here.set()
                await asyncio.sleep(0.05)
            return found

    here, store = asyncio.Event(), DaramMemoryStore(memory, owner="ann")
    await store.add_messages("s", said(*"abc"))
    await store.archive_oldest_messages("s", 2)
    replacing = asyncio.create_task(DaramMemoryStore(Slow(memory), owner="ann").set_messages("s", said(*"xy")))
    await here.wait()
    replacing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await replacing
    assert await store.get_messages("s", None) == await store.get_messages("s") == said(*"xy")
    assert (await memory.scan_records("ann", "llama_index.archived")).items == []


async def test_a_turn_costs_the_same_at_any_length(memory: Memory) -> None:
    class Counting(StoreWrapper):
        read = 0

        async def messages(self, *args: Any, **more: Any) -> Any:
            page = await super().messages(*args, **more)
            self.read += len(page.items)
            return page

    counting = Counting(memory)
    store = DaramMemoryStore(counting, owner="ann")
    await store.add_messages("s", said(*(str(n) for n in range(300))))
    await store.archive_oldest_messages("s", 290)
    counting.read = 0
    assert len(await store.get_messages("s")) == 10
    assert counting.read == 50


@takes_a_store
def test_synchronously(url: str) -> None:
    with sync.open(url) as memory:
        for text in ("one", "two"):
            queue(DaramMemoryStore(memory, owner="ann")).put(ChatMessage(role="user", content=text))
        assert [message.content for message in queue(DaramMemoryStore(memory, owner="ann")).get()] == ["one", "two"]
