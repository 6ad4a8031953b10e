"""The reads: plain functions that run inside one read transaction."""

from __future__ import annotations

import apsw

from daram.errors import NotFound
from daram.model import Answer, Conversation, Message
from daram.store.base import Order
from daram.store.primitives import Ref
from daram.store.sqlite import rows
from daram.store.sqlite.rows import Row, Stored, fetch, one, value


def _require(db: apsw.Connection, ref: Ref, now: int) -> Stored:
    found = rows.find(db, ref, now)
    if found is None:
        raise NotFound("conversation", ref.id)
    return found


def get(db: apsw.Connection, ref: Ref, now: int) -> Conversation:
    """The conversation."""
    return rows.conversation(db, _require(db, ref, now))


def listing(
    db: apsw.Connection, owner: str, limit: int, before: tuple[int, bytes] | None, now: int
) -> list[Conversation]:
    """One page of the owner's conversations."""
    if before is None:
        found = fetch(db, "list_conversations", (owner, now, limit))
    else:
        found = fetch(db, "list_conversations_before", (owner, *before, now, limit))
    return [Stored(*row[:-1]).value(row[-1]) for row in found]


def tail(db: apsw.Connection, ref: Ref, limit: int, now: int) -> list[Message]:
    """The end of the branch in use."""
    found = _require(db, ref, now)
    return rows.tail(db, found.key, found.head, found.branched, limit)


def messages(
    db: apsw.Connection, ref: Ref, limit: int, order: Order, after: tuple[int, int] | None, now: int
) -> tuple[list[Message], int]:
    """One page of a branch (see ``Engine._messages``)."""
    found = _require(db, ref, now)
    key, branched = found.key, found.branched
    seq, leaf = after or (0, found.head)
    result: list[Row] = []
    if order == "desc":
        if after is None:
            start = found.head
        else:
            row = one(db, "message_by_seq", (key, seq))
            start = 0 if row is None else row[2]
        for low, high in rows.runs(db, key, start, branched):
            result += fetch(db, "run_desc", (key, low, high, limit - len(result)))
            if len(result) >= limit:
                break
        return rows.to_messages(db, key, result), leaf
    if seq == 0 or rows.is_on_path(db, key, seq, found.head, branched):
        leaf = found.head
    # A leaf that is beyond the end belongs to an earlier conversation of the same id.
    path = [] if leaf > found.last_seq else list(_runs_above(db, key, leaf, branched, seq))
    for low, high in reversed(path):
        result += fetch(db, "run_asc", (key, max(low, seq + 1), high, limit - len(result)))
        if len(result) >= limit:
            break
    return rows.to_messages(db, key, result), leaf


def _runs_above(db: apsw.Connection, key: bytes, leaf: int, branched: int, seq: int) -> list[tuple[int, int]]:
    found = []
    for low, high in rows.runs(db, key, leaf, branched):
        if high <= seq:
            break
        found.append((low, high))
    return found


def message(db: apsw.Connection, ref: Ref, message_id: str, now: int) -> Message:
    """One message."""
    found, row = _find_message(db, ref, message_id, now)
    return rows.to_message(row, rows.name_of(db, found.key, row[2]))


def _find_message(db: apsw.Connection, ref: Ref, message_id: str, now: int) -> tuple[Stored, Row]:
    found = _require(db, ref, now)
    row = one(db, "message_by_id", (found.key, message_id))
    if row is None or row[10]:
        raise NotFound("message", message_id)
    return found, row


def branches(db: apsw.Connection, ref: Ref, message_id: str, now: int) -> list[Message]:
    """The message and its siblings."""
    found, row = _find_message(db, ref, message_id, now)
    alive = [r for r in rows.children(db, found.key, row[2]) if not r[10]]
    return rows.to_messages(db, found.key, alive)


def answers(db: apsw.Connection, ref: Ref, now: int) -> list[Answer]:
    """The running answers, without their tokens."""
    found = _require(db, ref, now)
    return [
        rows.to_answer(ref.owner, ref.id, row, rows.name_of(db, found.key, row[1]) or "")
        for row in fetch(db, "answers", (found.key,))
    ]


def has_unindexed(db: apsw.Connection) -> bool:
    """Whether documents wait for the search index."""
    return bool(value(db, "has_unindexed"))
