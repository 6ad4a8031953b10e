"""What a server does beside its work: what has expired is deleted, again and again, whatever fails in between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from daram.chat.recover import purge_all, purge_forever
from daram.store.memory import MemoryStore
from daram.testing import FaultyStore
from daram.testing.faulty import Fault

PAST = datetime(2001, 1, 1, tzinfo=UTC)


async def test_everything_that_has_expired_goes_however_much_it_is() -> None:
    store = MemoryStore()
    for n in range(2100):
        await store.create("ann", id=f"c{n}", expires_at=PAST)
    await store.create("ann", id="kept")
    assert await purge_all(store) == 2100
    assert len(store.data.threads) == 1


async def test_the_server_goes_on_after_a_purge_that_failed() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner)
    store.plan("purge", Fault(kind="raise"))
    await store.create("ann", id="old", expires_at=PAST)
    purging = asyncio.create_task(purge_forever(store, 0.01))
    async with asyncio.timeout(60):
        while inner.data.threads:
            await asyncio.sleep(0.01)
    assert store.calls.count("purge") >= 2
    purging.cancel()
    await asyncio.gather(purging, return_exceptions=True)
    assert purging.cancelled()
