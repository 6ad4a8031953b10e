"""P6: whose is whose. Another owner's id behaves exactly like an id that does not exist, error text included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from daram.errors import DaramError
from daram.model import ROOT, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, BEN, LONG, SHORT, Suite, begin, exchange, expire, say, search, texts

# Ann's conversation "c" holds the messages q, q! and r, and the running answer r!; here Ben asks for them.
_ASK: dict[str, Callable[[Store, str], Awaitable[object]]] = {
    "get": lambda s, token: s.get(BEN, "c"),
    "list": lambda s, token: s.list(BEN),
    "update": lambda s, token: s.update(BEN, "c", title="mine"),
    "update nothing": lambda s, token: s.update(BEN, "c"),
    "delete": lambda s, token: s.delete(BEN, "c"),
    "delete_owner": lambda s, token: s.delete_owner(BEN),
    "append": lambda s, token: s.append(BEN, "c", [user("x", id="x")]),
    "append a stored one": lambda s, token: s.append(BEN, "c", [user("q", id="q")]),
    "append behind": lambda s, token: s.append(BEN, "c", [user("x", id="x")], parent="q"),
    "append behind, create": lambda s, token: s.append(BEN, "c", [user("x", id="x")], parent="q", create=True),
    "append, expect, create": lambda s, token: s.append(BEN, "c", [user("x", id="x")], expect=3, create=True),
    "tail": lambda s, token: s.tail(BEN, "c"),
    "messages": lambda s, token: s.messages(BEN, "c"),
    "messages desc": lambda s, token: s.messages(BEN, "c", order="desc"),
    "message": lambda s, token: s.message(BEN, "c", "q"),
    "delete_message": lambda s, token: s.delete_message(BEN, "c", "q"),
    "branches": lambda s, token: s.branches(BEN, "c", "q"),
    "use_branch": lambda s, token: s.use_branch(BEN, "c", "q"),
    "begin_turn": lambda s, token: s.begin_turn(BEN, "c", [user("x", id="x")]),
    "begin_turn again": lambda s, token: s.begin_turn(BEN, "c", [user("q", id="q")]),
    "begin_turn anew": lambda s, token: s.begin_turn(BEN, "c", [], parent="q"),
    "checkpoint": lambda s, token: s.checkpoint(BEN, "c", "r!", token, "stolen"),
    "finish_turn": lambda s, token: s.finish_turn(BEN, "c", "r!", token, text="stolen"),
    "finish_turn again": lambda s, token: s.finish_turn(BEN, "c", "q!", token, text="q!"),
    "cancel_turn": lambda s, token: s.cancel_turn(BEN, "c"),
    "cancel_turn of one": lambda s, token: s.cancel_turn(BEN, "c", "r!"),
    "answers": lambda s, token: s.answers(BEN, "c"),
    "recover": lambda s, token: s.recover(owner=BEN, id="c"),
    "search": lambda s, token: s.search(BEN, "q"),
    "search in it": lambda s, token: s.search(BEN, "q", conversation="c"),
}


async def _outcome(store: Store, name: str, token: str) -> tuple[str, str, dict[str, Any]]:
    try:
        result = await _ASK[name](store, token)
    except DaramError as error:
        return type(error).__name__, str(error), {k: v for k, v in vars(error).items() if not k.startswith("__")}
    return "returned", repr(result), {}


async def _everything(store: Store) -> list[object]:
    """All that Ann can see."""
    return [
        await store.get(ANN, "c"),
        await store.messages(ANN, "c"),
        await store.answers(ANN, "c"),
        await store.branches(ANN, "c", "q"),
        await store.list(ANN),
    ]


class OwnerTests(Suite):
    @pytest.mark.parametrize("name", _ASK)
    async def test_anothers_is_as_if_it_were_not(self, store: Store, name: str) -> None:
        missing = await _outcome(store, name, "0" * 32)
        await exchange(store, "q")
        answer = await begin(store, "r")
        mine = await _everything(store)
        assert await _outcome(store, name, answer.token) == missing
        assert await _everything(store) == mine
        await store.delete(ANN, "c")
        assert await _outcome(store, name, answer.token) == missing

    async def test_recover_of_one_owner_leaves_the_late_answers_of_another(self, store: Store) -> None:
        await begin(store, "q", lease=SHORT)
        await expire()
        assert await store.recover(owner=BEN, id="c") == []
        assert len(await store.answers(ANN, "c")) == 1

    async def test_two_owners_use_the_same_ids(self, store: Store) -> None:
        for owner in (ANN, BEN):
            await store.create(owner, id="c", title=owner)
            await store.append(owner, "c", [user(f"of {owner}", id="m")])
            turn = await store.begin_turn(owner, "c", [user("q", id="q")], answer_id="q!", lease=LONG)
            assert turn.answer is not None
            await store.finish_turn(owner, "c", "q!", turn.answer.token, text=f"for {owner}")
        await store.append(ANN, "c", [user("x", id="x")], parent=ROOT)
        await store.delete_message(ANN, "c", "m")
        assert texts(await store.tail(BEN, "c")) == ["of ben", "q", "for ben"]
        await store.delete(ANN, "c")
        assert texts(await store.tail(BEN, "c")) == ["of ben", "q", "for ben"]
        assert (await store.get(BEN, "c")).title == BEN
        assert (await store.append(BEN, "c", [user("on")], create=True)).version == 4

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (("ab", "c"), ("a", "bc")),
            (("a:b", "c"), ("a", "b:c")),
            (("a/b", "c"), ("a", "b/c")),
            (("a|", "b"), ("a", "|b")),
            (("bob", "c"), ("Bob", "c")),
            (("é", "c"), ("e\u0301", "c")),
            (("a", "c"), ("a ", "c")),
            (("1", "c"), ("01", "c")),
        ],
    )
    async def test_look_alikes_are_apart(self, store: Store, one: tuple[str, str], other: tuple[str, str]) -> None:
        await store.append(*one, [user("one", id="m")], create=True)
        await store.append(*other, [user("other", id="m")], create=True)
        assert texts(await store.tail(*one)) == ["one"]
        assert texts(await store.tail(*other)) == ["other"]
        assert [h.text for h in await search(store, "one", owner=one[0])] == ["one"]
        assert await search(store, "other", owner=one[0]) == []

    async def test_a_value_tells_its_owner_alone(self, store: Store) -> None:
        await say(store, "secret of ann")
        for value in (await store.list(BEN), await search(store, "secret", owner=BEN), await store.recover()):
            assert b"ann" not in msgspec.json.encode(value)
