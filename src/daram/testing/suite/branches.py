"""Branches: editing makes siblings, each keeps its own past, and the leaf last used is found again."""

from __future__ import annotations

import pytest

from daram.errors import NotFound
from daram.model import ROOT, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, Suite, names, say, texts


async def _tail(store: Store) -> str:
    return "".join(texts(await store.tail(ANN, "c", 100)))


class BranchTests(Suite):
    async def test_an_edit_opens_a_branch_and_uses_it(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        done = await store.append(ANN, "c", [user("x", id="x"), user("y", id="y")], parent="a", window=9)
        assert (done.version, done.parent) == (2, "a")
        assert [(m.id, m.seq, m.parent) for m in done.tail] == [("a", 1, None), ("x", 4, "a"), ("y", 5, "x")]
        assert await _tail(store) == "axy"
        assert (await store.get(ANN, "c")).head == "y"
        assert (await store.message(ANN, "c", "c")).parent == "b"

    async def test_the_first_message_can_be_edited(self, store: Store) -> None:
        await say(store, "a", "b")
        done = await store.append(ANN, "c", [user("x", id="x"), user("y", id="y")], parent=ROOT, window=9)
        assert done.parent is None
        assert [(m.id, m.seq, m.parent) for m in done.tail] == [("x", 3, None), ("y", 4, "x")]
        assert await _tail(store) == "xy"
        assert names(await store.branches(ANN, "c", "a")) == ["a", "x"]
        await store.use_branch(ANN, "c", "a")
        assert await _tail(store) == "ab"

    async def test_root_as_parent_begins_an_empty_conversation(self, store: Store) -> None:
        done = await store.append(ANN, "c", [user("a", id="a")], parent=ROOT, create=True)
        assert (done.version, done.parent) == (1, None)
        await say(store, "b", parent="a")
        assert await _tail(store) == "ab"

    async def test_the_head_as_parent_is_no_branch(self, store: Store) -> None:
        await say(store, "a")
        await say(store, "b", parent="a")
        await say(store, "c", parent="b")
        assert await _tail(store) == "abc"
        assert names(await store.branches(ANN, "c", "b")) == ["b"]

    async def test_branches_are_the_siblings_oldest_first(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await say(store, "x", "y", parent="a")
        await say(store, "z", parent="a")
        await say(store, "u", parent="b")
        for id in ("b", "x", "z"):
            found = await store.branches(ANN, "c", id)
            assert names(found) == ["b", "x", "z"]
            assert found[0] == await store.message(ANN, "c", "b")
        for id in ("c", "u"):
            assert names(await store.branches(ANN, "c", id)) == ["c", "u"]
        assert names(await store.branches(ANN, "c", "y")) == ["y"]
        assert names(await store.branches(ANN, "c", "a")) == ["a"]

    async def test_branches_leave_out_the_deleted(self, store: Store) -> None:
        await say(store, "a", "b")
        await say(store, "x", parent="a")
        await say(store, "y", parent="a")
        await store.delete_message(ANN, "c", "x")
        assert names(await store.branches(ANN, "c", "b")) == ["b", "y"]
        await store.delete_message(ANN, "c", "a")
        assert names(await store.branches(ANN, "c", "y")) == ["b", "y"]

    async def test_use_branch_switches(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await say(store, "x", "y", parent="a")
        before = await store.get(ANN, "c")
        after = await store.use_branch(ANN, "c", "b")
        assert after == await store.get(ANN, "c")
        assert (after.head, after.version, after.last_seq) == ("c", 3, 5)
        assert after.etag != before.etag
        assert after.updated_at == before.updated_at
        assert await _tail(store) == "abc"
        await say(store, "d")
        assert await _tail(store) == "abcd"
        assert (await store.use_branch(ANN, "c", "y")).head == "y"
        assert await _tail(store) == "axy"

    async def test_use_branch_of_the_branch_in_use(self, store: Store) -> None:
        await say(store, "a", "b")
        assert (await store.use_branch(ANN, "c", "a")).head == "b"
        await say(store, "x", parent="a")
        assert (await store.use_branch(ANN, "c", "a")).head == "x"
        assert (await store.use_branch(ANN, "c", "x")).head == "x"

    async def test_use_branch_goes_to_the_leaf_last_used_under_it(self, store: Store) -> None:
        await say(store, "a", "b", "c")  # abc, abd, abe, ax
        await say(store, "d", parent="b")
        await say(store, "e", parent="b")
        await say(store, "x", parent="a")
        assert (await store.use_branch(ANN, "c", "b")).head == "e"
        await store.use_branch(ANN, "c", "c")
        await store.use_branch(ANN, "c", "x")
        assert (await store.use_branch(ANN, "c", "b")).head == "c"
        await store.use_branch(ANN, "c", "d")
        await store.use_branch(ANN, "c", "x")
        assert (await store.use_branch(ANN, "c", "a")).head == "x"
        assert (await store.use_branch(ANN, "c", "b")).head == "d"

    async def test_the_first_branch_counts_as_used_before_the_second(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await say(store, "x", parent="b")
        await say(store, "y", parent="a")
        assert (await store.use_branch(ANN, "c", "b")).head == "x"

    async def test_nested_edits_keep_every_version(self, store: Store) -> None:
        await say(store, "a", "b", "c", "d")
        await say(store, "e", "f", parent="b")
        await say(store, "g", "h", parent="e")
        await say(store, "i", parent="g")
        await say(store, "j", parent=ROOT)
        await say(store, "k", parent="c")
        ends = {"d": "abcd", "f": "abef", "h": "abegh", "i": "abegi", "j": "j", "k": "abck"}
        assert await _tail(store) == ends["k"]
        for leaf, expected in ends.items():
            await store.use_branch(ANN, "c", leaf)
            assert await _tail(store) == expected
            assert texts(await store.tail(ANN, "c", 2)) == list(expected)[-2:]
        found = [await store.message(ANN, "c", id) for id in "abcdefghijk"]
        assert [m.seq for m in found] == list(range(1, 12))

    async def test_many_alternatives_of_one_message(self, store: Store) -> None:
        await say(store, "a", "b")
        for i in range(20):
            await say(store, f"x{i}", f"y{i}", parent="a")
        assert names(await store.branches(ANN, "c", "b")) == ["b", *(f"x{i}" for i in range(20))]
        await store.use_branch(ANN, "c", "x7")
        assert texts(await store.tail(ANN, "c")) == ["a", "x7", "y7"]

    async def test_deep_forks(self, store: Store) -> None:
        await say(store, "m0", "n0")
        for i in range(1, 40):  # each edit is one level deeper than the last
            await say(store, f"m{i}", f"n{i}", parent=f"m{i - 1}")
        expected = [*(f"m{i}" for i in range(40)), "n39"]
        assert texts(await store.tail(ANN, "c", 1000)) == expected
        assert texts(await store.tail(ANN, "c", 5)) == expected[-5:]
        assert texts((await store.messages(ANN, "c", limit=1000)).items) == expected
        await store.use_branch(ANN, "c", "n20")
        assert texts(await store.tail(ANN, "c", 3)) == ["m19", "m20", "n20"]

    async def test_deleting_where_branches_part(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await say(store, "x", parent="b")
        await store.delete_message(ANN, "c", "b")
        assert await _tail(store) == "ax"
        await store.use_branch(ANN, "c", "c")
        assert await _tail(store) == "ac"
        assert names(await store.branches(ANN, "c", "c")) == ["c", "x"]

    async def test_a_deleted_leaf_is_still_the_end_of_its_branch(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await say(store, "x", parent="a")
        await store.delete_message(ANN, "c", "c")
        assert (await store.use_branch(ANN, "c", "b")).head == "c"
        assert await _tail(store) == "ab"
        assert (await store.append(ANN, "c", [user("d", id="d")])).parent == "c"

    async def test_an_unknown_message_has_no_branches(self, store: Store) -> None:
        await say(store, "a")
        for call in (store.branches, store.use_branch):
            with pytest.raises(NotFound) as caught:
                await call(ANN, "c", "zz")
            assert (caught.value.what, caught.value.id) == ("message", "zz")
        assert (await store.get(ANN, "c")).version == 1
