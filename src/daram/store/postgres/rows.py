"""Rows to values, and messages to parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from daram.codec import decode_body, decode_strings, encode_body, from_micros, to_micros
from daram.errors import ConversationBusy, DaramError, Gone, NotFound, StoreCorrupt
from daram.model import Answer, Conversation, Message
from daram.store import conflicts
from daram.store.postgres.index import terms
from daram.store.primitives import Ref
from daram.store.process import is_dead

Row = tuple[Any, ...]


class Reply(NamedTuple):
    """A row of the type ``reply`` (migrations/0001): what the functions answer with."""

    kind: str
    version: int
    etag: str
    previous_etag: str
    seq: int
    id: str
    parent: int
    parent_id: str | None
    role: str
    text: str
    body: bytes | None
    status: str
    model: str | None
    tokens: int | None
    created_at: int
    token: str
    process: str
    cancel: bool
    lease_until: int

    def message(self) -> Message:
        """The row as a message."""
        return to_message(self[4:15], self.parent_id)

    def answer(self, ref: Ref, *, mine: bool = False) -> Answer:
        """The row as a running answer; its token is given only to its maker."""
        row = (self.id, self.parent_id, self.text, self.model, self.cancel, self.created_at, self.lease_until)
        return to_answer(ref.owner, ref.id, row, self.token if mine else "")


def replies(rows: Iterable[Row]) -> list[Reply]:
    """Rows of a function that answers with ``reply``."""
    return [Reply._make(row) for row in rows]


def of_kind(found: Iterable[Reply], *kinds: str) -> list[Reply]:
    """Those of these kinds."""
    return [reply for reply in found if reply.kind in kinds]


def tail(found: Iterable[Reply], limit: int) -> list[Message]:
    """The last ``limit`` messages, oldest first, of a path that came newest first: the parent of each is the next
    row."""
    path = [row for row in found if row.kind in ("message", "erased")]
    result: list[Message] = []
    parent: str | None = None
    for row in reversed(path):
        if row.kind == "message":
            result.append(to_message(row[4:15], parent))
        parent = row.id
    return result[-limit:] if limit > 0 else []


def to_message(row: Sequence[Any], parent: str | None) -> Message:
    """seq, id, parent, parent's id (not looked at), role, text, body, status, model, tokens, created_at."""
    seq, id, _, _, role, text, body, status, model, tokens, created_at = row
    if body is None:
        # As most messages are; this runs for each of the tail in every turn.
        return Message(
            id=id,
            role=role,
            text=text,
            status=status,
            model=model,
            tokens=tokens,
            created_at=from_micros(created_at),
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
        created_at=from_micros(created_at),
        seq=seq,
        parent=parent,
    )


def to_conversation(row: Row) -> Conversation:
    """A row of ``conversation``."""
    _, owner, id, title, metadata, pinned, archived, version, etag, last_seq, _, head, *_, created, updated, expires = (
        row
    )
    return Conversation(
        id=id,
        owner=owner,
        title=title,
        metadata=decode_strings(metadata),
        pinned=pinned,
        archived=archived,
        version=version,
        etag=etag,
        last_seq=last_seq,
        head=head,
        created_at=from_micros(created),
        updated_at=from_micros(updated),
        expires_at=None if expires is None else from_micros(expires),
    )


def to_answer(owner: str, id: str, row: Row, token: str = "") -> Answer:
    """id, question's id, text, model, cancel, created_at, lease_until."""
    answer, question, text, model, cancel, created_at, lease_until = row
    return Answer(
        id=answer,
        owner=owner,
        conversation=id,
        question=question or "",
        text=text,
        model=model,
        token=token,
        cancel=cancel,
        created_at=from_micros(created_at),
        lease_until=from_micros(lease_until),
    )


def batch(ref: Ref, messages: Sequence[Message]) -> list[Any]:
    """The nine columns of a batch: of a single message its values, of several (or none) lists of them."""
    columns = [
        (
            m.id,
            m.role,
            m.text,
            encode_body(m),
            m.status,
            m.model,
            m.tokens,
            None if m.created_at is None else to_micros(m.created_at),
            terms(ref, m.text),
        )
        for m in messages
    ]
    if len(columns) == 1:
        return list(columns[0])
    return [list(column) for column in zip(*columns, strict=True)] if columns else [[] for _ in range(_COLUMNS)]


_COLUMNS: Final = 9


def refusal(ref: Ref, reply: Reply, expect: int | str | None = None) -> DaramError:
    """The error that a row of such a kind stands for."""
    match reply.kind:
        case "missing":
            return NotFound("conversation", ref.id)
        case "gone":
            return Gone("conversation", ref.id)
        case "unmet" if expect is not None:
            have = reply.version if isinstance(expect, int) else reply.etag
            return conflicts.not_as_expected(ref.id, have, expect)
        case "no message":
            return NotFound("message", reply.id)
        case "gone message" | "gone answer":
            return Gone("message", reply.id)
        case "empty":
            return NotFound("message", "(the conversation is empty)")
        case "taken":
            return conflicts.answer_id_is_taken(reply.id)
        case "busy" | "late":
            return ConversationBusy(reply.id, dead=reply.kind == "late" or is_dead(reply.process))
        case _:
            return StoreCorrupt(f"the server answered {reply.kind!r}, which this Daram does not know")
