"""A store with all there is in it, and what it holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from daram.memory import Memory
from daram.testing.suite.base import say
from daram.testing.suite.transfer import branched
from daram.transfer.copy import scanned, scanned_records


async def furnish(store: Memory, straight: int = 250) -> None:
    """Conversations of three owners: branched, straight, empty, expiring; records."""
    await branched(store)
    await store.create("ben", id="empty", metadata={"k": "다"})
    for start in range(0, straight, 50):
        await say(store, *(f"m{n}" for n in range(start, min(start + 50, straight))), id="long", owner="ben")
    await say(store, "x", id="c", owner="cho\u00e9")
    await store.put_record("ann", "users", "k", b"\x00\xff")
    await store.put_record("ben", "n", "late", b"1", expires_at=datetime(2201, 1, 1, tzinfo=UTC))


async def contents(store: Memory) -> dict[str, Any]:
    """Everything that a move must keep."""
    held: dict[str, Any] = {}
    async for page in scanned(store):
        for value in page:
            entries = []
            while more := await store.log(value.owner, value.id, after=len(entries), limit=1000):
                entries += more
            key = f"{value.owner}/{value.id}"
            held[key] = msgspec.structs.replace(value, etag=""), await store.leaves(value.owner, value.id), entries
    async for records in scanned_records(store):
        for each in records:
            held[f"{each.owner}//{each.record.key}"] = each.record.value, each.record.expires_at
    return held
