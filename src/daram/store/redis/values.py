"""Messages, conversations and answers as the scripts know them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from daram.codec import decode_strings, from_micros, to_micros
from daram.errors import StoreCorrupt
from daram.model import Answer, Appended, Conversation, Message, Part
from daram.store.primitives import Ref


class _Blob(msgspec.Struct, frozen=True, omit_defaults=True):
    """What no script looks at: x text, p parts, o model, t tokens, u usage, m metadata."""

    x: str = ""
    p: tuple[Part, ...] = ()
    o: str | None = None
    t: int | None = None
    u: dict[str, int] | None = None
    m: dict[str, str] = {}


# Deterministic, so that equal messages have equal digests.
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(_Blob)
EMPTY = _encoder.encode(_Blob())
"""The blob of a message that says nothing."""


def batch_args(messages: Sequence[Message]) -> list[str | bytes | int]:
    """A batch as ``read_batch`` in ``_common.lua`` reads it."""
    args: list[str | bytes | int] = [len(messages)]
    for m in messages:
        blob = _encoder.encode(_Blob(x=m.text, p=m.parts, o=m.model, t=m.tokens, u=m.usage, m=m.metadata))
        said = f"{m.id}\n{m.role}\n{m.status}\n".encode()
        digest = blake2b(said + blob, digest_size=16, person=b"daram.msg").hexdigest()
        created = "" if m.created_at is None else str(to_micros(m.created_at))
        args += [m.id, m.role, m.status, digest, created, blob]
    return args


def to_messages(triples: Sequence[bytes]) -> list[Message]:
    """Triples of seq, stored value and the parent's id, empty where the parent is among them.

    Raises ``StoreCorrupt`` where a value is not a message.
    """
    rows = [(int(triples[n]), triples[n + 1].split(b"\n", 8), triples[n + 2]) for n in range(0, len(triples), 3)]
    names = {seq: fields[7] for seq, fields, _ in rows if len(fields) == 9}
    return [_to_message(seq, fields, parent, names) for seq, fields, parent in rows]


def _to_message(seq: int, fields: list[bytes], parent: bytes, names: dict[int, bytes]) -> Message:
    try:
        above, _, created, _, role, status, _, id, packed = fields
        blob = _decoder.decode(packed)
        parent = parent or names.get(int(above), b"")
        return Message(
            id=id.decode(),
            role=role.decode(),  # type: ignore[arg-type]  # it was validated when it was stored
            text=blob.x,
            parts=blob.p,
            status=status.decode(),  # type: ignore[arg-type]  # likewise
            model=blob.o,
            tokens=blob.t,
            usage=blob.u,
            metadata=blob.m,
            created_at=from_micros(int(created)),
            seq=seq,
            parent=parent.decode() or None,
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise StoreCorrupt(f"message {seq} of a conversation cannot be read: {error}") from None


def to_tail(reply: Sequence[Any], limit: int) -> list[Message]:
    """The reply of ``tail`` in ``_tree.lua``, oldest first.

    Raises ``StoreCorrupt`` where a value is not a message.
    """
    if len(reply) != 2:
        return to_messages(reply)[::-1]
    first, stored = reply
    fields = [value.split(b"\n", 8) for value in stored]
    names = {first: fields[0][7]} if len(stored) > limit and len(fields[0]) == 9 else {}
    if len(stored) > limit:  # that one gives the next its parent's name
        del fields[0]
        first += 1
    found = []
    for seq, each in enumerate(fields, first):
        found.append(_to_message(seq, each, b"", names))
        names = {seq: each[7]}
    return found


def to_conversation(values: Sequence[bytes]) -> Conversation:
    """The reply of ``value_of`` in ``_common.lua``. A title is "+" and the title, or empty."""
    owner, id, title, metadata, pinned, archived, version, etag, last_seq, _, _, created, updated, expires, head = (
        values
    )
    return Conversation(
        id=id.decode(),
        owner=owner.decode(),
        title=title[1:].decode() if title else None,
        metadata=decode_strings(metadata or None),
        pinned=pinned == b"1",
        archived=archived == b"1",
        version=int(version),
        etag=etag.decode(),
        last_seq=int(last_seq),
        head=head.decode() or None,
        created_at=from_micros(int(created)),
        updated_at=from_micros(int(updated)),
        expires_at=from_micros(int(expires)) if expires else None,
    )


def to_appended(ref: Ref, reply: Sequence[Any], sent: Sequence[Message], now: int, window: int) -> Appended:
    """The reply of ``append`` or ``appended`` in ``_append.lua``; ``now``: the time that was sent with the batch."""
    version, etag, previous, parent, batch, before, _ = reply
    if isinstance(batch, int):  # stored just now: what was sent, and where it stands
        messages = _placed(sent, batch, parent.decode() or None, now)
        tail = (to_tail(before, window - len(sent)) + messages)[-window:] if window else []
    else:
        messages, tail = to_messages(batch), to_tail(before, window)
    return Appended(
        conversation=ref.id,
        version=version,
        etag=etag.decode(),
        previous_etag=previous.decode(),
        parent=parent.decode() or None,
        messages=messages,
        tail=tail,
    )


def _placed(sent: Sequence[Message], seq: int, parent: str | None, now: int) -> list[Message]:
    found = []
    for message in sent:
        at = from_micros(now if message.created_at is None else to_micros(message.created_at))
        found.append(msgspec.structs.replace(message, seq=seq, parent=parent, created_at=at))
        seq, parent = seq + 1, message.id
    return found


def to_answer(ref: Ref, row: Sequence[bytes]) -> Answer:
    """The reply of ``row_value`` in ``_common.lua``."""
    id, question, text, model, token, _, cancel, created, until = row
    return Answer(
        id=id.decode(),
        owner=ref.owner,
        conversation=ref.id,
        question=question.decode(),
        text=text.decode(),
        model=model.decode() or None,
        token=token.decode(),
        cancel=cancel == b"1",
        created_at=from_micros(int(created)),
        lease_until=from_micros(int(until)),
    )
