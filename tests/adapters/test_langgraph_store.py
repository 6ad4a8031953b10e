"""LangGraph's long-term store on every engine, beside the framework's own in memory."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from langgraph.store.base import ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from tests.adapters.graphs import Watched

import daram
from daram import sync
from daram.adapters.langgraph import DaramStore
from daram.adapters.langgraph.store import _ITEM
from daram.errors import InvalidInput, TooLarge, Unsupported
from daram.memory import Memory

WORDS = ("squirrel", "tuna", "forest", "sea")


def embed(texts: list[str]) -> list[list[float]]:
    """How often each of four words is there."""
    return [[text.count(word) + 0.01 for word in WORDS] for text in texts]


INDEX: Any = {"dims": len(WORDS), "embed": embed, "fields": ["text", "notes[*]"]}


@pytest.fixture
def both(memory: Memory) -> list[Any]:
    return [DaramStore(memory, owner="ann", index=INDEX), InMemoryStore(index=INDEX)]


def plain(found: Any) -> list[Any]:
    return [(item.namespace, item.key, item.value, item.score and round(item.score, 4)) for item in found]


async def fill(store: Any) -> None:
    await store.aput(("ann", "facts"), "a", {"text": "a squirrel in the forest", "n": 1})
    await store.aput(("ann", "facts"), "b", {"text": "a tuna in the sea", "n": 2, "deep": {"er": [1, {"x": None}]}})
    await store.aput(
        ("ann", "facts", "old"), "c", {"text": "the sea", "notes": ["squirrel", "squirrel squirrel"], "n": 3}
    )
    await store.aput(("ann2", "facts"), "다람쥐/100%", {"text": "forest", "n": 4})
    await store.aput(("ann",), "plain", {"n": 5}, index=False)


async def test_as_the_frameworks_own(both: list[Any]) -> None:
    ours, theirs = both
    for store in both:
        await fill(store)
    for key in ("a", "b", "nothing"):
        a, b = [await store.aget(("ann", "facts"), key) for store in both]
        assert (a and a.value) == (b and b.value)
    for asked in (
        {"query": "squirrel"},
        {"query": "squirrel", "limit": 1, "offset": 1},
        {"filter": {"n": {"$gte": 2, "$lt": 5}}},
        {"filter": {"n": 2}},
        {"filter": {"deep": {"er": [1, {"x": None}]}}},
        {"filter": {"deep": {"er": (1, {"x": {"$eq": None}})}}},
        {"query": "sea", "filter": {"n": {"$ne": 3}}},
    ):
        a, b = [plain(await store.asearch(("ann",), limit=asked.get("limit", 10), **_rest(asked))) for store in both]
        assert sorted(a, key=repr) == sorted(b, key=repr), asked
        if "query" in asked:
            assert a[0] == b[0]
    assert [item.key for item in await ours.asearch(("ann2",))] == ["다람쥐/100%"]
    for asked in ({}, {"prefix": ("ann",)}, {"suffix": ("facts",)}, {"max_depth": 1}, {"prefix": ("*", "facts")}):
        assert await ours.alist_namespaces(**asked) == await theirs.alist_namespaces(**asked), asked
    assert await ours.alist_namespaces(limit=1, offset=1) == await theirs.alist_namespaces(limit=1, offset=1)
    for store in both:
        await store.adelete(("ann", "facts"), "a")
        assert await store.aget(("ann", "facts"), "a") is None


async def test_namespaces_are_found_without_a_look_at_all_items(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "a|a b|a b c|a b d|a b!|a-b|a!|a0 b|a/b|ab b|다람쥐 b|100%|b a b|b \U0010ffff|b 0|b |b"
    places = [tuple(name.split(" ")) for name in names.split("|")]
    watched = Watched(memory)
    ours, theirs = DaramStore(watched, owner="ann"), InMemoryStore()
    for store in (ours, theirs):
        await store.abatch(
            [PutOp(place, f"k{n}", {}) for place in places for n in range(40 if place[-1] == "b" else 1)]
        )
    matches = [(), (MatchCondition("prefix", ("a",)),), (MatchCondition("prefix", ("a", "*", "c")),)]
    matches += [
        (MatchCondition("suffix", ("b",)),),
        (MatchCondition("prefix", ("b",)), MatchCondition("suffix", ("b",))),
    ]
    for page in (1, 2, 7, 100):
        monkeypatch.setattr("daram.adapters.langgraph.store._NAMESPACES_PAGE", page)
        for match in matches:
            for depth in (None, 0, 1, 2):
                for limit, offset in ((100, 0), (3, 2)):
                    op = ListNamespacesOp(match, depth, limit, offset)
                    assert await ours.abatch([op]) == await theirs.abatch([op]), (page, op)
        watched.read = 0
        await ours.alist_namespaces(max_depth=1)
        assert watched.read <= 9 * page  # there are nine first labels
        watched.read = 0
        await ours.alist_namespaces()
        assert watched.read <= len(places) * page


def _rest(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name != "limit"}


@pytest.mark.parametrize("has_numpy", [True, False])
async def test_the_nearest_of_many_pages_are_found(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, has_numpy: bool
) -> None:
    if not has_numpy:
        monkeypatch.setitem(sys.modules, "numpy", None)
    store = DaramStore(memory, owner="ann", index=INDEX)
    puts = [PutOp(("a",), f"{n:03}", {"text": "sea " * (n % 7) + "tuna " * (9 * (n == 417))}) for n in range(450)]
    await store.abatch(puts)
    found = await store.asearch(("a",), query="tuna", limit=3)
    assert found[0].key == "417"
    assert [item.score for item in found] == sorted([item.score for item in found], reverse=True)
    pages = [await store.asearch(("a",), query="sea", limit=200, offset=start) for start in (0, 200, 400)]
    assert len({item.key for page in pages for item in page}) == 450
    equal = [item.key for item in await store.asearch(("a",), query="sea", limit=60)]
    assert equal == sorted(equal)  # all say "sea" six times: they stand in the order of their keys, whatever page
    assert len(await store.asearch(("a",), limit=450)) == 450
    assert [item.key for item in await store.asearch(("a",), limit=2, offset=3)] == ["003", "004"]


async def test_vectors_of_an_embedding_that_was_used_before_are_not_compared(memory: Memory) -> None:
    await fill(DaramStore(memory, owner="ann", index={"dims": 2, "embed": lambda texts: [[1.0, 0.0] for _ in texts]}))
    store = DaramStore(memory, owner="ann", index=INDEX)
    await store.aput(("ann", "facts"), "new", {"text": "tuna"})
    found = await store.asearch(("ann",), query="tuna")
    assert found[0].key == "new" and found[0].score == pytest.approx(1, abs=0.01)
    assert {item.score for item in found[1:]} == {None}


async def test_an_item_that_is_written_again_keeps_its_beginning(memory: Memory) -> None:
    store = DaramStore(memory, owner="ann")
    await store.aput(("a",), "k", {"n": 1})
    first = await store.aget(("a",), "k")
    await store.aput(("a",), "k", {"n": 2})
    second = await store.aget(("a",), "k")
    assert first is not None and second is not None
    assert second.value == {"n": 2}
    assert second.created_at == first.created_at < second.updated_at
    assert await DaramStore(memory, owner="bob").aget(("a",), "k") is None
    assert await DaramStore(memory, owner="bob").asearch(("a",)) == []


async def test_a_batch_reads_before_it_writes(memory: Memory) -> None:
    store = DaramStore(memory, owner="ann")
    results = await store.abatch(
        [
            PutOp(("a",), "k", {"n": 1}),
            SearchOp(("a",)),
            PutOp(("a",), "k", {"n": 2}),
            ListNamespacesOp((MatchCondition("prefix", ("a",)),)),
        ]
    )
    assert results == [None, [], None, []]
    found = await store.aget(("a",), "k")
    assert found is not None and found.value == {"n": 2}


async def test_items_live_for_their_time_and_longer_when_read(memory: Memory) -> None:
    store = DaramStore(memory, owner="ann", ttl={"default_ttl": 60, "refresh_on_read": True})
    await store.aput(("a",), "k", {"n": 1})
    await store.aput(("a",), "short", {"n": 2}, ttl=0.0001)
    await store.aput(("a",), "forever", {"n": 3}, ttl=None)

    async def ends() -> dict[str, Any]:
        return {r.key: r.expires_at for r in (await memory.scan_records("ann", _ITEM)).items}

    before = await ends()
    async with asyncio.timeout(60):
        while await store.aget(("a",), "short", refresh_ttl=False) is not None:
            await asyncio.sleep(0.01)
    assert {item.key for item in await store.asearch(("a",), refresh_ttl=False)} == {"k", "forever"}
    assert (await ends())["a//k"] == before["a//k"]
    await store.aget(("a",), "k")
    after = await ends()
    assert after["a//k"] > before["a//k"]
    assert after["a//forever"] is None


async def test_what_cannot_be_kept_is_said(memory: Memory) -> None:
    store = DaramStore(memory, owner="ann")
    with pytest.raises(InvalidInput, match="value"):
        await store.aput(("a",), "k", {"x": object()})
    with pytest.raises(InvalidInput, match="value"):
        await store.aput(("a",), "k", {"x": 2**70})
    with pytest.raises(TooLarge):
        await store.aput(("a",), "k" * 600, {})
    await store.aput(("a",), "k", {"n": 1})
    with pytest.raises(InvalidInput, match=r"\$near"):
        await store.asearch(("a",), filter={"n": {"$near": 1}})
    with pytest.raises(InvalidInput, match="limit"):
        await store.asearch(("a",), limit=-1)
    with pytest.raises(Unsupported):
        DaramStore(object(), owner="ann")  # type: ignore[arg-type]


def test_the_synchronous_face() -> None:
    with sync.open("memory://") as memory:
        store = DaramStore(memory, owner="ann", index=INDEX)
        store.put(("a",), "k", {"text": "tuna"})
        found = store.get(("a",), "k")
        assert found is not None and found.value == {"text": "tuna"}
        assert [item.key for item in store.search(("a",), query="tuna")] == ["k"]
        assert store.list_namespaces() == [("a",)]


async def test_inside_a_graph() -> None:
    from langgraph.config import get_store
    from langgraph.graph import START, StateGraph

    async def remember(state: dict[str, str]) -> dict[str, str]:
        await get_store().aput(("facts",), "k", {"text": state["text"]})
        return {"text": "done"}

    async with daram.open("memory://") as memory:
        builder = StateGraph(dict)
        builder.add_node("remember", remember)
        builder.add_edge(START, "remember")
        graph = builder.compile(store=DaramStore(memory, owner="ann"))
        await graph.ainvoke({"text": "a squirrel"})
        found = await DaramStore(memory, owner="ann").aget(("facts",), "k")
        assert found is not None and found.value == {"text": "a squirrel"}
