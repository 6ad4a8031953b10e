"""What is deleted, replaced or brought in leaves nothing in a cache that a turn would be given (P8)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.caches import CACHES

from daram import sync
from daram.cache import cached
from daram.cache.base import Cache
from daram.cache.breaker import Breaker
from daram.cache.cached import CachedStore
from daram.cli.app import cli
from daram.ids import conversation_key
from daram.memory import Memory
from daram.model import user
from daram.store.base import Store
from daram.store.memory import MemoryData, MemoryStore
from daram.testing.servers import RedisServer
from daram.transfer.copy import copy

IDS = ("one", "two")
KIM, LEE = "kim", "lee"
PREFIX = b"daram:cache:"


@pytest.fixture(params=[*CACHES])
async def caches(
    request: pytest.FixtureRequest, valkey_server: RedisServer, tmp_path: Path
) -> AsyncIterator[Callable[[], Cache]]:
    """Makes caches on the same data, where that is in a server."""
    made: list[Cache] = []

    def make() -> Cache:
        made.append(CACHES[request.param](valkey_server.url, f"{tmp_path}:"))
        return made[-1]

    yield make
    for cache in made:
        await cache.close()


def behind(engine: Store, cache: Cache) -> CachedStore:
    """Whatever the machine does, the cache is asked."""
    return CachedStore(engine, cache, breaker=Breaker(budget=60, failures=1 << 30))


async def say(store: Store, owner: str, id: str, words: str, n: int = 3) -> list[str]:
    """``n`` turns; returns what stands behind the last."""
    texts: list[str] = []
    for i in range(n):
        done = await store.append(owner, id, [user(f"{words} {i}")], create=True, window=10)
        texts = [m.text for m in done.tail]
    return texts


async def kept(cache: Cache, owner: str) -> list[str]:
    """Of which conversations it has something."""
    return [id for id in IDS if await cache.get(conversation_key(owner, id)) is not None]


async def test_everything_of_an_owner_leaves_the_cache(caches: Callable[[], Cache]) -> None:
    cache = caches()
    store = behind(MemoryStore(), cache)
    for owner in (KIM, LEE):
        for id in IDS:
            await say(store, owner, id, "secret")
    assert store.hits == 8
    assert await kept(cache, KIM) == await kept(cache, LEE) == [*IDS]
    assert await store.delete_owner(KIM) == 2
    assert await kept(cache, KIM) == []
    assert await kept(cache, LEE) == [*IDS]
    for id in IDS:
        await store.create(KIM, id=id)
        assert await say(store, KIM, id, "new") == ["new 0", "new 1", "new 2"]


@pytest.mark.parametrize("away", ["deaf", "another process"])
async def test_what_a_cache_could_not_forget_is_given_to_nobody(caches: Callable[[], Cache], away: str) -> None:
    """Erased past this cache; the next conversations of the same names have as many messages."""
    engine, cache = MemoryStore(), caches()
    store = behind(engine, cache)
    for id in IDS:
        await say(store, KIM, id, "secret")
    eraser: Store = engine if away == "deaf" else behind(engine, caches())
    assert await eraser.delete_owner(KIM) == 2
    for id in IDS:
        await engine.create(KIM, id=id)
        for i in range(3):
            await engine.append(KIM, id, [user(f"new {i}")])
        assert await say(store, KIM, id, "later", 1) == ["new 0", "new 1", "new 2", "later 0"]
        begun = await store.begin_turn(KIM, id, [user("and now")], window=10)
        assert [m.text for m in begun.appended.tail][-2:] == ["later 0", "and now"]
        pages = [m.text for m in (await store.messages(KIM, id)).items], [m.text for m in await store.tail(KIM, id)]
        assert not any("secret" in text for page in pages for text in page)


@pytest.mark.parametrize("through", ["the same cache", "past it"])
async def test_what_a_copy_replaces_is_given_to_nobody(caches: Callable[[], Cache], through: str) -> None:
    engine, cache = MemoryStore(), caches()
    store = behind(engine, cache)
    await say(store, KIM, "one", "at the target")
    async with Memory(MemoryStore(MemoryData()), "") as source:
        await say(source, KIM, "one", "at the source", 5)
        await say(source, KIM, "two", "at the source", 5)
        target = Memory(store if through == "the same cache" else engine, "")
        report = await copy(source, target, replace=True)
    assert (report.complete, report.new, report.replaced) == (True, 1, 1)
    for id in IDS:
        tail = await say(store, KIM, id, "later", 1)
        assert tail == [*(f"at the source {i}" for i in range(5)), "later 0"]
        assert await say(store, KIM, id, "again", 1) == [*tail, "again 0"]


def test_the_command_reaches_the_cache(valkey_server: RedisServer, tmp_path: Path, monkeypatch: Any) -> None:
    cache = valkey_server.url.replace("/0", "/5")
    monkeypatch.setattr(cached, "Breaker", lambda: Breaker(budget=60, failures=1 << 30))
    monkeypatch.setenv("DARAM_DATA", str(tmp_path))
    monkeypatch.setenv("DARAM_STORE", f"sqlite:///{tmp_path}/d.db")
    monkeypatch.setenv("DARAM_CACHE", cache)
    with sync.open(f"sqlite:///{tmp_path}/d.db", cache) as memory:
        for owner in (KIM, LEE):
            for _ in range(2):
                memory.append(owner, "one", [user("secret")], create=True, window=5)
    with valkey_server.connect() as client:
        client.select(5)
        assert all(client.exists(PREFIX + conversation_key(owner, "one")) for owner in (KIM, LEE))
        assert CliRunner().invoke(cli, ["erase", KIM, "--yes"]).exit_code == 0
        assert client.exists(PREFIX + conversation_key(LEE, "one"))
        assert not client.exists(PREFIX + conversation_key(KIM, "one"))
