"""A cache in the process: least recently used out first, bounded by bytes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from daram.cache.entry import STAMP

# What a value costs beside its own bytes: key, tuple, links.
_OVERHEAD = 300


class MemoryCache:
    """At most ``max_bytes`` in all, each value for ``ttl`` seconds. Safe from any thread."""

    def __init__(
        self, *, max_bytes: int = 64 << 20, ttl: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._values: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    async def get(self, key: bytes) -> bytes | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            if found[0] <= self._clock():
                self._forget(key)
                return None
            self._values.move_to_end(key)
            return found[1]

    async def put(self, key: bytes, value: bytes) -> None:
        with self._lock:
            self._put(key, value)

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        with self._lock:
            found = self._values.get(key)
            if found is None or found[1][:STAMP] == stamp:
                self._put(key, value)
            else:
                self._forget(key)

    async def drop(self, key: bytes) -> None:
        with self._lock:
            self._forget(key)

    async def describe(self) -> str:
        return f"process memory, {self._bytes:,} of {self._max_bytes:,} bytes, {len(self._values):,} conversations"

    async def close(self) -> None:
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def _put(self, key: bytes, value: bytes) -> None:
        self._forget(key)
        self._values[key] = (self._clock() + self._ttl, value)
        self._bytes += len(value) + _OVERHEAD
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._values)))

    def _forget(self, key: bytes) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._bytes -= len(found[1]) + _OVERHEAD
