"""Opening, closing, opening again; what ``describe`` says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from daram.errors import ConversationBusy, StoreClosed
from daram.model import ROOT, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, BEN, LONG, OpenMore, Suite, begin, exchange, finish, say, search, texts

_OPERATIONS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "create": lambda s: s.create(ANN),
    "get": lambda s: s.get(ANN, "c"),
    "list": lambda s: s.list(ANN),
    "update": lambda s: s.update(ANN, "c", title="t"),
    "delete": lambda s: s.delete(ANN, "c"),
    "delete_owner": lambda s: s.delete_owner(ANN),
    "purge": lambda s: s.purge(),
    "append": lambda s: s.append(ANN, "c", [user("x")]),
    "tail": lambda s: s.tail(ANN, "c"),
    "messages": lambda s: s.messages(ANN, "c"),
    "message": lambda s: s.message(ANN, "c", "a"),
    "delete_message": lambda s: s.delete_message(ANN, "c", "a"),
    "branches": lambda s: s.branches(ANN, "c", "a"),
    "use_branch": lambda s: s.use_branch(ANN, "c", "a"),
    "begin_turn": lambda s: s.begin_turn(ANN, "c", [user("x")]),
    "checkpoint": lambda s: s.checkpoint(ANN, "c", "a", "t", "x"),
    "finish_turn": lambda s: s.finish_turn(ANN, "c", "a", "t", text="x"),
    "cancel_turn": lambda s: s.cancel_turn(ANN, "c"),
    "answers": lambda s: s.answers(ANN, "c"),
    "recover": lambda s: s.recover(),
    "search": lambda s: s.search(ANN, "x"),
    "describe": lambda s: s.describe(),
}


async def _see(store: Store) -> list[object]:
    """All that both owners can see, running answers included."""
    seen: list[object] = []
    for owner in (ANN, BEN):
        listed = await store.list(owner)
        seen.append(listed)
        for conversation in listed.items:
            id = conversation.id
            found = await store.messages(owner, id, limit=1000)
            seen += [await store.get(owner, id), found, await store.answers(owner, id)]
            seen += [await store.branches(owner, id, m.id) for m in found.items]
        seen.append(sorted(hit.id for hit in await search(store, "squirrel", owner=owner)))
    return seen


class LifeTests(Suite):
    async def test_what_was_acknowledged_is_there_again(self, store: Store, open_more: OpenMore) -> None:
        await store.create(ANN, id="empty", title="다람쥐", metadata={"k": "v"})
        await say(store, "squirrel a", "b", "squirrel c")
        await say(store, "squirrel x", parent="b")
        await say(store, "y", parent=ROOT)
        await store.use_branch(ANN, "c", "squirrel c")
        await store.delete_message(ANN, "c", "squirrel a")
        await exchange(store, "q", "squirrel!", id="d")
        answer = await begin(store, "r", id="d")
        await store.checkpoint(ANN, "d", answer.id, answer.token, "half", lease=LONG)
        await store.update(ANN, "d", pinned=True, archived=True)
        await say(store, "squirrel of ben", owner=BEN)
        await say(store, "deleted squirrel", id="gone")
        await store.delete(ANN, "gone")
        before = await _see(store)
        await store.close()
        again = await open_more()
        assert await _see(again) == before
        assert (await again.use_branch(ANN, "c", "squirrel x")).head == "squirrel x"
        await finish(again, answer, "whole")
        assert texts(await again.tail(ANN, "d", 2)) == ["r", "whole"]

    async def test_several_handles_see_the_same(self, store: Store, open_more: OpenMore) -> None:
        other = await open_more()
        await say(store, "a")
        await say(other, "b")
        await say(store, "x", parent="a")
        await other.use_branch(ANN, "c", "b")
        await begin(store, "squirrel")
        with pytest.raises(ConversationBusy):
            await other.begin_turn(ANN, "c", [user("r")])
        assert await _see(store) == await _see(other)
        assert texts(await other.tail(ANN, "c")) == ["a", "b", "squirrel"]
        await store.close()
        await say(other, "c")
        assert texts(await other.tail(ANN, "c")) == ["a", "b", "squirrel", "c"]

    @pytest.mark.parametrize("name", _OPERATIONS)
    @pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
    async def test_a_closed_store_says_so(self, store: Store, name: str, used: bool) -> None:
        if used:
            await say(store, "a")
        await store.close()
        with pytest.raises(StoreClosed, match="open"):
            await _OPERATIONS[name](store)

    async def test_a_closed_store_refuses_records_too(self, store: Store) -> None:
        records = self.with_records(store)
        await records.put_record(ANN, "n", "k", b"v")
        await store.close()
        for call in (
            records.get_record(ANN, "n", "k"),
            records.put_record(ANN, "n", "k", b"v"),
            records.delete_record(ANN, "n", "k"),
            records.scan_records(ANN, "n"),
        ):
            with pytest.raises(StoreClosed):
                await call

    async def test_a_second_close_is_harmless(self, store: Store) -> None:
        await say(store, "a")
        for _ in range(3):
            await store.close()

    async def test_it_closes_at_the_end_of_a_block(self, tmp_path: Path) -> None:
        async with await self.open_store(tmp_path) as store:
            await say(store, "a")
        with pytest.raises(StoreClosed):
            await store.tail(ANN, "c")

    async def test_describe(self, store: Store) -> None:
        found = await store.describe()
        assert {"engine", "location", "durability", "schema"} <= set(found)
        for key, value in found.items():
            assert isinstance(key, str)
            assert isinstance(value, str)
            assert value
