"""The answer row: opening, keeping, finishing and taking over answers. Plain functions in the writer's transaction."""

from __future__ import annotations

import secrets

import apsw

from daram.errors import ConversationBusy, Gone, LeaseLost, NotFound
from daram.model import Answer, Appended, Message, Turn
from daram.store import conflicts
from daram.store.primitives import AnswerSpec, AppendSpec, Ref
from daram.store.process import identity, is_dead
from daram.store.sqlite import changes, rows
from daram.store.sqlite.rows import Row, Stored, fetch, one, run, value

_MICROS = 1_000_000


def _is_over(row: Row, now: int) -> bool:
    """Whether the maker of an answer (a row of ``answers``) is late or dead."""
    return int(row[8]) <= now or is_dead(row[5])


def _check_free(db: apsw.Connection, found: Stored, running: list[Row], parent: int, now: int) -> None:
    """Raise ``ConversationBusy`` where an answer is being made on the way from ``parent`` to the root."""
    for row in running:
        if rows.is_on_path(db, found.key, row[1], parent, found.branched):
            raise ConversationBusy(row[0], dead=_is_over(row, now))


def begin(db: apsw.Connection, ref: Ref, now: int, spec: AppendSpec, new: AnswerSpec) -> Turn:
    """Append the question and open the answer row, or tell that the turn is running or finished."""
    found = changes.find_or_create(db, ref, now, spec.create and bool(spec.messages))
    running = fetch(db, "answers", (found.key,)) if found.answering else []
    sibling = False
    if not spec.messages:
        appended, question = _again(db, found, spec)
        for row in running:
            if row[0] == new.id and row[1] == question and not _is_over(row, now):
                return _begun(db, ref, found, row, appended)
        sibling = bool(rows.children(db, found.key, question))
    elif (repeated := changes.find_repeated(db, found, spec)) is not None:
        appended, question = repeated, repeated.messages[-1].seq
        for row in running:
            if row[1] == question and not _is_over(row, now):
                if row[0] == new.id:
                    return _begun(db, ref, found, row, appended)
                return Turn(state="running", appended=appended, answer=_seen(ref, row, repeated.messages[-1].id))
        if done := _answer_to(db, found, question):
            return Turn(state="finished", appended=appended, message=done)
        sibling = bool(rows.children(db, found.key, question))
    else:
        changes.check_expectation(found, spec.expect)
        parent = changes.resolve_parent(db, found, spec.parent)
        _check_free(db, found, running, parent, now)
        running = []
        previous = found.etag
        stored = changes.insert(db, found, now, spec.messages, parent, make_head=True)
        appended = changes.appended(db, found, previous, stored, parent, spec.window)
        question = found.head
    _check_free(db, found, running, question, now)
    return Turn(state="started", appended=appended, answer=_open(db, ref, found, now, question, sibling, new))


def _answer_to(db: apsw.Connection, found: Stored, question: int) -> Message | None:
    """The newest answer to the question that came to its end, be it that a turn made it or that it was appended."""
    answers = [
        row
        for row in rows.children(db, found.key, question)
        if row[3] == "assistant" and value(db, "distant_question", (found.key, row[0])) is None
    ]
    answers += fetch(db, "distant_answers", (found.key, question))
    done = [row for row in answers if row[6] in ("complete", "cancelled") and not row[10]]
    return rows.to_messages(db, found.key, [max(done, key=lambda row: int(row[0]))])[0] if done else None


def _begun(db: apsw.Connection, ref: Ref, found: Stored, row: Row, appended: Appended) -> Turn:
    """A begin whose outcome its caller did not learn: who drew the answer's id is its maker."""
    name = rows.name_of(db, found.key, row[1])
    return Turn(state="started", appended=appended, answer=rows.to_answer(ref.owner, ref.id, row, name or "", row[4]))


def _again(db: apsw.Connection, found: Stored, spec: AppendSpec) -> tuple[Appended, int]:
    """A stored question to answer anew; nothing is appended."""
    changes.check_expectation(found, spec.expect)
    question = changes.resolve_parent(db, found, spec.parent or None)
    if question == 0:
        raise NotFound("message", "(the conversation is empty)")
    row = one(db, "message_by_seq", (found.key, question))
    if row is not None and row[10]:
        raise Gone("message", row[1])
    return changes.appended(db, found, found.etag, [], question, spec.window), question


def _open(
    db: apsw.Connection, ref: Ref, found: Stored, now: int, question: int, sibling: bool, new: AnswerSpec
) -> Answer:
    taken = one(db, "message_by_id", (found.key, new.id))
    if taken is not None and taken[10]:
        raise Gone("message", new.id)
    if taken is not None or any(row[0] == new.id for row in fetch(db, "answers", (found.key,))):
        raise conflicts.answer_id_is_taken(new.id)
    token = secrets.token_hex(16)
    until = now + int(new.lease * _MICROS)
    run(db, "insert_answer", (found.key, new.id, question, int(sibling), new.model, token, identity(), now, until))
    name = rows.name_of(db, found.key, question)
    row = (new.id, question, "", new.model, token, "", 0, now, until)
    return rows.to_answer(ref.owner, ref.id, row, name or "", token)


def _seen(ref: Ref, row: Row, question: str) -> Answer:
    return rows.to_answer(ref.owner, ref.id, row, question)


def checkpoint(db: apsw.Connection, ref: Ref, now: int, id: str, token: str, text: str, lease: float) -> bool:
    """Store the partial text while the token is still the holder's."""
    if rows.find(db, ref, now) is None:
        raise LeaseLost(id)  # it may be there still, but the conversation has expired
    until = now + int(lease * _MICROS)
    row = one(db, "checkpoint", (text, until, ref.key, id, token))
    if row is None:
        raise LeaseLost(id)
    return bool(row[0])


def finish(db: apsw.Connection, ref: Ref, now: int, token: str, message: Message, window: int = 0) -> Appended:
    """The answer becomes a message; its row goes."""
    found = rows.find(db, ref, now)
    held = None if found is None else one(db, "held_answer", (ref.key, message.id, token))
    if found is None:
        raise LeaseLost(message.id)
    if held is None:
        return _finished_before(db, found, message)
    question, sibling = held
    run(db, "delete_answer", (ref.key, message.id))
    in_use = rows.is_on_path(db, found.key, question, found.head, found.branched)
    end = found.head if in_use else rows.leaf_under(db, found, question)
    parent = question if sibling else end
    previous = found.etag
    stored = changes.insert(
        db, found, now, [message], parent, make_head=in_use, question=None if parent == question else question
    )
    return changes.appended(db, found, previous, stored, parent, window)


def _finished_before(db: apsw.Connection, found: Stored, message: Message) -> Appended:
    """A repeated finish: nothing to do where the same answer is stored, else the lease was lost."""
    row = one(db, "message_by_id", (found.key, message.id))
    if row is None or row[10] or not rows.to_message(row, None).same_content(message):
        raise LeaseLost(message.id)
    stored = rows.to_messages(db, found.key, [row])
    return changes.appended(db, found, found.etag, stored, row[2], 0)


def cancel(db: apsw.Connection, ref: Ref, now: int, id: str | None) -> int:
    """Raise the flag that the next checkpoint returns."""
    if rows.find(db, ref, now) is None:
        raise NotFound("conversation", ref.id)
    if id is None:
        run(db, "cancel_answers", (ref.key,))
    else:
        run(db, "cancel_answer", (ref.key, id))
    return db.changes()


def claim_dead(db: apsw.Connection, ref: Ref | None, now: int, limit: int, lease: float) -> list[Answer]:
    """Fence off dead makers: a new token, held by this process."""
    claimed: list[Answer] = []
    if ref is not None:
        todo = [(ref, row[0]) for row in fetch(db, "answers", (ref.key,)) if _is_over(row, now)]
    else:
        todo = [
            (Ref(owner, id, key), answer)
            for owner, id, key, answer, until, process in fetch(db, "all_answers")
            if until <= now or is_dead(process)
        ]
    for whose, id in todo[:limit]:
        found = rows.find(db, whose, now)
        if found is None:
            continue  # it has expired and goes with the purge
        token = secrets.token_hex(16)
        row = one(db, "claim_answer", (token, identity(), now + int(lease * _MICROS), whose.key, id))
        assert row is not None
        question = rows.name_of(db, whose.key, row[1])
        claimed.append(rows.to_answer(whose.owner, whose.id, row, question or "", token))
    return claimed


def any_over(db: apsw.Connection, ref: Ref | None, now: int) -> bool:
    """Whether there is anything for ``claim_dead`` to do (a read)."""
    if ref is not None:
        return any(_is_over(row, now) for row in fetch(db, "answers", (ref.key,)))
    return any(row[4] <= now or is_dead(row[5]) for row in fetch(db, "all_answers"))
