"""The answer row: beginning, keeping, finishing, cancelling; who waits for whom; answering anew."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest

from daram.errors import Conflict, ConversationBusy, Gone, InvalidInput, LeaseLost, NotFound
from daram.model import Part, Status, assistant, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, LONG, Suite, begin, exchange, finish, names, say, search, started, texts


class TurnTests(Suite):
    async def test_begin_stores_the_question_and_opens_the_row(self, store: Store) -> None:
        await say(store, "a")
        turn = await store.begin_turn(
            ANN, "c", [user("b", id="b"), user("q", id="q")], answer_id="q!", window=2, model="m", lease=LONG
        )
        answer = started(turn)
        assert (answer.id, answer.owner, answer.conversation, answer.question) == ("q!", ANN, "c", "q")
        assert (answer.text, answer.model, answer.cancel) == ("", "m", False)
        assert answer.lease_until > answer.created_at
        assert turn.message is None
        assert (turn.appended.version, turn.appended.parent) == (2, "a")
        assert texts(turn.appended.tail) == ["b", "q"]
        assert names(await store.tail(ANN, "c")) == ["a", "b", "q"]
        rows = await store.answers(ANN, "c")
        assert [(r.id, r.question, r.text, r.model, r.token) for r in rows] == [("q!", "q", "", "m", "")]
        assert (rows[0].created_at, rows[0].lease_until) == (answer.created_at, answer.lease_until)

    async def test_begin_draws_an_id_and_makes_the_conversation_where_it_may(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.begin_turn(ANN, "c", [user("q")])
        turn = await store.begin_turn(ANN, "c", [user("q")], create=True)
        assert started(turn).id
        assert turn.appended.version == 1

    async def test_finish_makes_the_answer_a_message(self, store: Store) -> None:
        answer = await begin(store, "q")
        before = await store.get(ANN, "c")
        parts = (Part(type="citation", id="p", data={"doc": "d", "page": 3}),)
        done = await store.finish_turn(
            ANN,
            "c",
            answer.id,
            answer.token,
            text="다람쥐",
            parts=parts,
            model="m",
            tokens=7,
            usage={"input_tokens": 5},
            metadata={"k": "v"},
        )
        message = done.messages[0]
        assert (message.id, message.role, message.text, message.status) == ("q!", "assistant", "다람쥐", "complete")
        assert (message.parts, message.model, message.tokens) == (parts, "m", 7)
        assert (message.usage, message.metadata) == ({"input_tokens": 5}, {"k": "v"})
        assert (message.seq, message.parent, done.parent) == (2, "q", "q")
        assert (done.version, done.previous_etag) == (before.version + 1, before.etag)
        assert await store.message(ANN, "c", "q!") == message
        assert await store.answers(ANN, "c") == []
        after = await store.get(ANN, "c")
        assert (after.head, after.etag, after.last_seq) == ("q!", done.etag, 2)
        assert after.updated_at > before.updated_at

    @pytest.mark.parametrize("status", get_args(Status))
    async def test_an_answer_can_end_in_every_way(self, store: Store, status: Status) -> None:
        answer = await begin(store, "q")
        await store.finish_turn(ANN, "c", answer.id, answer.token, text="", status=status)
        assert [(m.status, m.text) for m in await store.tail(ANN, "c", 1)] == [(status, "")]

    async def test_a_repeated_finish_changes_nothing(self, store: Store) -> None:
        answer = await begin(store, "q")
        first = await finish(store, answer)
        await say(store, "b")
        now = await store.get(ANN, "c")
        again = await finish(store, answer)
        assert again.messages == first.messages
        assert (again.version, again.etag, again.previous_etag) == (now.version, now.etag, now.etag)
        assert again.parent == "q"
        assert await store.get(ANN, "c") == now

    async def test_a_finish_that_does_not_hold_the_row_writes_nothing(self, store: Store) -> None:
        answer = await begin(store, "q")
        now = await store.get(ANN, "c")
        for id, token in ((answer.id, "0" * 32), ("other", answer.token), ("q", answer.token)):
            with pytest.raises(LeaseLost) as caught:
                await store.finish_turn(ANN, "c", id, token, text="x")
            assert caught.value.answer_id == id
        assert await store.get(ANN, "c") == now
        await finish(store, answer)
        with pytest.raises(LeaseLost):
            await finish(store, answer, "something else")
        assert texts(await store.tail(ANN, "c")) == ["q", "done"]

    async def test_an_answer_of_a_deleted_conversation_is_lost(self, store: Store) -> None:
        answer = await begin(store, "q")
        await store.delete(ANN, "c")
        for again in (False, True):
            if again:
                await store.create(ANN, id="c")
            with pytest.raises(LeaseLost):
                await finish(store, answer)
            with pytest.raises(LeaseLost):
                await store.checkpoint(ANN, "c", answer.id, answer.token, "x")
        assert await store.tail(ANN, "c") == []
        assert await store.answers(ANN, "c") == []

    async def test_an_answer_of_an_expired_conversation_is_lost(self, store: Store) -> None:
        answer = await begin(store, "q")
        await store.update(ANN, "c", expires_at=datetime(2001, 1, 1, tzinfo=UTC))
        with pytest.raises(LeaseLost):
            await store.checkpoint(ANN, "c", answer.id, answer.token, "x")
        with pytest.raises(LeaseLost):
            await finish(store, answer)
        assert await store.recover() == []

    async def test_an_answer_that_was_finished_and_deleted_does_not_come_back(self, store: Store) -> None:
        answer = await begin(store, "q")
        await finish(store, answer)
        await store.delete_message(ANN, "c", answer.id)
        with pytest.raises(LeaseLost):
            await finish(store, answer)
        assert texts(await store.tail(ANN, "c")) == ["q"]

    async def test_checkpoint_keeps_the_partial_text_and_nothing_else(self, store: Store) -> None:
        answer = await begin(store, "q")
        now = await store.get(ANN, "c")
        for text in ("다", "다람", "다람쥐", "x"):
            assert await store.checkpoint(ANN, "c", answer.id, answer.token, text, lease=2 * LONG) is False
            assert [a.text for a in await store.answers(ANN, "c")] == [text]
        assert (await store.answers(ANN, "c"))[0].lease_until > answer.lease_until
        assert await store.get(ANN, "c") == now
        assert texts(await store.tail(ANN, "c")) == ["q"]
        assert await search(store, "다람쥐") == []
        with pytest.raises(NotFound):
            await store.message(ANN, "c", answer.id)

    async def test_checkpoint_needs_the_row(self, store: Store) -> None:
        answer = await begin(store, "q")
        for id, token in ((answer.id, "0" * 32), ("other", answer.token)):
            with pytest.raises(LeaseLost) as caught:
                await store.checkpoint(ANN, "c", id, token, "x")
            assert caught.value.answer_id == id
        assert [a.text for a in await store.answers(ANN, "c")] == [""]
        await finish(store, answer)
        with pytest.raises(LeaseLost):
            await store.checkpoint(ANN, "c", answer.id, answer.token, "x")

    async def test_cancel_is_told_by_the_next_checkpoint(self, store: Store) -> None:
        await say(store, "a")
        assert await store.cancel_turn(ANN, "c") == 0
        answer = await begin(store, "q")
        now = await store.get(ANN, "c")
        assert await store.cancel_turn(ANN, "c", "other") == 0
        assert await store.checkpoint(ANN, "c", answer.id, answer.token, "x") is False
        assert await store.cancel_turn(ANN, "c") == 1
        assert [a.cancel for a in await store.answers(ANN, "c")] == [True]
        for _ in range(2):
            assert await store.checkpoint(ANN, "c", answer.id, answer.token, "xy") is True
        assert await store.get(ANN, "c") == now
        await store.finish_turn(ANN, "c", answer.id, answer.token, text="xy", status="cancelled")
        assert await store.cancel_turn(ANN, "c", answer.id) == 0

    async def test_cancel_one_of_two(self, store: Store) -> None:
        await say(store, "a")
        first = await begin(store, "q1")
        second = started(
            await store.begin_turn(ANN, "c", [user("q2", id="q2")], parent="a", answer_id="q2!", lease=LONG)
        )
        assert await store.cancel_turn(ANN, "c", second.id) == 1
        assert [(a.id, a.cancel) for a in await store.answers(ANN, "c")] == [("q1!", False), ("q2!", True)]
        assert await store.cancel_turn(ANN, "c") == 2
        assert await store.checkpoint(ANN, "c", first.id, first.token, "") is True

    async def test_one_answer_at_a_time_on_a_branch(self, store: Store) -> None:
        answer = await begin(store, "q")
        now = await store.get(ANN, "c")
        for batch in ([user("r", id="r")], []):
            with pytest.raises(ConversationBusy) as caught:
                await store.begin_turn(ANN, "c", batch)
            assert caught.value.answer_id == answer.id
            assert caught.value.retryable
            assert not caught.value.dead
            assert caught.value.retry_after > 0
        assert await store.get(ANN, "c") == now
        await finish(store, answer)
        await begin(store, "r")

    async def test_a_plain_append_does_not_wait(self, store: Store) -> None:
        await begin(store, "q")
        await say(store, "meanwhile")
        with pytest.raises(ConversationBusy):
            await store.begin_turn(ANN, "c", [user("r")])

    async def test_two_branches_are_answered_at_once(self, store: Store) -> None:
        await exchange(store, "a")
        first = await begin(store, "q1")
        second = started(
            await store.begin_turn(ANN, "c", [user("q2", id="q2")], parent="a!", answer_id="q2!", lease=LONG)
        )
        assert names([await store.message(ANN, "c", a.question) for a in await store.answers(ANN, "c")]) == ["q1", "q2"]
        await finish(store, first, "one")
        await finish(store, second, "two")
        assert texts(await store.tail(ANN, "c")) == ["a", "a!", "q2", "two"]
        await store.use_branch(ANN, "c", "q1")
        assert texts(await store.tail(ANN, "c")) == ["a", "a!", "q1", "one"]

    async def test_an_answer_goes_to_the_end_of_its_branch(self, store: Store) -> None:
        answer = await begin(store, "q")
        await say(store, "meanwhile")
        done = await finish(store, answer)
        assert done.parent == "meanwhile"
        assert texts(await store.tail(ANN, "c")) == ["q", "meanwhile", "done"]

    async def test_an_answer_on_a_branch_not_in_use_leaves_the_head_alone(self, store: Store) -> None:
        await exchange(store, "a")
        answer = await begin(store, "q")
        await say(store, "more")
        await say(store, "x", parent="a!")
        done = await finish(store, answer)
        assert done.parent == "more"
        assert (await store.get(ANN, "c")).head == "x"
        assert texts(await store.tail(ANN, "c")) == ["a", "a!", "x"]
        assert (await store.use_branch(ANN, "c", "q")).head == "q!"

    async def test_a_repeated_turn_joins_its_running_answer(self, store: Store) -> None:
        answer = await begin(store, "q")
        await store.checkpoint(ANN, "c", answer.id, answer.token, "par", lease=LONG)
        now = await store.get(ANN, "c")
        turn = await store.begin_turn(ANN, "c", [user("q", id="q")], expect=99, window=5)
        assert turn.state == "running"
        assert turn.answer is not None
        assert (turn.answer.id, turn.answer.text, turn.answer.token) == (answer.id, "par", "")
        assert turn.appended.etag == turn.appended.previous_etag == now.etag
        assert texts(turn.appended.tail) == ["q"]
        assert len(await store.answers(ANN, "c")) == 1

    @pytest.mark.parametrize("anew", [False, True])
    async def test_a_begin_whose_answer_was_lost_is_repeated(self, store: Store, anew: bool) -> None:
        await exchange(store, "q0")
        batch = [] if anew else [user("q", id="q")]
        first = await store.begin_turn(ANN, "c", batch, parent="q0", answer_id="x", lease=LONG)
        now = await store.get(ANN, "c")
        again = await store.begin_turn(ANN, "c", batch, parent="q0", answer_id="x", lease=LONG)
        assert started(again).token == started(first).token
        assert started(again).question == ("q0" if anew else "q")
        assert again.appended.etag == again.appended.previous_etag
        assert await store.get(ANN, "c") == now
        assert len(await store.answers(ANN, "c")) == 1
        await finish(store, started(again))
        await finish(store, started(first))

    @pytest.mark.parametrize("status", ["complete", "cancelled"])
    async def test_a_repeated_turn_finds_its_finished_answer(self, store: Store, status: Status) -> None:
        answer = await begin(store, "q")
        done = await store.finish_turn(ANN, "c", answer.id, answer.token, text="done", status=status)
        await exchange(store, "later")
        now = await store.get(ANN, "c")
        turn = await store.begin_turn(ANN, "c", [user("q", id="q")])
        assert turn.state == "finished"
        assert turn.message == done.messages[0]
        assert turn.answer is None
        assert await store.get(ANN, "c") == now

    async def test_a_repeated_turn_finds_its_answer_behind_what_came_between(self, store: Store) -> None:
        answer = await begin(store, "q")
        await say(store, "meanwhile")
        await finish(store, answer)
        turn = await store.begin_turn(ANN, "c", [user("q", id="q")])
        assert turn.state == "finished"
        assert turn.message is not None
        assert turn.message.id == answer.id

    @pytest.mark.parametrize("status", ["failed", "incomplete"])
    async def test_a_repeated_turn_answers_anew_what_failed(self, store: Store, status: Status) -> None:
        answer = await begin(store, "q")
        await store.finish_turn(ANN, "c", answer.id, answer.token, text="bad", status=status)
        turn = await store.begin_turn(ANN, "c", [user("q", id="q")], answer_id="second", window=9, lease=LONG)
        assert texts(turn.appended.tail) == ["q"]
        done = await finish(store, started(turn), "good")
        assert done.parent == "q"
        assert names(await store.branches(ANN, "c", "second")) == ["q!", "second"]
        assert texts(await store.tail(ANN, "c")) == ["q", "good"]
        assert (await store.begin_turn(ANN, "c", [user("q", id="q")])).state == "finished"

    async def test_a_question_that_was_only_appended_can_be_answered(self, store: Store) -> None:
        await say(store, "q")
        turn = await store.begin_turn(ANN, "c", [user("q", id="q")], answer_id="q!", lease=LONG)
        assert turn.appended.version == 1
        await finish(store, started(turn))
        assert texts(await store.tail(ANN, "c")) == ["q", "done"]

    async def test_an_appended_answer_is_an_answer(self, store: Store) -> None:
        await store.append(ANN, "c", [user("q", id="q"), assistant("yes", id="y")], create=True)
        turn = await store.begin_turn(ANN, "c", [user("q", id="q")])
        assert turn.state == "finished"
        assert turn.message is not None
        assert turn.message.id == "y"

    async def test_taken_answer_ids_are_refused(self, store: Store) -> None:
        await exchange(store, "a")
        await say(store, "b")
        await store.delete_message(ANN, "c", "b")
        now = await store.get(ANN, "c")
        with pytest.raises(Conflict, match="'a'"):
            await store.begin_turn(ANN, "c", [user("q", id="q")], answer_id="a")
        with pytest.raises(Gone, match="'b'"):
            await store.begin_turn(ANN, "c", [user("q", id="q")], answer_id="b")
        with pytest.raises(InvalidInput, match="answer_id"):
            await store.begin_turn(ANN, "c", [user("q", id="q")], answer_id="q")
        assert await store.get(ANN, "c") == now
        await begin(store, "q")
        with pytest.raises(Conflict, match="'q!'"):
            await store.begin_turn(ANN, "c", [user("r")], parent="a", answer_id="q!")
        assert len(await store.answers(ANN, "c")) == 1

    async def test_a_question_deleted_meanwhile(self, store: Store) -> None:
        answer = await begin(store, "q")
        await store.delete_message(ANN, "c", "q")
        done = await finish(store, answer)
        assert done.parent == "q"
        assert texts(await store.tail(ANN, "c")) == ["done"]
