"""Values to bytes and back: MessagePack with a format number in front, never anything that can run (P9)."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from daram import ids
from daram.errors import InvalidInput, StoreCorrupt
from daram.model import Message, Part

BODY_FORMAT = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Up to here (the year 2242) a float of seconds tells microseconds apart, and the quick way is exact.
_EXACT = (1 << 33) * 1_000_000


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, array_like=False):
    """What of a message has no column: ``p`` parts, ``m`` metadata, ``u`` usage."""

    p: tuple[Part, ...] = ()
    m: dict[str, str] = {}
    u: dict[str, int] | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)
_strings = msgspec.msgpack.Decoder(dict[str, str])
_attributes = msgspec.msgpack.Decoder(dict[str, str | int | float | bool])


def encode_body(message: Message) -> bytes | None:
    """Parts, metadata and usage as one byte of format and MessagePack; None where there are none."""
    if not message.parts and not message.metadata and message.usage is None:
        return None
    return bytes((BODY_FORMAT,)) + _encoder.encode(_Body(p=message.parts, m=message.metadata, u=message.usage))


def decode_body(data: bytes | None) -> tuple[tuple[Part, ...], dict[str, str], dict[str, int] | None]:
    """The inverse of ``encode_body``; raises ``StoreCorrupt`` on anything else."""
    if data is None:
        return (), {}, None
    if data[:1] != bytes((BODY_FORMAT,)):
        raise StoreCorrupt(f"a message body has format {data[:1].hex() or 'none'}, but this Daram knows {BODY_FORMAT}")
    try:
        body = _decoder.decode(data[1:])
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"a message body cannot be read: {error}") from None
    return body.p, body.m, body.u


def encode_strings(value: dict[str, str]) -> bytes | None:
    """A conversation's metadata as MessagePack; None where empty."""
    return _encoder.encode(value) if value else None


def decode_strings(data: bytes | None) -> dict[str, str]:
    """The inverse of ``encode_strings``."""
    if data is None:
        return {}
    try:
        return _strings.decode(data)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"a conversation's metadata cannot be read: {error}") from None


def encode_attributes(value: dict[str, str | int | float | bool]) -> bytes | None:
    """A document's metadata as MessagePack; None where empty."""
    return _encoder.encode(value) if value else None


def decode_attributes(data: bytes | None) -> dict[str, str | int | float | bool]:
    """The inverse of ``encode_attributes``."""
    if data is None:
        return {}
    try:
        return _attributes.decode(data)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"a document's metadata cannot be read: {error}") from None


def to_micros(value: datetime) -> int:
    """Microseconds since 1970 (UTC)."""
    return (value - _EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    """The inverse of ``to_micros``."""
    if -_EXACT < value < _EXACT:
        return datetime.fromtimestamp(value / 1_000_000, UTC)
    return _EPOCH + timedelta(microseconds=value)


def all_from_micros(values: list[int]) -> list[datetime]:
    """``from_micros`` of each, in a third of the time."""
    if values and min(values) > -_EXACT and max(values) < _EXACT:
        return msgspec.convert([value / 1_000_000 for value in values], list[datetime], strict=False)
    return [from_micros(value) for value in values]


def encode_cursor(kind: str, scope: bytes, *position: int | str | bytes) -> str:
    """An opaque cursor: what kind of list, whose (some bytes of its key) and where."""
    return urlsafe_b64encode(_encoder.encode((kind, scope[:6], *position))).decode().rstrip("=")


def decode_cursor(cursor: object, kind: str, scope: bytes, *types: type) -> list[Any]:
    """The position in a cursor; raises ``InvalidInput`` unless it was made for this kind and scope."""
    try:
        if not isinstance(cursor, str):
            raise TypeError
        found = msgspec.msgpack.decode(urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        if found[:2] != [kind, scope[:6]] or [type(v) for v in found[2:]] != list(types):
            raise ValueError
    except (TypeError, ValueError, KeyError, msgspec.DecodeError):
        raise InvalidInput("cursor", "is not a next_cursor of this list; begin again without one") from None
    return list(found[2:])


def list_cursor(owner: str, updated_at: datetime, id: str) -> str:
    """Where the list of an owner's conversations goes on behind this one."""
    key = ids.conversation_key(owner, id)
    return encode_cursor("list", ids.owner_key(owner), to_micros(updated_at), key)


def messages_cursor(owner: str, id: str, order: str, seq: int, leaf: int) -> str:
    """Where the messages of the branch that ends at ``leaf`` go on behind ``seq``."""
    return encode_cursor(f"messages.{order}", ids.conversation_key(owner, id), seq, leaf)


def records_scope(owner: str, namespace: str, prefix: str) -> bytes:
    """Whose records the cursors of a scan are for; no two pairs of namespace and prefix give the same."""
    return ids.conversation_key(owner, f"{namespace}\n{prefix}")  # names hold no control characters


def records_cursor(owner: str, namespace: str, prefix: str, key: str) -> str:
    """Where the records below a prefix go on behind a key, whether or not it is there."""
    return encode_cursor("records", records_scope(owner, namespace, prefix), key)
