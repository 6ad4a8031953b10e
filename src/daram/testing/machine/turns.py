"""Rules: turns, the leases of their answers, recovery."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from daram.model import Message, Status, Turn
from daram.store.base import Store
from daram.testing.machine.base import (
    ANSWER,
    EXPECT,
    HANDLE,
    KEY,
    LATE,
    LONG,
    MOSTLY,
    NEW,
    PAIR,
    PICK,
    PLACE,
    RARELY,
    SHORT,
    WORD,
    Expect,
    Held,
    Plan,
    Sent,
    messages_of,
)
from daram.testing.machine.messages import MessageRules
from daram.testing.machine.oracle import Key, Running

STATUS: st.SearchStrategy[Status] = st.sampled_from(["complete", "complete", *get_args(Status)])


class TurnRules(MessageRules):
    """Begin, keep, finish, cancel, recover."""

    @rule(
        handle=HANDLE,
        key=KEY,
        pairs=st.lists(PAIR, max_size=2, unique_by=lambda pair: pair[0]),
        place=PLACE,
        expect=EXPECT,
        pick=PICK,
        create=MOSTLY,
        answer=ANSWER,
        late=LATE,
    )
    def begin_turn(
        self,
        handle: int,
        key: Key,
        pairs: Plan,
        place: str,
        expect: str | None,
        pick: int,
        create: bool,
        answer: str,
        late: bool,
    ) -> None:
        sent = Sent(key, self.plan(pairs), self.parent(key, place, pick))
        self._begin(handle, sent, self.expectation(key, expect, pick), create, self.fresh(answer), late)
        if sent.plan:
            self.sent.append(sent)

    @rule(handle=HANDLE, key=KEY, pairs=NEW, late=LATE)
    def begin_turn_at_the_head(self, handle: int, key: Key, pairs: Plan, late: bool) -> None:
        sent = Sent(key, self.plan(pairs), None)
        self._begin(handle, sent, Expect(), True, self.fresh("new"), late)
        self.sent.append(sent)

    @rule(handle=HANDLE, key=KEY, word=WORD, status=STATUS, between=RARELY, again=RARELY)
    def exchange(self, handle: int, key: Key, word: str, status: Status, between: bool, again: bool) -> None:
        """A whole turn, perhaps with an append in the middle; perhaps the turn is sent again."""
        before = len(self.held)
        self.begin_turn_at_the_head(handle, key, [("new", word)], False)
        if len(self.held) == before:
            return  # something was in its way
        sent = self.sent[-1]
        if between:
            self._append(handle, Sent(key, self.plan([("new", word)]), None), Expect(), False, 3)
        self._finish(1 - handle, self.held[-1], word, status)
        if again:
            self._begin(handle, sent, Expect(), False, self.fresh("new"), False)

    @rule(handle=HANDLE, key=KEY, pick=PICK, late=LATE)
    def answer_anew(self, handle: int, key: Key, pick: int, late: bool) -> None:
        key = self.some_key(key, False)
        sent = Sent(key, [], self.parent(key, "known", pick))
        self._begin(handle, sent, Expect(), True, self.fresh("new"), late)

    @precondition(lambda self: self.held)
    @rule(handle=HANDLE, pick=PICK)
    def begin_again_what_is_held(self, handle: int, pick: int) -> None:
        held = self._pick(pick)
        row = self._row(held)
        question = row.question if row else "nobody"
        self._begin(handle, Sent(held.key, [], question), Expect(), False, held.id, False)

    @precondition(lambda self: self.sent)
    @rule(handle=HANDLE, pick=PICK, answer=ANSWER, late=LATE)
    def begin_turn_with_what_was_sent(self, handle: int, pick: int, answer: str, late: bool) -> None:
        sent = self.sent[-1 - pick % len(self.sent)]
        self._begin(handle, sent, Expect(), False, self.fresh(answer), late)

    def _begin(self, handle: int, sent: Sent, expect: Expect, create: bool, answer_id: str, late: bool) -> None:
        key, plan, parent = sent
        existed = key in self.oracle.stories
        if any(id == answer_id for id, _ in plan):
            wanted, question = "InvalidInput", None
        else:
            wanted, question = self.oracle.begin(key, plan, parent, expect.version, create, answer_id)
        found, model = self.both(
            handle,
            lambda s, side: s.begin_turn(
                *key,
                messages_of(plan),
                answer_id=answer_id,
                parent=parent,
                expect=expect.arguments[side],
                create=create,
                window=3,
                lease=SHORT if late else LONG,
            ),
        )
        if found.error is not None:
            assert found.kind == wanted
            return
        turn: Turn = found.value
        assert turn.state == ("started" if wanted == "again" else wanted)
        assert question is not None
        story = self.oracle.stories[key]
        assert turn.appended.version == story.version
        assert [m.id for m in turn.appended.tail] == [line.id for line in story.visible(question)][-3:]
        if not existed:
            self.forget(key)
        if turn.state == "finished":
            line = story.answer_to(question)
            assert line is not None
            assert turn.message is not None
            assert (turn.message.id, turn.message.text) == (line.id, line.text)
            return
        assert turn.answer is not None
        assert turn.answer.question == question
        assert bool(turn.answer.token) == (turn.state == "started")
        tokens = (turn.answer.token, model.value.answer.token if model else "")
        if wanted == "again":
            row = next(row for row in story.running if row.id == answer_id)
            assert self.held[row.holder].tokens == tokens
        elif wanted == "started":
            anew = any(line.parent == question for line in story.lines)
            story.running.append(Running(answer_id, question, anew, len(self.held), late))
            self.held.append(Held(len(self.held), key, answer_id, tokens))
            self._wait(late)

    def _wait(self, late: bool) -> None:
        if late:
            self.run(asyncio.sleep(4 * SHORT))

    def _pick(self, pick: int) -> Held:
        """One of the last."""
        return self.held[-1 - pick % min(5, len(self.held))]

    def _row(self, held: Held) -> Running | None:
        story = self.oracle.stories.get(held.key)
        return next((row for row in story.running if row.holder == held.number), None) if story else None

    @precondition(lambda self: self.held)
    @rule(handle=HANDLE, pick=PICK, text=WORD, late=LATE)
    def checkpoint(self, handle: int, pick: int, text: str, late: bool) -> None:
        held = self._pick(pick)
        lease = SHORT if late else LONG
        found, _ = self.both(
            handle, lambda s, side: s.checkpoint(*held.key, held.id, held.tokens[side], text, lease=lease)
        )
        row = self._row(held)
        if row is None:
            assert found.kind == "LeaseLost"
            return
        assert found.value is row.cancel
        row.text, row.late = text, late
        self._wait(late)

    @precondition(lambda self: self.held)
    @rule(handle=HANDLE, pick=PICK, text=WORD, status=STATUS)
    def finish_turn(self, handle: int, pick: int, text: str, status: Status) -> None:
        self._finish(handle, self._pick(pick), text, status)

    def _finish(self, handle: int, held: Held, text: str, status: Status) -> None:
        found, _ = self.both(
            handle,
            lambda s, side: s.finish_turn(*held.key, held.id, held.tokens[side], text=text, status=status),
        )
        story, row = self.oracle.stories.get(held.key), self._row(held)
        if story is not None and row is not None:
            line = story.close(row, text, status)
            self.oracle.touch(held.key)
            assert (found.value.version, found.value.messages[0].parent) == (story.version, line.parent)
            return
        line_there = story.line(held.id) if story else None
        same = (
            story is not None
            and line_there is not None
            and story.has(held.id)
            and (line_there.role, line_there.text, line_there.status) == ("assistant", text, status)
        )
        assert found.kind == ("ok" if same else "LeaseLost")
        if same:
            assert found.value.etag == found.value.previous_etag

    @precondition(lambda self: self.held)
    @rule(handle=HANDLE, key=KEY, pick=PICK, one=st.booleans(), wild=RARELY)
    def cancel_turn(self, handle: int, key: Key, pick: int, one: bool, wild: bool) -> None:
        key = key if wild else self._pick(pick).key
        id = self._pick(pick).id if one else None
        found, _ = self.both(handle, lambda s, _: s.cancel_turn(*key, id))
        story = self.oracle.stories.get(key)
        if story is None:
            assert found.kind == "NotFound"
            return
        rows = [row for row in story.running if id in (None, row.id)]
        assert found.value == len(rows)
        for row in rows:
            row.cancel = True

    @precondition(lambda self: self.held)
    @rule(handle=HANDLE, key=KEY, everywhere=st.booleans())
    def recover(self, handle: int, key: Key, everywhere: bool) -> None:
        where: dict[str, Any] = {} if everywhere else {"owner": key[0], "id": key[1]}
        late = self._late(None if everywhere else key)

        async def recovered(store: Store) -> list[Message]:
            # In which order a sweep comes upon the answers is an engine's own affair.
            return sorted(await store.recover(**where), key=lambda message: message.id)

        found, _ = self.both(handle, lambda s, _: recovered(s))
        assert sorted(m.id for m in found.value) == sorted(late)
        for other in [*self.oracle.stories] if everywhere else [key]:
            story = self.oracle.stories.get(other)
            if story is not None and story.close_late():
                self.oracle.touch(other)

    def _late(self, key: Key | None) -> list[str]:
        return [
            row.id
            for other, story in self.oracle.stories.items()
            if key in (None, other)
            for row in story.running
            if row.late
        ]
