"""What is kept of a conversation in a cache, and how: one byte of format, the stamp, MessagePack, a checksum.

The checksum is keyed BLAKE2b over everything and the conversation's key, so that a torn, garbled or swapped value is a
miss; with a secret key (``DARAM_CACHE_KEY``) it is a MAC that keeps out whoever else can write to the cache.
"""

from __future__ import annotations

import hmac
from hashlib import blake2b

import msgspec

from daram.model import Message

FORMAT = 1
STAMP = 17
"""How many bytes at the beginning of a value say which state it is of: the format and the etag (16 characters)."""
_SUM = 16


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """The end of the branch in use at one state of a conversation.

    ``head``: the id of its last message (None: empty); ``complete``: the tail is the whole branch.
    """

    owner: str
    etag: str
    head: str | None
    complete: bool
    tail: list[Message]

    def extended(self, previous_etag: str, parent: str | None, etag: str, new: list[Message]) -> Entry | None:
        """The entry of the next state, or None where this is not the state that ``new`` was appended to."""
        if self.etag != previous_etag or self.head != parent or not new:
            return None
        return Entry(self.owner, etag, new[-1].id, self.complete, self.tail + new)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def stamp(etag: str) -> bytes:
    """How a value of that state begins."""
    return bytes((FORMAT,)) + etag.encode()[: STAMP - 1].ljust(STAMP - 1)


def _checksum(secret: bytes, key: bytes, data: bytes) -> bytes:
    return blake2b(key + data, key=secret, digest_size=_SUM, person=b"daram.cache").digest()


def encode(entry: Entry, key: bytes, secret: bytes, limit: int) -> bytes | None:
    """The value to keep, at most ``limit`` bytes: older messages are left out until it fits; None: nothing fits."""
    while True:
        data = stamp(entry.etag) + _encoder.encode(entry)
        if len(data) + _SUM <= limit:
            return data + _checksum(secret, key, data)
        if len(entry.tail) <= 1:
            return None
        entry = Entry(entry.owner, entry.etag, entry.head, False, entry.tail[-(len(entry.tail) // 2) :])


def decode(value: bytes | None, key: bytes, secret: bytes, limit: int) -> Entry | None:
    """The entry, or None for whatever is not one: nothing here raises or runs, whatever the bytes are."""
    if not isinstance(value, bytes) or not STAMP + _SUM < len(value) <= limit:
        return None
    data, found = value[:-_SUM], value[-_SUM:]
    if not hmac.compare_digest(found, _checksum(secret, key, data)):
        return None
    try:
        entry = _decoder.decode(data[STAMP:])
    except (msgspec.MsgspecError, ValueError):
        return None
    return entry if data[:STAMP] == stamp(entry.etag) else None
