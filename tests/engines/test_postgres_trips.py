"""A whole turn of the chatbot on PostgreSQL, counted by a proxy: it costs the same at any length.

It is two writes and no read; where the conversation is longer than what the model is given, one search in it for what
the user said before comes between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.postgres import Databases
from tests.unit.chat_script import ScriptedModel, chatbot

from daram.cache.cached import CachedStore
from daram.cache.memory import MemoryCache
from daram.model import user
from daram.store.base import Store
from daram.store.postgres.engine import PostgresStore
from daram.store.postgres.lanes import Row
from daram.testing.proxy import TcpProxy

OWNER = "owner"


@pytest.mark.parametrize("length", [6, 300, 3_000])
@pytest.mark.parametrize("cache", [True, False])
async def test_a_turn_does_not_grow(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, length: int, cache: bool
) -> None:
    statements: list[str] = []
    async with TcpProxy(databases.server.port) as proxy:
        engine = PostgresStore(databases.url("trips", port=proxy.port), pool_size=1)
        store: Store = CachedStore(engine, MemoryCache()) if cache else engine
        for start in range(0, length, 100):
            count = min(100, length - start)
            await store.append(OWNER, "c", [user(f"message {start + i}") for i in range(count)], create=True)
        fetch = engine.pool.fetch

        async def counting(query: bytes, values: Sequence[Any] = (), *, writes: bool = True, **more: bool) -> list[Row]:
            statements.append("write" if writes else "search" if b".search_" in query else "read")
            return await fetch(query, values, writes=writes, **more)

        monkeypatch.setattr(engine.pool, "fetch", counting)
        model = ScriptedModel()
        # A checkpoint a second would be counted too where the machine is slow.
        async with chatbot(store, model, checkpoint_every=3600.0, lease=7200.0) as bot:
            for number in range(4):
                statements.clear()
                before = proxy.round_trips
                model.script(f"answer {number}")
                answer = await bot.ask(OWNER, "c", f"question {number}")
                assert answer.text == f"answer {number}"
                assert proxy.round_trips - before == len(statements)
                if number:  # the first fills the cache
                    assert statements == (["write", "write"] if length < 20 else ["write", "search", "write"])
        if cache:
            assert (store.hits, store.misses) == (3, 1)  # type: ignore[attr-defined]
        await store.close()
