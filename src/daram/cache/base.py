"""What Daram asks of a cache: bytes under keys. It may be late, slow, empty, wiped, rolled back or garbled (P4)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Cache(Protocol):
    """Bytes by the key of a conversation. Nothing that a cache does or fails to do can make a turn see stale history:
    what it gives is compared with what the engine's write returned (``daram.cache.cached``).

    Every value begins with a stamp (``STAMP`` bytes, see ``daram.cache.entry``), by which ``swap`` tells which state of
    the conversation it holds. Errors and time-outs may be raised as they come: the caller takes them for a miss.
    """

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    async def put(self, key: bytes, value: bytes) -> None:
        """Store the value, whatever was there."""

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        """Replace the value if it begins with ``stamp``; else drop it. Atomic where the cache can be."""

    async def drop(self, key: bytes) -> None:
        """Forget the value."""

    async def describe(self) -> str:
        """One line for ``daram doctor``."""

    async def close(self) -> None:
        """Let go of everything; a second call is harmless."""
