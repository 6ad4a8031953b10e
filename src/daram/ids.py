"""Identifiers: UUIDv7 (RFC 9562) in hexadecimal behind a prefix, so that they sort by the time of their making."""

from __future__ import annotations

import os
import threading
import time
from hashlib import blake2b

_lock = threading.Lock()
_last = 0


def _renew() -> None:
    # A fork in mid-draw must not leave the child a lock that nobody will release.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def uuid7() -> str:
    """A UUIDv7 as 32 hexadecimal digits; within one process each is greater than the one before.

    Layout: RFC 9562 section 5.7, with 12 bits of sub-millisecond time in ``rand_a`` (method 3 of section 6.2).
    """
    global _last
    ns = time.time_ns()
    stamp = (ns // 1_000_000 << 12) | ((ns % 1_000_000) * 4096 // 1_000_000)
    with _lock:
        _last = stamp = max(stamp, _last + 1)
    noise = int.from_bytes(os.urandom(8), "big") >> 2
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | noise
    return f"{value:032x}"


def conversation_id() -> str:
    """A new public id of a conversation: ``conv_`` and a UUIDv7."""
    return "conv_" + uuid7()


def message_id() -> str:
    """A new id of a message: ``msg_`` and a UUIDv7."""
    return "msg_" + uuid7()


def etag() -> str:
    """64 random bits: unlike a version number it never repeats after a restore or a re-creation."""
    return os.urandom(8).hex()


def conversation_key(owner: str, id: str) -> bytes:
    """The internal key of a conversation: 16 bytes of BLAKE2b over the length-prefixed owner and the public id.

    Two owners may use the same public id and learn nothing of each other.
    """
    raw = owner.encode()
    return blake2b(len(raw).to_bytes(4, "big") + raw + id.encode(), digest_size=16, person=b"daram.conv").digest()


def owner_key(owner: str) -> bytes:
    """The internal key of an owner: 8 bytes of BLAKE2b."""
    return blake2b(owner.encode(), digest_size=8, person=b"daram.owner").digest()
