"""Caches one behind the other: process memory, then a shared one."""

from __future__ import annotations

from collections.abc import Sequence

from daram.cache.base import Cache


class TieredCache:
    """Asks the nearest first; what a farther one gives is kept in the nearer ones. Changes go to all."""

    def __init__(self, tiers: Sequence[Cache]) -> None:
        self._tiers = list(tiers)

    async def get(self, key: bytes) -> bytes | None:
        for i, tier in enumerate(self._tiers):
            value = await tier.get(key)
            if value is not None:
                for nearer in self._tiers[:i]:
                    await nearer.put(key, value)
                return value
        return None

    async def put(self, key: bytes, value: bytes) -> None:
        for tier in self._tiers:
            await tier.put(key, value)

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        for tier in self._tiers:
            await tier.swap(key, stamp, value)

    async def drop(self, key: bytes) -> None:
        for tier in self._tiers:
            await tier.drop(key)

    async def describe(self) -> str:
        return "; then ".join([await tier.describe() for tier in self._tiers])

    async def close(self) -> None:
        for tier in self._tiers:
            await tier.close()
