"""How much is read to open a thread and to list threads, with much or little beside the messages."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.chainlit_home import load_chainlit

import daram
from daram.memory import Memory
from daram.store.wrapper import StoreWrapper

load_chainlit()

from chainlit.context import init_http_context  # noqa: E402
from chainlit.element import Text  # noqa: E402
from chainlit.types import Feedback, Pagination, ThreadFilter  # noqa: E402
from chainlit.user import PersistedUser  # noqa: E402

from daram.adapters.chainlit import DaramDataLayer  # noqa: E402
from daram.adapters.chainlit import records as chainlit_records  # noqa: E402

READS = ("get", "list", "tail", "messages", "message", "answers", "get_record", "scan_records")
COUNTED = (*READS, "append", "put_record", "delete_record")
ALICE = PersistedUser(id="alice", identifier="alice", createdAt="2026-01-01T00:00:00Z", metadata={})


class Calls(StoreWrapper):
    """Counts the calls."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in COUNTED:
            self.calls[name] += 1
        return found


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call gives ten records, so that a small thread is a large one."""
    monkeypatch.setattr(chainlit_records, "_SCAN_ITEMS", 10)


def step(text: str, id: str, type: str, parent: str | None = None) -> Any:
    return {"id": id, "threadId": "t1", "parentId": parent, "type": type, "output": text, "name": id}


async def filled(memory: Memory, turns: int) -> DaramDataLayer:
    """A thread whose turns have a run, a tool and one within it each; every third answer an element."""
    layer = DaramDataLayer(memory)
    init_http_context(thread_id="t1", user=ALICE)
    await memory.create("alice", id="t1", title="t")

    async def beside(n: int) -> None:
        await layer.create_step(step("", f"r{n}", "run", f"q{n}"))
        await layer.create_step(step("rain", f"tool{n}", "tool", f"r{n}"))
        await layer.create_step(step("inner", f"inner{n}", "tool", f"tool{n}"))
        if n % 3 == 0:
            element = Text(thread_id="t1", id=f"e{n}", name="note", content=f"words {n}", for_id=f"a{n}")
            await layer.create_element(element)
            await layer.upsert_feedback(Feedback(forId=f"a{n}", value=1 if n % 2 else 0, threadId="t1"))

    for n in range(turns):
        await layer.create_step(step(f"ask {n}", f"q{n}", "user_message"))
        await layer.create_step(step(f"say {n}", f"a{n}", "assistant_message", f"r{n}"))
    await asyncio.gather(*map(beside, range(turns)))
    return layer


def seen(thread: Any, turns: range) -> None:
    """That this thread shows those turns, each with all that belongs to it."""
    assert [s["id"] for s in thread["steps"]] == [
        f"{kind}{n}" for n in turns for kind in ("q", "r", "tool", "inner", "a")
    ]
    given = {s["id"]: s["feedback"]["value"] for s in thread["steps"] if "feedback" in s}
    assert given == {f"a{n}": n % 2 for n in turns if n % 3 == 0}
    elements = {element["id"]: element["url"] for element in thread["elements"]}
    assert sorted(elements) == sorted(f"e{n}" for n in turns if n % 3 == 0)
    assert all(url.startswith("data:") for url in elements.values())


async def test_a_thread_is_opened_by_a_handful_of_calls(memory: Memory) -> None:
    await filled(memory, 40)
    store = Calls(memory)
    seen(await DaramDataLayer(store).get_thread("t1"), range(40))
    assert store.calls.pop("get_record") == 1 + 14  # what the session was set to, and the contents
    assert store.calls == {"get": 1, "tail": 1, "scan_records": 4}


async def test_a_thread_with_more_than_one_call_gives_is_shown_whole(memory: Memory, few: None) -> None:
    layer = await filled(memory, 12)
    seen(await layer.get_thread("t1"), range(12))
    seen(await DaramDataLayer(memory, history=8).get_thread("t1"), range(8, 12))
    await layer.delete_element("e9")
    assert len((await memory.scan_records("alice", chainlit_records.ELEMENT_OF)).items) == 3
    await layer.delete_thread("t1")
    for namespace in chainlit_records.OF_A_THREAD:
        assert (await memory.scan_records("alice", namespace)).items == [], namespace


async def test_what_a_turn_costs_does_not_grow(memory: Memory) -> None:
    await filled(memory, 10)
    store = Calls(memory)
    layer = DaramDataLayer(store)
    await layer.create_step(step("ask", "q", "user_message"))
    assert store.calls == {"append": 1, "put_record": 1}
    store.calls.clear()
    await layer.create_step(step("say", "a", "assistant_message", "r"))
    assert store.calls == {"answers": 1, "append": 1, "put_record": 1}
    store.calls.clear()
    await layer.update_step(step("said", "a", "assistant_message", "r"))
    assert store.calls == {"message": 1, "delete_record": 1, "put_record": 1}


async def rated(memory: Memory, threads: int) -> None:
    layer = DaramDataLayer(memory)
    init_http_context(user=ALICE)
    for n in range(threads):
        await memory.append("alice", f"t{n}", [daram.user(f"thread {n}", id="m")], create=True)
        if n % 5 == 0:
            await layer.upsert_feedback(Feedback(forId="m", value=1, threadId=f"t{n}"))
            await layer.upsert_feedback(Feedback(forId="m", value=n % 2, threadId=f"t{n}"))


async def listed(layer: DaramDataLayer, value: Any) -> list[str]:
    found, cursor = [], None
    while True:
        page = await layer.list_threads(
            Pagination(first=20, cursor=cursor), ThreadFilter(userId="alice", feedback=value)
        )
        found += [thread["id"] for thread in page.data]
        cursor = page.pageInfo.endCursor
        if not page.pageInfo.hasNextPage:
            return found


async def test_a_list_by_opinion_asks_for_the_opinions_once(memory: Memory) -> None:
    await rated(memory, 110)
    store = Calls(memory)
    layer = DaramDataLayer(store)
    for value in (0, 1):
        assert await listed(layer, value) == [f"t{n}" for n in reversed(range(110)) if n % 5 == 0 and n % 2 == value]
    # By value one call for the opinions and two for the threads; each that is shown is named by its first message.
    assert store.calls == {"scan_records": 2, "list": 4, "messages": 22}


async def test_a_list_by_more_opinions_than_one_call_gives(memory: Memory, few: None) -> None:
    await rated(memory, 110)
    layer = DaramDataLayer(memory)
    assert await listed(layer, 1) == [f"t{n}" for n in reversed(range(110)) if n % 10 == 5]
    assert await listed(layer, 0) == [f"t{n}" for n in reversed(range(110)) if n % 10 == 0]


class Bytes(StoreWrapper):
    """Counts what is scanned."""

    scanned = 0

    async def scan_records(self, *args: Any, **kwargs: Any) -> Any:
        page = await self._records().scan_records(*args, **kwargs)
        self.scanned += sum(len(record.value) for record in page.items)
        return page


async def test_deleting_a_thread_does_not_read_its_files(memory: Memory) -> None:
    store = Bytes(memory)
    layer = DaramDataLayer(store)
    init_http_context(thread_id="t1", user=ALICE)
    await layer.create_step(step("see below", "a", "assistant_message"))
    for n in range(6):
        await layer.create_element(Text(thread_id="t1", id=f"e{n}", name="note", content="x" * 100_000, for_id="a"))
    await memory.put_record("alice", chainlit_records.CONTENT, "t1/cut-off", b"whose element was not stored any more")
    await layer.delete_thread("t1")
    assert store.scanned < 20_000
    for namespace in chainlit_records.OF_A_THREAD:
        assert (await memory.scan_records("alice", namespace)).items == [], namespace
