"""P3: the same id is the same message. A repeated batch changes nothing; an id never comes to stand for two things."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from daram.errors import Conflict
from daram.model import ROOT, Message, Part, assistant, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, Suite, begin, names, say, texts

_THEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
_BATCH = [
    Message(
        id="a",
        role="assistant",
        text="a",
        parts=(Part(type="citation", data={"n": 1}),),
        status="failed",
        model="m",
        tokens=1,
        usage={"output_tokens": 1},
        metadata={"k": "v"},
        created_at=_THEN,
    ),
    user("b", id="b"),
]


class RepetitionTests(Suite):
    async def test_a_repeated_batch_changes_nothing(self, store: Store) -> None:
        first = await store.append(ANN, "c", _BATCH, create=True)
        now = await store.get(ANN, "c")
        again = await store.append(ANN, "c", _BATCH, create=True, window=5)
        assert (again.version, again.etag, again.previous_etag) == (now.version, now.etag, now.etag)
        assert again.parent is None
        assert again.messages == again.tail == first.messages
        assert await store.get(ANN, "c") == now
        assert texts((await store.messages(ANN, "c")).items) == ["a", "b"]

    async def test_a_repetition_tells_the_present_and_the_tail_of_then(self, store: Store) -> None:
        await say(store, "a")
        first = await say(store, "b", "c")
        await say(store, "d")
        await store.update(ANN, "c", title="t")
        now = await store.get(ANN, "c")
        again = await store.append(ANN, "c", [user("b", id="b"), user("c", id="c")], window=2)
        assert (again.version, again.etag, again.previous_etag) == (now.version, now.etag, now.etag)
        assert (again.parent, again.messages) == ("a", first.messages)
        assert texts(again.tail) == ["b", "c"]
        again = await store.append(ANN, "c", [user("b", id="b")], window=20)
        assert texts(again.tail) == ["a", "b"]
        assert await store.get(ANN, "c") == now

    async def test_a_repetition_does_not_look_at_expect(self, store: Store) -> None:
        await say(store, "a")
        first = await store.append(ANN, "c", [user("b", id="b")], expect=1)
        again = await store.append(ANN, "c", [user("b", id="b")], expect=1)
        assert again.version == first.version == 2
        assert (await store.append(ANN, "c", [user("b", id="b")], expect="other")).version == 2

    async def test_a_repetition_looks_at_parent(self, store: Store) -> None:
        await say(store, "a", "b")
        await say(store, "x", parent="a")
        again = await store.append(ANN, "c", [user("x", id="x")], parent="a", window=9)
        assert again.etag == again.previous_etag
        assert texts(again.tail) == ["a", "x"]
        await store.append(ANN, "c", [user("a", id="a")], parent=ROOT)
        for wrong in ("b", ROOT, "unknown"):
            with pytest.raises(Conflict, match="'x'"):
                await store.append(ANN, "c", [user("x", id="x")], parent=wrong)
        with pytest.raises(Conflict, match="'a'"):
            await store.append(ANN, "c", [user("a", id="a")], parent="b")
        assert (await store.get(ANN, "c")).version == 2

    async def test_a_repetition_does_not_switch_branches(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await say(store, "x", parent="a")
        again = await store.append(ANN, "c", [user("b", id="b"), user("c", id="c")], window=9)
        assert texts(again.tail) == ["a", "b", "c"]
        assert texts(await store.tail(ANN, "c")) == ["a", "x"]

    async def test_a_repetition_steps_over_the_deleted(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        await store.delete_message(ANN, "c", "b")
        again = await store.append(ANN, "c", [user("c", id="c")], window=9)
        assert (again.parent, texts(again.tail)) == ("b", ["a", "c"])

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("role", "user"),
            ("text", "A"),
            ("text", "a "),
            ("parts", ()),
            ("parts", (Part(type="citation", data={"n": 2}),)),
            ("status", "complete"),
            ("model", None),
            ("model", "M"),
            ("tokens", 2),
            ("usage", None),
            ("metadata", {}),
            ("metadata", {"k": "w"}),
            ("created_at", _THEN.replace(microsecond=1)),
        ],
    )
    async def test_other_content_conflicts(self, store: Store, field: str, value: Any) -> None:
        await store.append(ANN, "c", _BATCH, create=True)
        now = await store.get(ANN, "c")
        other = msgspec.structs.replace(_BATCH[0], **{field: value})
        for batch in ([other], [other, _BATCH[1]]):
            with pytest.raises(Conflict, match="'a'"):
                await store.append(ANN, "c", batch)
            with pytest.raises(Conflict, match="'a'"):
                await store.begin_turn(ANN, "c", batch)
        assert await store.get(ANN, "c") == now
        assert await store.answers(ANN, "c") == []

    async def test_what_the_store_gives_is_not_compared(self, store: Store) -> None:
        first = await store.append(ANN, "c", _BATCH, create=True)
        await store.append(ANN, "c", first.messages)  # with seq, parent and created_at as stored
        plain = msgspec.structs.replace(_BATCH[0], created_at=None, seq=99, parent="zz")
        await store.append(ANN, "c", [plain, _BATCH[1]])
        assert (await store.get(ANN, "c")).version == 1

    @pytest.mark.parametrize(
        ("batch", "named"),
        [("ax", "a"), ("xa", "a"), ("abx", "a"), ("ba", "[ab]"), ("ac", "[ac]"), ("abd", "[abd]"), ("bxc", "[bc]")],
    )
    async def test_a_batch_that_is_stored_in_part_or_otherwise_conflicts(
        self, store: Store, batch: str, named: str
    ) -> None:
        await say(store, "a", "b")
        await say(store, "c")
        await say(store, "d", parent="b")
        now = await store.get(ANN, "c")
        with pytest.raises(Conflict, match=f"'{named}'"):
            await store.append(ANN, "c", [user(w, id=w) for w in batch])
        assert await store.get(ANN, "c") == now
        assert now.last_seq == 4

    async def test_neighbours_in_time_on_two_branches_are_no_batch(self, store: Store) -> None:
        await say(store, "a", "b")
        await say(store, "x", parent="a")  # seq 3 behind seq 2, but no child of it
        with pytest.raises(Conflict, match="'[bx]'"):
            await store.append(ANN, "c", [user("b", id="b"), user("x", id="x")])

    async def test_a_part_of_a_stored_batch_is_a_repetition(self, store: Store) -> None:
        await say(store, "a", "b", "c")
        again = await store.append(ANN, "c", [user("b", id="b"), user("c", id="c")], window=1)
        assert (again.version, again.parent, names(again.tail)) == (1, "a", ["c"])

    async def test_two_batches_sent_as_one_are_a_repetition(self, store: Store) -> None:
        await say(store, "a")
        await say(store, "b")
        again = await store.append(ANN, "c", [user("a", id="a"), user("b", id="b")], window=9)
        assert (again.version, again.parent, names(again.tail)) == (2, None, ["a", "b"])

    async def test_the_id_of_a_running_answer_is_taken(self, store: Store) -> None:
        answer = await begin(store, "a")
        now = await store.get(ANN, "c")
        for batch in ([assistant("x", id=answer.id)], [user("b", id="b"), assistant("x", id=answer.id)]):
            with pytest.raises(Conflict, match=answer.id):
                await store.append(ANN, "c", batch)
        assert await store.get(ANN, "c") == now

    async def test_equal_texts_with_ids_of_their_own_are_two_messages(self, store: Store) -> None:
        for _ in range(2):
            await store.append(ANN, "c", [user("same")], create=True)
        assert texts(await store.tail(ANN, "c")) == ["same", "same"]
