"""Creating, reading, listing, changing, deleting conversations; their expiry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daram.errors import Conflict, Gone, InvalidInput, NotFound
from daram.model import Conversation, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, BEN, Suite, begin, pages, say, search, texts

PAST = datetime(2001, 1, 1, tzinfo=UTC)
FUTURE = datetime(2201, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)

_ON_A_MISSING_ONE: dict[str, Callable[[Store], Awaitable[object]]] = {
    "get": lambda s: s.get(ANN, "c"),
    "update": lambda s: s.update(ANN, "c", title="t"),
    "delete": lambda s: s.delete(ANN, "c"),
    "append": lambda s: s.append(ANN, "c", [user("late")]),
    "begin_turn": lambda s: s.begin_turn(ANN, "c", [user("late")]),
    "begin_turn of nothing": lambda s: s.begin_turn(ANN, "c", [], create=True),
    "tail": lambda s: s.tail(ANN, "c"),
    "messages": lambda s: s.messages(ANN, "c"),
    "message": lambda s: s.message(ANN, "c", "a"),
    "delete_message": lambda s: s.delete_message(ANN, "c", "a"),
    "branches": lambda s: s.branches(ANN, "c", "a"),
    "use_branch": lambda s: s.use_branch(ANN, "c", "a"),
    "cancel_turn": lambda s: s.cancel_turn(ANN, "c"),
    "answers": lambda s: s.answers(ANN, "c"),
}
_READS = sorted(set(_ON_A_MISSING_ONE) - {"append", "begin_turn", "begin_turn of nothing"})


async def _titles(store: Store, owner: str = ANN) -> list[str]:
    return [c.id for c in (await store.list(owner)).items]


class ConversationTests(Suite):
    async def test_create_returns_what_was_given(self, store: Store) -> None:
        made = await store.create(ANN, id="c", title="다람쥐", metadata={"k": "v"}, expires_at=FUTURE)
        assert (made.id, made.owner, made.title, made.metadata) == ("c", ANN, "다람쥐", {"k": "v"})
        assert made.expires_at == FUTURE
        assert (made.version, made.last_seq, made.head) == (0, 0, None)
        assert (made.pinned, made.archived) == (False, False)
        assert made.etag
        assert made.created_at.utcoffset() == timedelta(0)
        assert made.created_at == made.updated_at
        assert await store.get(ANN, "c") == made

    async def test_create_draws_an_id(self, store: Store) -> None:
        ids = {(await store.create(ANN)).id for _ in range(5)}
        assert len(ids) == 5
        assert set(await _titles(store)) == ids

    async def test_create_again_conflicts_and_changes_nothing(self, store: Store) -> None:
        made = await store.create(ANN, id="c", title="first")
        with pytest.raises(Conflict, match="'c'"):
            await store.create(ANN, id="c", title="second")
        assert await store.get(ANN, "c") == made

    @pytest.mark.parametrize("name", _ON_A_MISSING_ONE)
    async def test_a_missing_conversation_is_not_found(self, store: Store, name: str) -> None:
        with pytest.raises(NotFound) as caught:
            await _ON_A_MISSING_ONE[name](store)
        assert (caught.value.what, caught.value.id) == ("conversation", "c")
        assert type(caught.value) is NotFound
        assert await _titles(store) == []

    async def test_ids_and_owners_of_every_script_are_kept(self, store: Store) -> None:
        odd = [
            "다람쥐",
            "a/b?c=d&e%20",
            "x" * 256,
            "🐿️",
            "'; DROP TABLE message; --",
            "A",
            "a",
            " lead and trail ",
            "ﬁ",
            "fi",
        ]
        for id in odd:
            await store.append(id, id, [user(id, id="m")], create=True)
        for id in odd:
            assert texts(await store.tail(id, id)) == [id]
            assert await _titles(store, id) == [id]

    async def test_list_has_the_one_changed_last_first(self, store: Store) -> None:
        for id in "abc":
            await store.create(ANN, id=id)
        assert await _titles(store) == ["c", "b", "a"]
        await say(store, "x", id="a")
        assert await _titles(store) == ["a", "c", "b"]
        await begin(store, "y", id="b")
        assert await _titles(store) == ["b", "a", "c"]

    async def test_list_is_moved_by_messages_alone(self, store: Store) -> None:
        await say(store, "x", id="a")
        before = await say(store, "y", id="b")
        await store.update(ANN, "a", title="t")
        await store.use_branch(ANN, "a", "x")
        await store.delete_message(ANN, "a", "x")
        await store.append(ANN, "b", before.messages)  # a repetition
        assert await _titles(store) == ["b", "a"]
        first = await store.get(ANN, "a")
        assert first.updated_at < (await store.get(ANN, "b")).updated_at

    @pytest.mark.parametrize(("count", "limit"), [(0, 3), (1, 1), (6, 3), (7, 3), (5, 100)])
    async def test_list_pages(self, store: Store, count: int, limit: int) -> None:
        for i in range(count):
            await store.create(ANN, id=f"c{i}")
            await store.create(BEN, id=f"c{i}")
        found = await pages(lambda cursor: store.list(ANN, limit=limit, cursor=cursor))
        assert [c.id for page in found for c in page] == [f"c{i}" for i in reversed(range(count))]
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert len(found) == max(1, -(-count // limit))
        assert {c.owner for page in found for c in page} <= {ANN}

    async def test_list_goes_on_behind_its_cursor_while_others_are_made(self, store: Store) -> None:
        for i in range(6):
            await store.create(ANN, id=f"c{i}")
        page = await store.list(ANN, limit=2)
        await store.create(ANN, id="new")
        await say(store, "x", id="c5")  # was on the first page, stays above the cursor
        rest = await store.list(ANN, limit=10, cursor=page.next_cursor)
        assert [c.id for c in rest.items] == ["c3", "c2", "c1", "c0"]

    async def test_list_refuses_the_cursor_of_another(self, store: Store) -> None:
        for owner in (ANN, BEN):
            for i in range(3):
                await say(store, f"m{i}", id=f"c{i}", owner=owner)
        cursor = (await store.list(BEN, limit=1)).next_cursor
        with pytest.raises(InvalidInput, match="cursor"):
            await store.list(ANN, cursor=cursor)
        with pytest.raises(InvalidInput, match="cursor"):
            await store.messages(BEN, "c0", cursor=cursor)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("title", "new"),
            ("title", None),
            ("title", ""),
            ("metadata", {"b": "2", "c": "셋"}),
            ("metadata", {}),
            ("pinned", False),
            ("archived", True),
            ("expires_at", None),
            ("expires_at", FUTURE + timedelta(microseconds=1)),
        ],
    )
    async def test_update_changes_what_is_given(self, store: Store, field: str, value: Any) -> None:
        await store.create(ANN, id="c", title="old", metadata={"a": "1"}, expires_at=FUTURE)
        before = await store.update(ANN, "c", pinned=True)
        after = await store.update(ANN, "c", **{field: value})
        assert getattr(after, field) == value
        assert await store.get(ANN, "c") == after
        changed = {f for f in Conversation.__struct_fields__ if getattr(before, f) != getattr(after, f)}
        assert changed == {field, "version", "etag"}
        assert after.version == before.version + 1

    async def test_update_with_nothing_changes_nothing(self, store: Store) -> None:
        made = await store.create(ANN, id="c")
        assert await store.update(ANN, "c") == made

    async def test_every_change_raises_the_version_by_one_and_draws_an_etag(self, store: Store) -> None:
        seen = [await store.create(ANN, id="c")]

        async def after(work: Awaitable[object]) -> None:
            await work
            seen.append(await store.get(ANN, "c"))

        await after(say(store, "a"))
        await after(say(store, "b", "b2"))
        await after(say(store, "c", parent="a"))
        await after(store.use_branch(ANN, "c", "b"))
        await after(store.update(ANN, "c", title="t"))
        await after(store.delete_message(ANN, "c", "b2"))
        answer = await begin(store, "q")
        seen.append(await store.get(ANN, "c"))
        await after(store.finish_turn(ANN, "c", answer.id, answer.token, text="done"))
        assert [c.version for c in seen] == list(range(9))
        assert len({c.etag for c in seen}) == 9
        assert [c.last_seq for c in seen] == [0, 1, 3, 4, 4, 4, 4, 5, 6]

    async def test_what_a_caller_holds_is_not_what_is_stored(self, store: Store) -> None:
        metadata = {"k": "v"}
        made = await store.create(ANN, id="c", metadata=metadata)
        metadata["k"] = made.metadata["k"] = "changed"
        message = user("x", id="x", metadata={"k": "v"})
        done = await store.append(ANN, "c", [message])
        message.metadata["k"] = done.messages[0].metadata["k"] = "changed"
        (await store.tail(ANN, "c"))[0].metadata["k"] = "changed"
        assert (await store.get(ANN, "c")).metadata == {"k": "v"}
        assert (await store.message(ANN, "c", "x")).metadata == {"k": "v"}

    @pytest.mark.parametrize("name", _READS)
    async def test_a_deleted_conversation_is_not_found(self, store: Store, name: str) -> None:
        await begin(store, "a")
        await store.delete(ANN, "c")
        assert await _titles(store) == []
        assert await search(store, "a") == []
        with pytest.raises(NotFound) as caught:
            await _ON_A_MISSING_ONE[name](store)
        assert type(caught.value) is NotFound
        assert caught.value.what == "conversation"

    @pytest.mark.parametrize("create", [False, True])
    async def test_a_late_write_does_not_bring_a_deleted_conversation_back(self, store: Store, create: bool) -> None:
        done = await say(store, "a")
        await store.delete(ANN, "c")
        with pytest.raises(Gone) as caught:
            await store.append(ANN, "c", done.messages, create=create)
        assert (caught.value.what, caught.value.id) == ("conversation", "c")
        with pytest.raises(Gone):
            await store.begin_turn(ANN, "c", [user("b")], create=create)
        assert await _titles(store) == []

    async def test_a_deleted_conversation_made_again_starts_empty(self, store: Store) -> None:
        await store.create(ANN, id="c", title="old", metadata={"k": "v"})
        await say(store, "a", "b")
        await say(store, "x", parent="a")
        await store.delete_message(ANN, "c", "b")
        old = await store.get(ANN, "c")
        await store.delete(ANN, "c")
        made = await store.create(ANN, id="c")
        assert (made.version, made.last_seq, made.head, made.title, made.metadata) == (0, 0, None, None, {})
        assert made.etag != old.etag
        assert await store.tail(ANN, "c") == []
        done = await say(store, "b", "a")
        assert [m.seq for m in done.messages] == [1, 2]
        assert done.version == 1
        assert texts((await store.messages(ANN, "c")).items) == ["b", "a"]
        assert texts(await store.branches(ANN, "c", "a")) == ["a"]

    async def test_delete_owner_deletes_everything_of_one(self, store: Store) -> None:
        for i in range(3):
            await say(store, "squirrel", id=f"c{i}")
            await say(store, "squirrel", id=f"c{i}", owner=BEN)
        assert await store.delete_owner(ANN) == 3
        assert await store.delete_owner(ANN) == 0
        assert await _titles(store) == []
        assert await search(store, "squirrel") == []
        with pytest.raises(NotFound):
            await store.tail(ANN, "c0")
        with pytest.raises(Gone):
            await say(store, "late", id="c0")
        assert len(await _titles(store, BEN)) == 3
        assert len(await search(store, "squirrel", owner=BEN)) == 3

    async def test_delete_owner_takes_what_has_expired_too(self, store: Store) -> None:
        for i in range(2):
            await say(store, "squirrel", id=f"c{i}")
        await store.update(ANN, "c0", expires_at=PAST)
        assert await store.delete_owner(ANN) == 2
        assert await store.purge() == 0
        for i in range(2):
            with pytest.raises(Gone):
                await say(store, "late", id=f"c{i}")

    @pytest.mark.parametrize("name", _ON_A_MISSING_ONE)
    async def test_an_expired_conversation_is_not_found(self, store: Store, name: str) -> None:
        await begin(store, "a")
        await store.update(ANN, "c", expires_at=PAST)
        assert await _titles(store) == []
        assert await search(store, "a") == []
        with pytest.raises(NotFound) as caught:
            await _ON_A_MISSING_ONE[name](store)
        assert type(caught.value) is NotFound
        assert caught.value.what == "conversation"

    async def test_an_expired_conversation_can_be_made_again(self, store: Store) -> None:
        for id in "ab":
            await say(store, "old", "older", id=id)
            await store.update(ANN, id, expires_at=PAST)
        made = await store.create(ANN, id="a")
        assert (made.version, made.expires_at) == (0, None)
        done = await say(store, "old", id="b")
        assert (done.version, done.messages[0].seq) == (1, 1)
        assert texts(await store.tail(ANN, "b")) == ["old"]
        assert [hit.conversation for hit in await search(store, "older")] == []

    async def test_purge_deletes_the_expired_at_most_limit(self, store: Store) -> None:
        for i in range(5):
            await say(store, "x", id=f"c{i}")
            await store.update(ANN, f"c{i}", expires_at=PAST if i < 3 else FUTURE)
        await store.create(ANN, id="for good")
        assert await store.purge(limit=2) == 2
        assert await store.purge() == 1
        assert await store.purge() == 0
        assert set(await _titles(store)) == {"c3", "c4", "for good"}
        assert (await say(store, "anew", id="c0")).version == 1

    async def test_an_expiry_can_be_taken_back_in_time(self, store: Store) -> None:
        await store.create(ANN, id="c", expires_at=FUTURE)
        await store.update(ANN, "c", expires_at=None)
        assert (await store.get(ANN, "c")).expires_at is None
        assert await store.purge() == 0
