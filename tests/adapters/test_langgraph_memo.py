"""What a process remembers of LangGraph threads: that a turn need not read them again, and that it stays bounded."""

from __future__ import annotations

import time
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from tests.adapters.graphs import Chat, Watched, chat, nested, say

import daram
from daram.adapters.langgraph import DaramSaver
from daram.adapters.langgraph.recent import Recent
from daram.adapters.langgraph.records import Memo, Space


async def test_a_turn_with_a_subgraph_reads_no_more_than_one_without() -> None:
    def answer(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage("an answer")]}

    async with daram.open("memory://") as memory:
        looks = []
        for make in (chat, nested):
            store = Watched(memory)
            graph = make(DaramSaver(store, owner="ann"), answer)
            for turn in range(60):
                store.read = 0
                store.looked.clear()
                await say(graph, f"word {turn}", make.__name__)
                if turn in (9, 59):
                    looks.append((store.read, len(store.looked)))
        assert looks[0] == looks[1] and looks[2] == looks[3]
        # Of the subgraph itself: whether there is a checkpoint, and with each of its writes what was deleted.
        assert looks[3][0] <= looks[1][0] + 1 and looks[3][1] <= looks[1][1] + 6, looks


async def test_a_list_of_all_threads_holds_few_checkpoints_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daram.adapters.langgraph.saver._AT_ONCE", 20)
    async with daram.open("memory://") as memory:
        store = Watched(memory)
        saver = DaramSaver(store, owner="ann")
        for turn in range(20):
            await say(chat(saver), "word", f"t{turn % 10}")
        store.read = 0
        found = saver.alist(None)
        newest = await anext(found)
        assert store.read <= 10 + 10 * 2 + 10  # the threads, two checkpoints of each, the parts of one
        rest = [item.checkpoint["id"] async for item in found]
        assert len(rest) == 59 and [newest.checkpoint["id"], *rest] == sorted({newest.checkpoint["id"], *rest})[::-1]


def test_to_forget_a_thread_takes_no_look_at_the_others() -> None:
    memo = Memo()
    for n in range(20_000):
        memo.registered(Space("ann", f"t{n}", ""))
    begun = time.perf_counter()
    for n in range(1000):
        memo.is_gone(Space("ann", f"new {n}", ""))
    assert time.perf_counter() - begun < 0.5
    memo.registered(Space("ann", "t", ""))
    memo.registered(Space("ann", "t", "inner"))
    memo.is_gone(Space("ann", "t", "inner"))
    assert memo.knows(Space("ann", "t", "")) and not memo.knows(Space("ann", "t", "inner"))
    memo.is_gone(Space("ann", "t", ""))
    assert not memo.knows(Space("ann", "t", ""))


def test_what_was_not_used_for_longest_goes_first() -> None:
    recent: Recent[bytes] = Recent(10, len)
    for n in range(3):
        recent.keep(("ann", "t", n), bytes(3))
    assert recent.get(("ann", "t", 0)) == bytes(3)
    recent.keep(("bob", "t", 3), bytes(4))
    assert [recent.get(("ann", "t", n)) is not None for n in range(3)] == [True, False, True]
    recent.keep(("ann", "t", 0), bytes(1))
    recent.keep(("ann", "t", 4), bytes(2))
    assert recent.get(("ann", "t", 2)) is not None
    recent.forget("ann", "t")
    assert [recent.get(("ann", "t", n)) for n in range(5)] == [None] * 5
    recent.keep(("bob", "t", 5), bytes(6))
    assert recent.get(("bob", "t", 3)) == bytes(4)
    recent.keep(("bob", "t", 6), bytes(11))
    assert recent.get(("bob", "t", 6)) is None and recent.get(("bob", "t", 3)) == bytes(4)
