"""The writes on conversations and messages: plain functions that run inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from daram import ids
from daram.codec import encode_body, encode_strings, from_micros, to_micros
from daram.errors import Gone, NotFound
from daram.model import ROOT, Appended, Conversation, Message, Unset
from daram.store import conflicts
from daram.store.primitives import TOMBSTONE_SECONDS, AppendSpec, Changes, Ref
from daram.store.sqlite import passages, rows
from daram.store.sqlite.index import unindex_conversation, unindex_message
from daram.store.sqlite.rows import Row, Stored, fetch, one, run, value

# What one transaction deletes at most of many conversations: so many of them, or a few more messages than these.
_STEP = 500
_STEP_MESSAGES = 5000


def require(db: apsw.Connection, ref: Ref, now: int) -> Stored:
    """The conversation, or ``Gone`` within a day of its deletion, else ``NotFound``."""
    found = rows.find(db, ref, now)
    if found is None:
        if _is_tombstoned(db, ref, now):
            raise Gone("conversation", ref.id)
        raise NotFound("conversation", ref.id)
    return found


def _is_tombstoned(db: apsw.Connection, ref: Ref, now: int) -> bool:
    oldest = now - TOMBSTONE_SECONDS * 1_000_000
    return one(db, "find_tombstone", (ref.key, oldest)) is not None


def create(
    db: apsw.Connection, ref: Ref, now: int, title: str | None, metadata: dict[str, str], expires_at: int | None
) -> Stored:
    """A new conversation in the place of none, of a deleted or of an expired one."""
    if rows.find(db, ref, now) is not None:
        raise conflicts.exists(ref.id)
    if one(db, "find_conversation", (ref.key,)) is not None:
        clear(db, ref)
    run(db, "delete_tombstone", (ref.key,))
    run(
        db,
        "insert_conversation",
        (ref.key, ref.owner, ref.id, title, encode_strings(metadata), ids.etag(), now, now, expires_at),
    )
    found = rows.find(db, ref, now if expires_at is None else min(now, expires_at - 1))
    assert found is not None
    return found


def find_or_create(db: apsw.Connection, ref: Ref, now: int, may_create: bool) -> Stored:
    """The conversation, made where the caller allows it and it was not deleted lately."""
    found = rows.find(db, ref, now)
    if found is not None:
        return found
    if not may_create or _is_tombstoned(db, ref, now):
        return require(db, ref, now)
    return create(db, ref, now, None, {}, None)


def clear(db: apsw.Connection, ref: Ref) -> None:
    """Remove everything of a conversation: rows, documents of the search index, running answers."""
    unindex_conversation(db, ref.key)
    for name in ("delete_messages", "delete_leaves", "delete_answers", "delete_conversation"):
        run(db, name, (ref.key,))


def delete(db: apsw.Connection, ref: Ref, now: int) -> None:
    """Remove it and leave a tombstone."""
    clear(db, ref)
    run(db, "put_tombstone", (ref.key, now))


def update(db: apsw.Connection, ref: Ref, now: int, changes: Changes) -> Conversation:
    """Change the fields that are given."""
    found = rows.find(db, ref, now)
    if found is None:
        raise NotFound("conversation", ref.id)
    if not isinstance(changes.title, Unset):
        found.title = changes.title
    if not isinstance(changes.metadata, Unset):
        found.metadata = encode_strings(changes.metadata)
    if not isinstance(changes.pinned, Unset):
        found.pinned = int(changes.pinned)
    if not isinstance(changes.archived, Unset):
        found.archived = int(changes.archived)
    if not isinstance(changes.expires_at, Unset):
        found.expires_at = None if changes.expires_at is None else to_micros(changes.expires_at)
    found.version += 1
    found.etag = ids.etag()
    run(
        db,
        "update_conversation",
        (
            found.version,
            found.etag,
            found.title,
            found.metadata,
            found.pinned,
            found.archived,
            found.expires_at,
            found.key,
        ),
    )
    return rows.conversation(db, found)


def append(db: apsw.Connection, ref: Ref, now: int, spec: AppendSpec) -> tuple[Appended, Stored]:
    """Append, or recognise the batch as stored already (P3)."""
    found = find_or_create(db, ref, now, spec.create)
    repeated = find_repeated(db, found, spec)
    if repeated is not None:
        return repeated, found
    check_expectation(found, spec.expect)
    parent = resolve_parent(db, found, spec.parent)
    previous = found.etag
    stored = insert(db, found, now, spec.messages, parent, make_head=True)
    return appended(db, found, previous, stored, parent, spec.window), found


def appended(
    db: apsw.Connection, found: Stored, previous: str, stored: list[Message], parent: int, window: int
) -> Appended:
    """The answer to an append: ``stored`` stands behind ``parent``, and the tail ends with it."""
    earlier = rows.tail(db, found.key, parent, found.branched, max(0, window - len(stored)))
    return Appended(
        conversation=found.id,
        version=found.version,
        etag=found.etag,
        previous_etag=previous,
        parent=stored[0].parent if stored else rows.name_of(db, found.key, parent),
        messages=stored,
        tail=earlier + stored[max(0, len(stored) - window) :],
    )


def check_expectation(found: Stored, expect: int | str | None) -> None:
    """Raise ``Conflict`` unless the conversation has the version or etag that the caller believes."""
    if expect is None:
        return
    have = found.version if isinstance(expect, int) else found.etag
    if have != expect:
        raise conflicts.not_as_expected(found.id, have, expect)


def resolve_parent(db: apsw.Connection, found: Stored, parent: str | None) -> int:
    """The number of the message to follow (0: none)."""
    if parent is None:
        return found.head
    if parent == ROOT:
        return 0
    return int(find_message(db, found, parent)[0])


def find_message(db: apsw.Connection, found: Stored, id: str) -> Row:
    """The row of a message by its id; ``NotFound`` or ``Gone``."""
    row = one(db, "message_by_id", (found.key, id))
    if row is None:
        raise NotFound("message", id)
    if row[10]:
        raise Gone("message", id)
    return row


def find_repeated(db: apsw.Connection, found: Stored, spec: AppendSpec) -> Appended | None:
    """None where no id of the batch is stored; the no-op's answer where all are, contiguous, equal; else Conflict."""
    key = found.key
    answering = {row[0] for row in fetch(db, "answers", (key,))} if found.answering else ()
    stored: list[Row] = []
    for message in spec.messages:
        if message.id in answering:
            raise conflicts.id_is_taken(message.id)
        row = one(db, "message_by_id", (key, message.id))
        if row is not None:
            if row[10]:
                raise Gone("message", message.id)
            stored.append(row)
    if not stored:
        return None
    if len(stored) < len(spec.messages):
        raise conflicts.id_is_taken(stored[0][1])
    previous: Row | None = None
    for message, row in zip(spec.messages, stored, strict=True):
        mine = rows.to_message(row, None)
        if not mine.same_content(message) or message.created_at not in (None, mine.created_at):
            raise conflicts.id_is_taken(message.id)
        if previous is not None and not row[0] == previous[0] + 1 == row[2] + 1:
            raise conflicts.id_is_taken(message.id)
        previous = row
    parent = int(stored[0][2])
    wanted = spec.parent
    if wanted is not None and wanted != (rows.name_of(db, key, parent) or ROOT):
        raise conflicts.id_is_taken(stored[0][1])
    messages = rows.to_messages(db, key, stored)
    return appended(db, found, found.etag, messages, parent, spec.window)


def insert(
    db: apsw.Connection,
    found: Stored,
    now: int,
    messages: Sequence[Message],
    parent: int,
    *,
    make_head: bool,
    question: int | None = None,
) -> list[Message]:
    """Store the messages behind ``parent``, keep the leaves, and the conversation's row (``found`` is changed too).

    ``question``: of an answer that does not follow its question directly.
    """
    key, first = found.key, found.last_seq + 1
    is_known = parent == found.head and found.head_id is not None
    parent_name = found.head_id if is_known else rows.name_of(db, key, parent)
    result: list[Message] = []
    seq, above = first, parent
    moment = from_micros(now)
    for message in messages:
        doc = None
        if message.text:
            run(db, "insert_doc", (key, seq))
            doc = db.last_insert_rowid()
        created_at = now if message.created_at is None else to_micros(message.created_at)
        row = (
            seq,
            message.id,
            above,
            message.role,
            message.text,
            encode_body(message),
            message.status,
            message.model,
            message.tokens,
            created_at,
        )
        run(db, "insert_message", (key, *row, doc, question))
        if message.parts:  # read back, so that nobody holds on to what is in them
            result.append(rows.to_message((*row, 0), parent_name))
        else:
            at = message.created_at or moment
            result.append(msgspec.structs.replace(message, seq=seq, parent=parent_name, created_at=at))
        parent_name, above, seq = message.id, seq, seq + 1
    last = seq - 1
    found.version += 1
    _keep_leaves(db, found, parent, last, make_head)
    found.last_seq = last
    if make_head:
        found.head, found.head_id = last, parent_name
    found.etag = ids.etag()
    found.updated_at = now
    run(
        db,
        "touch_conversation",
        (found.version, found.etag, found.last_seq, found.head, found.branched, now, key),
    )
    return result


def _keep_leaves(db: apsw.Connection, found: Stored, parent: int, last: int, make_head: bool) -> None:
    if not found.branched:
        if parent == found.head:
            return  # still one straight line: its only leaf is the head
        found.branched = 1
        if found.head:
            run(db, "put_leaf", (found.key, found.head, found.version - 1))
        run(db, "put_leaf", (found.key, last, found.version if make_head else 0))
        return
    moved = one(db, "delete_leaf", (found.key, parent))
    used = found.version if make_head else moved[0] if moved is not None else 0
    run(db, "put_leaf", (found.key, last, used))


def delete_message(db: apsw.Connection, ref: Ref, now: int, message_id: str) -> Conversation:
    """Leave a contentless tombstone in its place."""
    found = rows.find(db, ref, now)
    if found is None:
        raise NotFound("conversation", ref.id)
    row = one(db, "message_by_id", (found.key, message_id))
    if row is None or row[10]:
        raise NotFound("message", message_id)
    doc = value(db, "message_doc", (found.key, row[0]))
    if doc is not None:
        unindex_message(db, doc)
    run(db, "erase_message", (found.key, row[0]))
    return _moved_head(db, found, found.head)


def use_branch(db: apsw.Connection, ref: Ref, now: int, message_id: str) -> Conversation:
    """Make the leaf last used under the message the head."""
    found = rows.find(db, ref, now)
    if found is None:
        raise NotFound("conversation", ref.id)
    row = one(db, "message_by_id", (found.key, message_id))
    if row is None or row[10]:
        raise NotFound("message", message_id)
    leaf = rows.leaf_under(db, found, row[0])
    value = _moved_head(db, found, leaf)
    if found.branched:
        run(db, "put_leaf", (found.key, leaf, found.version))
    return value


def _moved_head(db: apsw.Connection, found: Stored, head: int) -> Conversation:
    found.head, found.head_id = head, None
    found.version += 1
    found.etag = ids.etag()
    run(db, "move_head", (found.version, found.etag, head, found.key))
    return rows.conversation(db, found)


def delete_owner(db: apsw.Connection, owner: str, now: int) -> int:
    """Some conversations of one owner, returns how many; once there are none, the records and documents."""
    found = _few(fetch(db, "owner_conversations", (owner, _STEP)))
    for ref in found:
        delete(db, ref, now)
    if not found:
        run(db, "delete_owner_records", (owner,))
        passages.delete_owner(db, owner)
    return len(found)


def purge(db: apsw.Connection, now: int, limit: int) -> int:
    """Some expired conversations; once there are none, old tombstones, expired records and what was never published.

    What has expired leaves no tombstone: its id may be used again, after the purge as before it.
    """
    found = _few(fetch(db, "expired_conversations", (now, min(limit, _STEP))))
    for ref in found:
        clear(db, ref)
    if not found:
        run(db, "delete_old_tombstones", (now - TOMBSTONE_SECONDS * 1_000_000,))
        run(db, "delete_expired_records", (now,))
        passages.purge(db, now)
    return len(found)


def _few(found: list[Row]) -> list[Ref]:
    """As many of these conversations as one transaction may delete without holding up everybody else."""
    few: list[Ref] = []
    size = 0
    for key, owner, id, messages in found:
        few.append(Ref(owner, id, key))
        size += messages
        if size >= _STEP_MESSAGES:
            break
    return few
