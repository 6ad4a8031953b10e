"""What the answers to appends and turns mean. No statement is run here: these are functions of rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from daram.codec import from_micros
from daram.errors import ConversationBusy, Gone
from daram.model import ROOT, Appended, Conversation, Message, Turn
from daram.store import conflicts
from daram.store.postgres.rows import Reply, Row, of_kind, refusal, tail, to_conversation
from daram.store.primitives import AppendSpec, Ref
from daram.store.process import is_dead


def expectation(expect: int | str | None) -> tuple[int | None, str | None]:
    """The version and the etag to ask for."""
    if isinstance(expect, int):
        # No conversation has a version of 64 bits and more: -1 says the same, and fits.
        return (expect if 0 <= expect < 1 << 63 else -1), None
    return None, expect


def changed(ref: Ref, rows: Sequence[Row], message_id: str) -> Conversation:
    """The answer to a change of one conversation: what came of it, and the conversation."""
    kind, *conversation = rows[0]
    if kind != "changed":
        reply = Reply._make([kind, *[None] * 18])
        raise refusal(ref, reply._replace(id=message_id))
    return to_conversation(tuple(conversation))


def appended(ref: Ref, spec: AppendSpec, found: list[Reply]) -> Appended:
    """The answer to an append."""
    first = found[0]
    if first.kind == "appended":
        stored = _stored(first, spec.messages)
        older = tail(found, spec.window - len(stored))
        return _answer(ref, first, first.parent_id, stored, [*older, *stored][-spec.window :] if spec.window else [])
    if first.kind == "repeated":
        return _repeated(ref, spec, found)
    if first.kind == "unchanged":
        return _answer(ref, first, first.id, [], tail(found, spec.window))
    raise refusal(ref, first, spec.expect)


def finished(ref: Ref, message: Message, found: list[Reply]) -> Appended | None:
    """The answer to a finish; None where the lease was lost."""
    first = found[0]
    if first.kind == "appended":
        return _answer(ref, first, first.parent_id, _stored(first, [message]), [])
    stored = [reply.message() for reply in of_kind(found, "stored")]
    if stored and stored[0].same_content(message):
        return _answer(ref, first, stored[0].parent, stored, [])
    return None


def turn(ref: Ref, spec: AppendSpec, found: list[Reply]) -> Turn | None:
    """What came of a turn; None where the server only told what is stored, and is to be asked again."""
    outcome = {reply.kind: reply for reply in found}
    for kind in ("taken", "gone answer", "busy", "late"):
        if kind in outcome:
            raise refusal(ref, outcome[kind])
    done = appended(ref, spec, found)
    started = outcome.get("started")
    if started is not None and not is_dead(started.process):
        return Turn(state="started", appended=done, answer=started.answer(ref, mine=True))
    running = started or outcome.get("running")
    if running is not None and not is_dead(running.process):
        return Turn(state="running", appended=done, answer=running.answer(ref))
    if "finished" in outcome:
        return Turn(state="finished", appended=done, message=outcome["finished"].message())
    if running is not None:
        raise ConversationBusy(running.id, dead=True)
    return None


def _stored(first: Reply, messages: Sequence[Message]) -> list[Message]:
    """The batch as it is stored now: the server told the first number, parent and the moment."""
    result: list[Message] = []
    parent = first.parent_id
    for seq, message in enumerate(messages, first.seq):
        moment = message.created_at or from_micros(first.created_at)
        # A copy in depth: what the caller holds must not be what another caller gets.
        own = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message) if _has_more(message) else message
        result.append(msgspec.structs.replace(own, seq=seq, parent=parent, created_at=moment))
        parent = message.id
    return result


def _has_more(message: Message) -> bool:
    return bool(message.parts or message.metadata or message.usage)


def _answer(ref: Ref, first: Reply, parent: str | None, messages: list[Message], tail_: list[Message]) -> Appended:
    return Appended(
        conversation=ref.id,
        version=first.version,
        etag=first.etag,
        previous_etag=first.previous_etag or first.etag,
        parent=parent,
        messages=messages,
        tail=tail_,
    )


def _repeated(ref: Ref, spec: AppendSpec, found: list[Reply]) -> Appended:
    """P3: the no-op's answer where the whole batch is stored, contiguous and equal; else ``Conflict`` or ``Gone``."""
    by_id: dict[str, Reply] = {reply.id: reply for reply in of_kind(found, "stored", "gone", "answering")}
    for message in spec.messages:
        reply = by_id.get(message.id)
        if reply is not None and reply.kind == "answering":
            raise conflicts.id_is_taken(message.id)
        if reply is not None and reply.kind == "gone":
            raise Gone("message", message.id)
    present = [message.id for message in spec.messages if message.id in by_id]
    if len(present) < len(spec.messages):
        raise conflicts.id_is_taken(present[0])
    stored: list[Message] = []
    for message in spec.messages:
        old = by_id[message.id].message()
        if not old.same_content(message) or message.created_at not in (None, old.created_at):
            raise conflicts.id_is_taken(message.id)
        if stored and (old.seq != stored[-1].seq + 1 or old.parent != stored[-1].id):
            raise conflicts.id_is_taken(message.id)
        stored.append(old)
    if spec.parent is not None and spec.parent != (stored[0].parent or ROOT):
        raise conflicts.id_is_taken(stored[0].id)
    return _answer(ref, found[0], stored[0].parent, stored, tail(found, spec.window))
