"""Rows to values, and walks along the branches of one conversation: on one connection, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import apsw
import msgspec

from daram.codec import all_from_micros, decode_body, decode_strings, from_micros
from daram.model import Answer, Conversation, Message
from daram.store.primitives import Ref
from daram.store.queries import load_queries

Q = load_queries("daram.store.sqlite") | load_queries("daram.store.sqlite", "documents.sql")
Row = tuple[Any, ...]


def run(db: apsw.Connection, name: str, values: Row = ()) -> None:
    """Run a named query that returns nothing."""
    db.execute(Q[name], values)


def fetch(db: apsw.Connection, name: str, values: Row = ()) -> list[Row]:
    """All rows of a named query."""
    return db.execute(Q[name], values).fetchall()


def one(db: apsw.Connection, name: str, values: Row = ()) -> Row | None:
    """The first row of a named query, or None."""
    return db.execute(Q[name], values).fetchone()


def value(db: apsw.Connection, name: str, values: Row = ()) -> Any:
    """The first column of the first row of a named query, or None."""
    row = one(db, name, values)
    return None if row is None else row[0]


class Stored(msgspec.Struct):
    """A row of ``conversation``; numbers as they are in the table.

    ``head_id``: the id of the head, where it was read along. ``answering``: False if no answer is being made.
    """

    key: bytes
    owner: str
    id: str
    title: str | None
    metadata: bytes | None
    pinned: int
    archived: int
    version: int
    etag: str
    last_seq: int
    head: int
    branched: int
    created_at: int
    updated_at: int
    expires_at: int | None
    head_id: str | None = None
    answering: int = 1

    def value(self, head: str | None) -> Conversation:
        """As its owner sees it; ``head`` is the id of the message that ``self.head`` numbers."""
        return Conversation(
            id=self.id,
            owner=self.owner,
            title=self.title,
            metadata=decode_strings(self.metadata),
            pinned=bool(self.pinned),
            archived=bool(self.archived),
            version=self.version,
            etag=self.etag,
            last_seq=self.last_seq,
            head=head,
            created_at=from_micros(self.created_at),
            updated_at=from_micros(self.updated_at),
            expires_at=None if self.expires_at is None else from_micros(self.expires_at),
        )


def find(db: apsw.Connection, ref: Ref, now: int) -> Stored | None:
    """The conversation, unless it does not exist or has expired."""
    row = one(db, "find_conversation", (ref.key,))
    if row is None:
        return None
    found = Stored(*row)
    # The key is a digest: the names are compared too, so that not even a collision could mix two owners.
    if (found.owner, found.id) != (ref.owner, ref.id) or (found.expires_at is not None and found.expires_at <= now):
        return None
    return found


def name_of(db: apsw.Connection, key: bytes, seq: int) -> str | None:
    """The id of the message with that number (0: None)."""
    if seq == 0:
        return None
    row = one(db, "message_name", (key, seq))
    return None if row is None else str(row[0])


def conversation(db: apsw.Connection, found: Stored) -> Conversation:
    """The conversation with its head's id."""
    return found.value(name_of(db, found.key, found.head))


def to_message(row: Row, parent: str | None, at: datetime | None = None) -> Message:
    """A row of ``message`` (11 columns, see queries.sql); ``at``: its ``created_at``, if it is worked out already."""
    seq, id, _, role, text, body, status, model, tokens, created_at, _ = row
    if at is None:
        at = from_micros(created_at)
    if body is None:  # most messages, and so of each turn's tail
        return Message(
            id=id,
            role=role,
            text=text,
            status=status,
            model=model,
            tokens=tokens,
            created_at=at,
            seq=seq,
            parent=parent,
        )
    parts, metadata, usage = decode_body(body)
    return Message(
        id=id,
        role=role,
        text=text,
        parts=parts,
        status=status,
        model=model,
        tokens=tokens,
        usage=usage,
        metadata=metadata,
        created_at=at,
        seq=seq,
        parent=parent,
    )


def to_messages(db: apsw.Connection, key: bytes, rows: list[Row], first: int = 0) -> list[Message]:
    """The rows from ``first`` on, with the ids of their parents: mostly other rows, so that few are looked up."""
    names: dict[int, str | None] = {row[0]: row[1] for row in rows}
    names[0] = None
    asked = rows[first:]
    for row in asked:
        if row[2] not in names:
            names[row[2]] = name_of(db, key, row[2])
    moments = all_from_micros([row[9] for row in asked])
    return [to_message(row, names[row[2]], at) for row, at in zip(asked, moments, strict=True)]


def runs(db: apsw.Connection, key: bytes, leaf: int, branched: int) -> Iterator[tuple[int, int]]:
    """The path from ``leaf`` to the root as runs (low, high) of consecutive seq, the newest first."""
    high = leaf
    while high > 0:
        fork = one(db, "fork_at_or_before", (key, high)) if branched else None
        if fork is None:
            yield 1, high
            return
        low, parent = fork
        yield low, high
        high = parent


def is_on_path(db: apsw.Connection, key: bytes, seq: int, leaf: int, branched: int) -> bool:
    """Whether ``seq`` is ``leaf`` or one of its ancestors."""
    for low, high in runs(db, key, leaf, branched):
        if seq > high:
            return False
        if seq >= low:
            return True
    return False


def tail(db: apsw.Connection, key: bytes, leaf: int, branched: int, limit: int) -> list[Message]:
    """The last ``limit`` messages of the path that ends at ``leaf``, oldest first; deleted ones are stepped over."""
    if not limit:
        return []
    rows: list[Row] = []
    wanted = limit + 1  # one more, because it is most likely the parent of the first
    for low, high in runs(db, key, leaf, branched):
        rows += fetch(db, "run_desc", (key, low, high, wanted - len(rows)))
        if len(rows) == wanted:
            break
    rows.reverse()
    return to_messages(db, key, rows, max(0, len(rows) - limit))


def children(db: apsw.Connection, key: bytes, seq: int) -> list[Row]:
    """The messages that follow ``seq`` directly (0: the first messages), deleted ones included, oldest first."""
    rows: list[Row] = list(fetch(db, "first_child", (key, seq + 1)))
    rows += fetch(db, "later_children", (key, seq))
    return rows


def leaf_under(db: apsw.Connection, found: Stored, seq: int) -> int:
    """The leaf last used among those whose path goes through ``seq``."""
    if not found.branched:
        return found.head
    for leaf, _ in fetch(db, "leaves", (found.key,)):
        if is_on_path(db, found.key, seq, leaf, 1):
            return int(leaf)
    return seq


def to_answer(owner: str, id: str, row: Row, question: str, token: str = "") -> Answer:
    """A row of the query ``answers``; the token is given only to whoever may hold it."""
    return Answer(
        id=row[0],
        owner=owner,
        conversation=id,
        question=question,
        text=row[2],
        model=row[3],
        token=token,
        cancel=bool(row[6]),
        created_at=from_micros(row[7]),
        lease_until=from_micros(row[8]),
    )
