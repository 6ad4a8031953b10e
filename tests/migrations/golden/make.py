"""Made ``sqlite-1.sqlite3``: run once, by the Daram whose newest schema was 1, and never again.

    python tests/migrations/golden/make.py tests/migrations/golden/sqlite-1.sqlite3

Of each later schema there will be another file, made by the last Daram that had it. They hold what this script writes,
which ``EXPECTED`` in test_golden.py describes.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

import daram
from daram.memory import Memory
from daram.model import Part


async def fill(store: Memory) -> None:
    """What is in every golden database."""
    await store.create(
        "ann", id="branched", title="다람쥐", metadata={"k": "v"}, expires_at=datetime(2201, 1, 1, tzinfo=UTC)
    )
    rich = daram.assistant("다랑어", id="a1", parts=[Part(type="image", id="p", data={"url": "x"})])
    await store.append("ann", "branched", [daram.user("question", id="q1", metadata={"a": "b"}), rich])
    await store.append("ann", "branched", [daram.user("edited", id="q2")], parent=daram.ROOT)
    await store.append("ann", "branched", [daram.user("secret", id="gone"), daram.user("last", id="l")])
    await store.delete_message("ann", "branched", "gone")
    turn = await store.begin_turn("ann", "dead", [daram.user("asked", id="q")], answer_id="a", create=True, lease=1)
    assert turn.answer is not None
    await store.checkpoint("ann", "dead", "a", turn.answer.token, "half of it", lease=0.001)
    await store.append("ben", "straight", [daram.user(f"m{n}", id=f"m{n}") for n in range(30)], create=True)
    await store.delete("ben", (await store.create("ben")).id)
    await store.put_record("ben", "n", "k", b"\x00\xff")
    await store.search("ann", "question")


async def make(path: str) -> None:
    async with daram.open(f"sqlite:///{path}") as store:
        await fill(store)
    import apsw

    db = apsw.Connection(path)
    db.pragma("journal_mode", "delete")
    db.execute("VACUUM")
    db.close()


if __name__ == "__main__":
    asyncio.run(make(sys.argv[1]))
