"""Appending, reading and deleting messages on one branch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from daram.errors import Conflict, Gone, NotFound
from daram.model import Message, Part, Role, assistant, system, tool, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, RawMessage, Suite, names, say, search, texts

_FULL = Message(
    id="full",
    role="assistant",
    text="다람쥐 🐿️ = \u202etuna\u202c, e\u0301 ≠ é\r\n\ttab",
    parts=(
        Part(type="tool_call", id="p1", data={"call_id": "1", "name": "f", "arguments": '{"x": [1, 2.5, null]}'}),
        Part(type="image", data={"url": "file:x", "size": [640, 480], "deep": {"a": [True, None, -1, 1 << 63, 0.1]}}),
        Part(type="citation"),
    ),
    status="incomplete",
    model="m-1.5",
    tokens=12,
    usage={"input_tokens": 3, "output_tokens": 9},
    metadata={"k": "v", "키": "값 \n"},
    created_at=datetime(2020, 2, 29, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=9))),
)


class MessageTests(Suite):
    async def test_append_says_what_it_did(self, store: Store) -> None:
        made = await store.create(ANN, id="c")
        done = await store.append(ANN, "c", [user("a", id="a"), assistant("b", id="b")], window=10)
        assert (done.conversation, done.version, done.previous_etag) == ("c", 1, made.etag)
        assert done.etag not in (made.etag, "")
        assert done.parent is None
        assert [(m.id, m.role, m.text, m.seq, m.parent) for m in done.messages] == [
            ("a", "user", "a", 1, None),
            ("b", "assistant", "b", 2, "a"),
        ]
        assert done.tail == done.messages
        again = await store.append(ANN, "c", [user("c", id="c")], window=2)
        assert (again.version, again.previous_etag, again.parent) == (2, done.etag, "b")
        assert [(m.seq, m.parent) for m in again.messages] == [(3, "b")]
        assert again.tail == [done.messages[1], *again.messages]
        now = await store.get(ANN, "c")
        assert (now.version, now.etag, now.head, now.last_seq) == (2, again.etag, "c", 3)
        assert now.created_at == made.created_at
        assert now.updated_at > made.updated_at

    async def test_append_stores_what_it_says(self, store: Store, tmp_path: Path) -> None:
        await store.append(ANN, "c", [user("a", id="a"), assistant("b", id="b")], create=True)
        await store.append(ANN, "c", [user("다람쥐", id="x")], parent="a")
        await store.append(ANN, "c", [system("y", id="y")])
        assert await self.raw(tmp_path, ANN, "c") == [
            RawMessage(1, "a", None, "user", "a"),
            RawMessage(2, "b", "a", "assistant", "b"),
            RawMessage(3, "x", "a", "user", "다람쥐"),
            RawMessage(4, "y", "x", "system", "y"),
        ]

    async def test_append_makes_the_conversation_only_where_it_may(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.append(ANN, "c", [user("a")])
        done = await store.append(ANN, "c", [user("a")], create=True)
        assert done.version == 1
        assert done.previous_etag not in ("", done.etag)
        assert (await store.append(ANN, "c", [user("b")], create=True)).version == 2
        assert (await store.get(ANN, "c")).title is None

    @pytest.mark.parametrize("role", get_args(Role))
    async def test_every_role_is_kept(self, store: Store, role: Role) -> None:
        await store.append(ANN, "c", [Message(id="m", role=role, text="x")], create=True)
        assert (await store.message(ANN, "c", "m")).role == role

    async def test_every_field_is_kept(self, store: Store) -> None:
        done = await store.append(ANN, "c", [_FULL, tool("42", call_id="1", id="t")], create=True, window=2)
        assert _FULL.created_at is not None
        expected = msgspec.structs.replace(_FULL, seq=1, created_at=_FULL.created_at.astimezone(UTC))
        assert done.messages[0] == done.tail[0] == expected
        assert await store.message(ANN, "c", "full") == expected
        assert (await store.tail(ANN, "c"))[0] == expected
        assert (await store.messages(ANN, "c")).items[0] == expected
        result = await store.message(ANN, "c", "t")
        assert result.parts == (Part(type="tool_result", data={"call_id": "1", "output": "42"}),)

    @pytest.mark.parametrize(
        "text",
        ["x" * 1_000_000, "가" * 300_000, "\x01\x7f\ufeff\uffff", "🐿" * 1000, "\n", "'\"\\%_", "{}", "\u2028 \x85"],
        ids=["long", "long Korean", "controls", "astral", "newline", "quotes", "braces", "separators"],
    )
    async def test_every_text_is_kept(self, store: Store, text: str) -> None:
        await store.append(ANN, "c", [user(text, id="m")], create=True)
        assert (await store.message(ANN, "c", "m")).text == text

    async def test_a_message_without_text_is_kept(self, store: Store) -> None:
        call = assistant("", id="m", parts=[Part(type="tool_call", data={"call_id": "1"})])
        await store.append(ANN, "c", [call, assistant("", id="n")], create=True)
        assert [(m.text, m.parts) for m in await store.tail(ANN, "c")] == [("", call.parts), ("", ())]

    async def test_the_store_gives_the_time_in_utc(self, store: Store) -> None:
        done = await say(store, "a", "b")
        for m in done.messages:
            assert m.created_at is not None
            assert m.created_at.utcoffset() == timedelta(0)

    @pytest.mark.parametrize("window", [0, 1, 2, 3, 5, 1000])
    async def test_window_is_the_tail_with_the_new_ones(self, store: Store, window: int) -> None:
        await say(store, "a", "b")
        done = await store.append(ANN, "c", [user("c", id="c"), user("d", id="d")], window=window)
        expected = ["a", "b", "c", "d"][-window:] if window else []
        assert texts(done.tail) == expected
        if window:
            assert done.tail == await store.tail(ANN, "c", window)

    async def test_tail_is_the_last_ones_oldest_first(self, store: Store) -> None:
        await store.create(ANN, id="c")
        assert await store.tail(ANN, "c") == []
        for i in range(30):
            await say(store, f"m{i}")
        assert texts(await store.tail(ANN, "c")) == [f"m{i}" for i in range(10, 30)]
        assert texts(await store.tail(ANN, "c", 1)) == ["m29"]
        assert texts(await store.tail(ANN, "c", 30)) == texts(await store.tail(ANN, "c", 1000))

    async def test_a_long_conversation_is_all_there(self, store: Store) -> None:
        for i in range(5):
            await say(store, *(f"m{i * 100 + j}" for j in range(100)))
        found = (await store.messages(ANN, "c", limit=1000)).items
        assert texts(found) == [f"m{i}" for i in range(500)]
        assert [m.seq for m in found] == list(range(1, 501))
        assert [m.parent for m in found] == [None, *(m.id for m in found[:-1])]

    @pytest.mark.parametrize("kind", ["version", "etag"])
    async def test_expect_met(self, store: Store, kind: str) -> None:
        await say(store, "a")
        now = await store.get(ANN, "c")
        done = await store.append(ANN, "c", [user("b")], expect=now.version if kind == "version" else now.etag)
        assert done.version == 2

    @pytest.mark.parametrize("expect", [0, 2, -1, 1 << 70, "0000000000000000", "1"])
    async def test_expect_not_met_conflicts_and_changes_nothing(self, store: Store, expect: int | str) -> None:
        await say(store, "a")
        now = await store.get(ANN, "c")
        with pytest.raises(Conflict):
            await store.append(ANN, "c", [user("b", id="b")], expect=expect)
        with pytest.raises(Conflict):
            await store.begin_turn(ANN, "c", [user("b", id="b")], expect=expect)
        with pytest.raises(Conflict):
            await store.begin_turn(ANN, "c", [], expect=expect)
        assert await store.get(ANN, "c") == now
        assert texts(await store.tail(ANN, "c")) == ["a"]
        assert await store.answers(ANN, "c") == []

    @pytest.mark.parametrize("wrong", [{"expect": 1}, {"expect": "x"}, {"parent": "m"}])
    async def test_a_refused_append_does_not_make_the_conversation(self, store: Store, wrong: dict[str, Any]) -> None:
        with pytest.raises((Conflict, NotFound)):
            await store.append(ANN, "c", [user("a")], create=True, **wrong)
        with pytest.raises((Conflict, NotFound)):
            await store.begin_turn(ANN, "c", [user("a")], create=True, **wrong)
        with pytest.raises(NotFound):
            await store.get(ANN, "c")
        assert (await store.append(ANN, "c", [user("a")], create=True, expect=0)).version == 1

    async def test_message_of_another_conversation_is_not_found(self, store: Store) -> None:
        await say(store, "a", id="c1")
        await say(store, "b", id="c2")
        with pytest.raises(NotFound) as caught:
            await store.message(ANN, "c1", "b")
        assert (caught.value.what, caught.value.id) == ("message", "b")
        with pytest.raises(NotFound, match="message"):
            await store.append(ANN, "c1", [user("x")], parent="b")

    async def test_the_same_message_id_in_two_conversations(self, store: Store) -> None:
        await store.append(ANN, "c1", [user("one", id="m")], create=True)
        await store.append(ANN, "c2", [user("two", id="m")], create=True)
        await store.delete_message(ANN, "c1", "m")
        assert texts(await store.tail(ANN, "c2")) == ["two"]

    @pytest.mark.parametrize("victim", ["a", "b", "c"])
    async def test_a_deleted_message_is_gone_everywhere(self, store: Store, victim: str) -> None:
        batch = [user(f"squirrel {w}", id=w, metadata={"k": "v"}) for w in "abc"]
        await store.append(ANN, "c", batch, create=True)
        before = await store.get(ANN, "c")
        after = await store.delete_message(ANN, "c", victim)
        assert after == await store.get(ANN, "c")
        assert (after.version, after.last_seq, after.updated_at) == (2, 3, before.updated_at)
        rest = [w for w in "abc" if w != victim]
        assert names(await store.tail(ANN, "c")) == rest
        assert names(await store.tail(ANN, "c", 2)) == rest
        assert names((await store.messages(ANN, "c")).items) == rest
        assert names((await store.messages(ANN, "c", order="desc")).items) == rest[::-1]
        assert sorted(hit.id for hit in await search(store, "squirrel")) == rest
        for call in (store.message, store.delete_message, store.branches, store.use_branch):
            with pytest.raises(NotFound) as caught:
                await call(ANN, "c", victim)
            assert caught.value.what == "message"

    async def test_a_deleted_message_leaves_no_content(self, store: Store, tmp_path: Path) -> None:
        await say(store, "a", "b")
        await store.delete_message(ANN, "c", "a")
        assert await self.raw(tmp_path, ANN, "c") == [
            RawMessage(1, "a", None, "user", ""),
            RawMessage(2, "b", "a", "user", "b"),
        ]

    async def test_children_of_a_deleted_message_keep_it_as_parent(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await store.delete_message(ANN, "c", "b")
        assert [(m.id, m.parent) for m in await store.tail(ANN, "c")] == [("a", None), ("c", "b")]

    async def test_the_conversation_goes_on_behind_a_deleted_head(self, store: Store) -> None:
        await say(store, "a", "b")
        await store.delete_message(ANN, "c", "b")
        assert (await store.get(ANN, "c")).head == "b"
        done = await store.append(ANN, "c", [user("c", id="c")], window=2)
        assert done.parent == "b"
        assert [(m.id, m.seq, m.parent) for m in done.tail] == [("a", 1, None), ("c", 3, "b")]

    async def test_a_conversation_of_deleted_messages_is_empty(self, store: Store) -> None:
        await say(store, "a", "b")
        for id in "ab":
            await store.delete_message(ANN, "c", id)
        assert await store.tail(ANN, "c") == []
        assert (await store.messages(ANN, "c")).items == []
        assert texts((await store.append(ANN, "c", [user("c")], window=9)).tail) == ["c"]

    async def test_a_deleted_message_cannot_be_appended_again(self, store: Store) -> None:
        done = await say(store, "a", "b")
        await store.delete_message(ANN, "c", "b")
        now = await store.get(ANN, "c")
        for batch in ([done.messages[1]], done.messages, [user("other", id="b")], [user("new"), user("b", id="b")]):
            with pytest.raises(Gone) as caught:
                await store.append(ANN, "c", batch)
            assert (caught.value.what, caught.value.id) == ("message", "b")
        assert await store.get(ANN, "c") == now

    async def test_a_deleted_message_cannot_be_followed(self, store: Store) -> None:
        await say(store, "a", "b")
        await store.delete_message(ANN, "c", "a")
        with pytest.raises(Gone) as caught:
            await store.append(ANN, "c", [user("x", id="x")], parent="a")
        assert (caught.value.what, caught.value.id) == ("message", "a")
        with pytest.raises(NotFound):
            await store.message(ANN, "c", "x")
