"""Answering anew, and answers whose maker is gone: leases, fencing, recovery."""

from __future__ import annotations

import asyncio

import pytest

from daram.errors import ConversationBusy, Gone, LeaseLost, NotFound
from daram.model import ROOT, Answer, user
from daram.store.base import Store
from daram.testing.suite.base import (
    ANN,
    BEN,
    LONG,
    SHORT,
    OpenMore,
    Suite,
    begin,
    exchange,
    expire,
    finish,
    names,
    say,
    started,
    texts,
)


async def _late(store: Store, question: str, text: str, *, id: str = "c") -> Answer:
    """An answer with a partial text whose lease has run out."""
    answer = await begin(store, question, id=id)
    await store.checkpoint(ANN, id, answer.id, answer.token, text, lease=SHORT)
    await expire()
    return answer


class RecoveryTests(Suite):
    # --- answering anew ---

    async def test_answering_the_head_anew_makes_a_sibling(self, store: Store) -> None:
        await exchange(store, "q")
        before = await store.get(ANN, "c")
        turn = await store.begin_turn(ANN, "c", [], parent="q", answer_id="second", window=9, lease=LONG)
        answer = started(turn)
        assert answer.question == "q"
        assert turn.appended.messages == []
        assert texts(turn.appended.tail) == ["q"]
        assert turn.appended.etag == turn.appended.previous_etag == before.etag
        assert turn.appended.parent == "q"
        assert await store.get(ANN, "c") == before
        await finish(store, answer, "other")
        assert names(await store.branches(ANN, "c", "q!")) == ["q!", "second"]
        assert texts(await store.tail(ANN, "c")) == ["q", "other"]
        await store.use_branch(ANN, "c", "q!")
        assert texts(await store.tail(ANN, "c")) == ["q", "q!"]

    async def test_answering_an_earlier_question_anew(self, store: Store) -> None:
        for q in ("q1", "q2", "q3"):
            await exchange(store, q)
        turn = await store.begin_turn(ANN, "c", [], parent="q2", answer_id="second", lease=LONG)
        await finish(store, started(turn), "other")
        assert texts(await store.tail(ANN, "c")) == ["q1", "q1!", "q2", "other"]

    async def test_answering_a_branch_not_in_use_anew_leaves_the_head_alone(self, store: Store) -> None:
        await exchange(store, "q")
        await say(store, "x", parent=ROOT)
        turn = await store.begin_turn(ANN, "c", [], parent="q", answer_id="second", lease=LONG)
        done = await finish(store, started(turn))
        assert done.parent == "q"
        assert (await store.get(ANN, "c")).head == "x"
        assert (await store.use_branch(ANN, "c", "q")).head == "q!"
        assert (await store.use_branch(ANN, "c", "second")).head == "second"

    async def test_an_unanswered_head_is_answered_where_it_stands(self, store: Store) -> None:
        await say(store, "a", "q")
        turn = await store.begin_turn(ANN, "c", [], answer_id="q!", window=1, lease=LONG)
        assert started(turn).question == "q"
        assert texts(turn.appended.tail) == ["q"]
        await say(store, "meanwhile")
        assert (await finish(store, started(turn))).parent == "meanwhile"

    async def test_there_must_be_something_to_answer(self, store: Store) -> None:
        await store.create(ANN, id="c")
        with pytest.raises(NotFound) as caught:
            await store.begin_turn(ANN, "c", [])
        assert caught.value.what == "message"
        await say(store, "a", "b")
        with pytest.raises(NotFound):
            await store.begin_turn(ANN, "c", [], parent="zz")
        await store.delete_message(ANN, "c", "b")
        for parent in ("b", None):
            with pytest.raises(Gone):
                await store.begin_turn(ANN, "c", [], parent=parent)
        assert await store.answers(ANN, "c") == []

    async def test_only_what_stands_above_is_in_the_way(self, store: Store) -> None:
        await exchange(store, "q1")
        running = await begin(store, "q2")
        for parent in ("q2", None):
            with pytest.raises(ConversationBusy) as caught:
                await store.begin_turn(ANN, "c", [], parent=parent)
            assert caught.value.answer_id == running.id
        anew = started(await store.begin_turn(ANN, "c", [], parent="q1", answer_id="second", lease=LONG))
        with pytest.raises(ConversationBusy):
            await store.begin_turn(ANN, "c", [user("x")], parent="q1")
        await finish(store, running)
        await finish(store, anew)
        assert texts(await store.tail(ANN, "c")) == ["q1", "done"]

    # --- recovery ---

    async def test_recover_closes_what_is_late_with_its_partial_text(self, store: Store) -> None:
        answer = await _late(store, "q", "half an ans")
        version = (await store.get(ANN, "c")).version
        found = await store.recover()
        assert [(m.id, m.role, m.text, m.status, m.parent) for m in found] == [
            ("q!", "assistant", "half an ans", "incomplete", "q")
        ]
        assert await store.message(ANN, "c", answer.id) == found[0]
        assert await store.answers(ANN, "c") == []
        assert (await store.get(ANN, "c")).version == version + 1
        assert await store.recover() == []

    async def test_recover_leaves_the_living_alone(self, store: Store) -> None:
        answer = await begin(store, "q")
        assert await store.recover() == []
        assert await store.recover(owner=ANN, id="c") == []
        assert await store.checkpoint(ANN, "c", answer.id, answer.token, "x", lease=LONG) is False

    async def test_recover_of_one_conversation(self, store: Store) -> None:
        await _late(store, "q1", "one", id="c1")
        await _late(store, "q2", "two", id="c2")
        assert await store.recover(owner=BEN, id="c1") == []
        assert texts(await store.recover(owner=ANN, id="c1")) == ["one"]
        assert len(await store.answers(ANN, "c2")) == 1
        assert texts(await store.recover()) == ["two"]

    async def test_recover_at_most_limit(self, store: Store) -> None:
        for i in range(5):
            answer = await begin(store, f"q{i}", id=f"c{i}")
            await store.checkpoint(ANN, f"c{i}", answer.id, answer.token, "x", lease=SHORT)
        await expire()
        assert [len(await store.recover(limit=2)) for _ in range(4)] == [2, 2, 1, 0]

    @pytest.mark.parametrize(
        ("more", "kept"),
        [("half an answer", "half an answer"), ("half", "half an ans"), (None, "half an ans"), ("", "half an ans")],
    )
    async def test_recover_keeps_the_longer_text(self, store: Store, more: str | None, kept: str) -> None:
        await _late(store, "q", "half an ans")
        asked: list[tuple[str, str, str]] = []

        async def partial(answer: Answer) -> str | None:
            asked.append((answer.owner, answer.conversation, answer.id))
            return more

        assert texts(await store.recover(partial=partial)) == [kept]
        assert asked == [(ANN, "c", "q!")]

    async def test_sweeps_at_once_close_each_answer_once(self, store: Store, open_more: OpenMore) -> None:
        for i in range(6):
            answer = await begin(store, f"q{i}", id=f"c{i}")
            await store.checkpoint(ANN, f"c{i}", answer.id, answer.token, "x", lease=SHORT)
        await expire()
        stores = [store, await open_more(), await open_more()]
        found = await asyncio.gather(*(s.recover() for s in stores))
        assert sorted(m.id for part in found for m in part) == [f"q{i}!" for i in range(6)]
        for i in range(6):
            assert [m.status for m in await store.tail(ANN, f"c{i}")] == ["complete", "incomplete"]

    async def test_a_maker_that_wakes_up_too_late_writes_nothing(self, store: Store) -> None:
        answer = await _late(store, "q", "half")
        await store.recover()
        now = await store.get(ANN, "c")
        with pytest.raises(LeaseLost):
            await store.checkpoint(ANN, "c", answer.id, answer.token, "half and more")
        for text in ("half and more", "half"):
            with pytest.raises(LeaseLost):
                await finish(store, answer, text)
        assert await store.get(ANN, "c") == now
        assert texts(await store.tail(ANN, "c")) == ["q", "half"]

    async def test_a_late_maker_whom_nobody_closed_may_go_on(self, store: Store) -> None:
        answer = await _late(store, "q", "half")
        assert await store.checkpoint(ANN, "c", answer.id, answer.token, "more", lease=LONG) is False
        assert await store.recover() == []
        answer2 = await _late(store, "r", "half", id="d")
        assert (await finish(store, answer2, "all")).messages[0].status == "complete"
        await finish(store, answer)

    async def test_a_turn_recovers_the_dead_answer_in_its_way(self, store: Store) -> None:
        await _late(store, "q", "half")

        async def partial(answer: Answer) -> str | None:
            return "half and more"

        turn = await store.begin_turn(ANN, "c", [user("r", id="r")], window=9, lease=LONG, partial=partial)
        started(turn)
        assert [(m.text, m.status) for m in turn.appended.tail] == [
            ("q", "complete"),
            ("half and more", "incomplete"),
            ("r", "complete"),
        ]

    async def test_a_repeated_turn_recovers_its_dead_answer_and_answers_anew(self, store: Store) -> None:
        dead = await _late(store, "q", "half")
        turn = await store.begin_turn(ANN, "c", [user("q", id="q")], answer_id="second", lease=LONG)
        await finish(store, started(turn), "whole")
        assert [(m.text, m.status) for m in await store.branches(ANN, "c", dead.id)] == [
            ("half", "incomplete"),
            ("whole", "complete"),
        ]
        assert texts(await store.tail(ANN, "c")) == ["q", "whole"]

    async def test_answering_anew_recovers_the_dead_answer(self, store: Store) -> None:
        await _late(store, "q", "half")
        turn = await store.begin_turn(ANN, "c", [], answer_id="second", parent="q", lease=LONG)
        await finish(store, started(turn), "whole")
        assert texts(await store.tail(ANN, "c")) == ["q", "whole"]
        assert names(await store.branches(ANN, "c", "second")) == ["q!", "second"]

    async def test_a_dead_answer_elsewhere_stays_until_the_sweep(self, store: Store) -> None:
        await say(store, "a")
        await _late(store, "q", "half")
        turn = await store.begin_turn(ANN, "c", [user("x", id="x")], parent="a", lease=LONG)
        started(turn)
        assert len(await store.answers(ANN, "c")) == 2
        assert texts(await store.recover()) == ["half"]
        assert (await store.get(ANN, "c")).head == "x"

    async def test_an_answer_without_any_text_is_recovered_too(self, store: Store) -> None:
        await begin(store, "q", lease=SHORT)
        await expire()
        assert [(m.text, m.status) for m in await store.recover()] == [("", "incomplete")]

    async def test_another_handle_can_do_every_step(self, store: Store, open_more: OpenMore) -> None:
        other = await open_more()
        answer = await begin(store, "q")
        assert [a.id for a in await other.answers(ANN, "c")] == [answer.id]
        with pytest.raises(ConversationBusy):
            await other.begin_turn(ANN, "c", [user("r")])
        assert await other.cancel_turn(ANN, "c") == 1
        assert await store.checkpoint(ANN, "c", answer.id, answer.token, "half", lease=LONG) is True
        assert await other.checkpoint(ANN, "c", answer.id, answer.token, "more", lease=LONG) is True
        await finish(other, answer)
        assert texts(await store.tail(ANN, "c")) == ["q", "done"]
        with pytest.raises(LeaseLost):
            await store.checkpoint(ANN, "c", answer.id, answer.token, "late")
