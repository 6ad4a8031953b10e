"""What all parts of the Redis engine stand on: its life, its clock, its scripts and what they refuse."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from daram.errors import Conflict, ConversationBusy, Gone, LeaseLost, NotFound, StoreCorrupt
from daram.store import conflicts
from daram.store.primitives import Ref
from daram.store.process import is_dead
from daram.store.records import RecordsEngine
from daram.store.redis import keys
from daram.store.redis.client import Server
from daram.store.transfer import load_was_lost
from daram.store.validate import Limits

log = logging.getLogger("daram.redis")
MICROS = 1_000_000
# How many of the newest messages a search looks at.
SEARCHED = 2000


class RedisCore(RecordsEngine):
    """The connection and the scripts."""

    def __init__(
        self, url: str, *, timeout: float, wait: int, clock_offset: Callable[[], int] | None, limits: Limits | None
    ) -> None:
        super().__init__(limits=limits)
        self.server = Server(url, timeout=timeout, wait=wait)
        self._offset = clock_offset or (lambda: 0)
        self._last_now = 0

    # --- life ---

    async def _set_up(self) -> None:
        _, warnings = await self.server.durability()
        for warning in warnings:
            log.warning("%s: %s", self.server.where, warning)

    async def _tear_down(self) -> None:
        await self.server.close()

    async def describe(self) -> dict[str, str]:
        await self._open()
        info = await self.server.facts()
        name, version = "Redis", info.get("redis_version")
        if "valkey_version" in info:
            name, version = "Valkey", info["valkey_version"]
        durability, _ = await self.server.durability()
        return {
            "engine": f"{name} {version}{' Cluster' if self.server.is_cluster else ''}",
            "location": self.server.where,
            "durability": durability,
            "schema": "1",
            "search": f"within one conversation, its newest {SEARCHED:,} messages",
        }

    # --- clocks ---

    def _clock(self) -> int:
        """Microseconds since 1970 by this process."""
        return time.time_ns() // 1000 + self._offset()

    def _now(self) -> int:
        """The same, rising: what lists are sorted by. A conversation keeps the latest; leases go by the server's."""
        self._last_now = max(self._clock(), self._last_now + 1)
        return self._last_now

    # --- scripts ---

    def _keys(self, ref: Ref) -> list[str]:
        """On a single server also those that a cluster keeps in other slots: all change at once there."""
        own = keys.of_conversation(ref.key)
        if self.server.is_cluster:
            return own
        return [*own, keys.index(ref.owner), keys.shard("expiry", ref.key), keys.shard("lease", ref.key)]

    async def _run(
        self, script: str, ref: Ref, *args: Any, writes: bool = True, expect: int | str | None = None
    ) -> Any:
        reply = await self.server.run(script, self._keys(ref), [self._offset(), *args], writes=writes)
        if reply and reply[0] == b"!":
            raise refusal(ref, [part.decode() for part in reply[1:]], expect)
        return reply

    async def _read(self, script: str, ref: Ref, *args: Any) -> Any:
        return await self._run(script, ref, *args, writes=False)


def refusal(ref: Ref, said: Sequence[str], expect: int | str | None = None) -> Exception:
    """The typed error for what a script refused."""
    kind, *rest = said
    if kind == "not as expected" and expect is not None:
        return conflicts.not_as_expected(ref.id, int(rest[0]) if isinstance(expect, int) else rest[0], expect)
    if kind == "not as loaded":
        return conflicts.not_as_loaded(ref.id, rest[0] or None, None if expect is None else str(expect))
    makers: dict[str, Callable[[], Exception]] = {
        "not found": lambda: NotFound(*rest),
        "gone": lambda: Gone(*rest),
        "exists": lambda: conflicts.exists(ref.id),
        "taken": lambda: conflicts.id_is_taken(rest[0]),
        "answer taken": lambda: conflicts.answer_id_is_taken(rest[0]),
        "busy": lambda: ConversationBusy(rest[0], dead=rest[1] == "1" or is_dead(rest[2])),
        "load lost": lambda: load_was_lost(ref.id),
        "lease lost": lambda: LeaseLost(rest[0]),
    }
    if kind in makers:
        return makers[kind]()
    return StoreCorrupt(f"a script of the Redis engine answered {kind!r}, which this Daram does not know")


REFUSALS = (Conflict, ConversationBusy, LeaseLost, NotFound)
"""What a script refuses with: nothing was changed."""
