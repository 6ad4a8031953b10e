"""Reading a branch page by page: in both orders, across deletions and forks, while it grows."""

from __future__ import annotations

import pytest

from daram.errors import InvalidInput
from daram.store.base import Order, Store
from daram.testing.suite.base import ANN, Suite, pages, say, texts


async def _forked(store: Store) -> None:
    """a b c d e; a b x y z; a b x y w: the last one is in use."""
    await say(store, "a", "b", "c", "d", "e")
    await say(store, "x", "y", "z", parent="b")
    await say(store, "w", parent="y")


async def _read(store: Store, order: Order, limit: int) -> list[list[str]]:
    found = await pages(lambda cursor: store.messages(ANN, "c", limit=limit, cursor=cursor, order=order))
    return [texts(page) for page in found]


class PagingTests(Suite):
    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 1000])
    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_of_a_straight_conversation(self, store: Store, order: Order, limit: int) -> None:
        for i in range(7):
            await say(store, f"m{i}")
        expected = [f"m{i}" for i in range(7)]
        if order == "desc":
            expected.reverse()
        found = await _read(store, order, limit)
        assert [t for page in found for t in page] == expected
        assert len(found) == -(-7 // limit)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_an_empty_conversation_is_one_empty_page(self, store: Store, order: Order) -> None:
        await store.create(ANN, id="c")
        assert await _read(store, order, 5) == [[]]

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("leaf", ["e", "z", "w"])
    async def test_pages_of_each_branch(self, store: Store, leaf: str, order: Order, limit: int) -> None:
        await _forked(store)
        await store.use_branch(ANN, "c", leaf)
        expected = {"e": "abcde", "z": "abxyz", "w": "abxyw"}[leaf]
        if order == "desc":
            expected = expected[::-1]
        found = await _read(store, order, limit)
        assert "".join(t for page in found for t in page) == expected
        assert len(found) == -(-5 // limit)

    @pytest.mark.parametrize("limit", [1, 2, 3])
    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_step_over_the_deleted(self, store: Store, order: Order, limit: int) -> None:
        await _forked(store)
        for id in ("b", "x", "w"):
            await store.delete_message(ANN, "c", id)
        found = await _read(store, order, limit)
        assert "".join(t for page in found for t in page) == ("ay" if order == "asc" else "ya")
        assert len(found) == -(-2 // limit)

    async def test_what_is_appended_meanwhile_comes_on_later_pages(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        page = await store.messages(ANN, "c", limit=2)
        await say(store, "d")
        rest = await store.messages(ANN, "c", limit=9, cursor=page.next_cursor)
        assert texts(page.items + rest.items) == ["a", "b", "c", "d"]

    async def test_what_is_appended_meanwhile_does_not_disturb_the_way_back(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        page = await store.messages(ANN, "c", limit=2, order="desc")
        await say(store, "d")
        rest = await store.messages(ANN, "c", limit=9, cursor=page.next_cursor, order="desc")
        assert texts(page.items + rest.items) == ["c", "b", "a"]

    async def test_each_page_one_message_behind_a_growing_end(self, store: Store) -> None:
        await say(store, "m0", "m1")
        seen: list[str] = []
        cursor: str | None = None
        for i in range(2, 12):
            page = await store.messages(ANN, "c", limit=1, cursor=cursor)
            seen += texts(page.items)
            cursor = page.next_cursor
            assert cursor is not None
            await say(store, f"m{i}")
        assert seen == [f"m{i}" for i in range(10)]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_a_cursor_goes_on_along_its_branch(self, store: Store, order: Order) -> None:
        await _forked(store)
        page = await store.messages(ANN, "c", limit=3, order=order)
        await store.use_branch(ANN, "c", "e")
        rest = await store.messages(ANN, "c", limit=9, cursor=page.next_cursor, order=order)
        expected = list("abxyw") if order == "asc" else list("wyxba")
        assert texts(page.items + rest.items) == expected

    async def test_a_cursor_on_the_common_part_goes_on_along_the_branch_in_use(self, store: Store) -> None:
        await _forked(store)
        page = await store.messages(ANN, "c", limit=1)
        await store.use_branch(ANN, "c", "e")
        rest = await store.messages(ANN, "c", limit=9, cursor=page.next_cursor)
        assert texts(page.items + rest.items) == list("abcde")

    async def test_a_cursor_survives_an_edit_behind_it(self, store: Store) -> None:
        await say(store, "a", "b", "c", "d")
        page = await store.messages(ANN, "c", limit=2)
        await say(store, "x", "y", parent="b")
        rest = await store.messages(ANN, "c", limit=9, cursor=page.next_cursor)
        assert texts(page.items + rest.items) == list("abxy")

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_a_cursor_whose_message_was_deleted_still_holds(self, store: Store, order: Order) -> None:
        await say(store, "a", "b", "c", "d")
        page = await store.messages(ANN, "c", limit=2, order=order)
        await store.delete_message(ANN, "c", page.items[-1].id)
        rest = await store.messages(ANN, "c", limit=9, cursor=page.next_cursor, order=order)
        assert texts(page.items + rest.items) == (list("abcd") if order == "asc" else list("dcba"))

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_a_cursor_of_a_conversation_made_again_does_no_harm(self, store: Store, order: Order) -> None:
        await say(store, "a", "b", "c", "d")
        page = await store.messages(ANN, "c", limit=3, order=order)
        await store.delete(ANN, "c")
        await store.create(ANN, id="c")
        try:
            rest = await store.messages(ANN, "c", cursor=page.next_cursor, order=order)
        except InvalidInput as error:
            assert error.field == "cursor"
        else:
            assert rest.items == []
            assert rest.next_cursor is None

    async def test_cursors_of_other_lists_are_refused(self, store: Store) -> None:
        await say(store, "a", "b", "c", id="c1")
        await say(store, "a", "b", "c", id="c2")
        cursor = (await store.messages(ANN, "c1", limit=1)).next_cursor
        other = (await store.list(ANN, limit=1)).next_cursor
        assert cursor is not None
        assert other is not None
        for wrong in (cursor[:-2], cursor + "AA", "", "x", "é", "=" * 8, other):
            with pytest.raises(InvalidInput) as caught:
                await store.messages(ANN, "c1", cursor=wrong)
            assert caught.value.field == "cursor"
        with pytest.raises(InvalidInput, match="cursor"):
            await store.messages(ANN, "c2", cursor=cursor)
        with pytest.raises(InvalidInput, match="cursor"):
            await store.messages(ANN, "c1", cursor=cursor, order="desc")
        with pytest.raises(InvalidInput, match="cursor"):
            await store.list(ANN, cursor=cursor)
