"""A cached end of a conversation that proved stale is read again: what may happen in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from daram.cache.cached import CachedStore
from daram.cache.memory import MemoryCache
from daram.errors import ConfigError, InvalidInput, OutcomeUnknown
from daram.ids import conversation_key
from daram.model import Appended, user
from daram.store.base import Store
from daram.store.memory import MemoryStore
from daram.store.wrapper import StoreWrapper
from daram.testing import FaultyStore
from daram.testing.faulty import Fault


class Between(StoreWrapper):
    """Runs ``then`` behind the next append."""

    then: Callable[[], Awaitable[Any]] | None = None

    async def append(self, *args: Any, **kwargs: Any) -> Appended:
        done = await super().append(*args, **kwargs)
        if (then := self.then) is not None:
            self.then = None
            await then()
        return done


async def stale(inner: Store, store: CachedStore) -> None:
    """A conversation whose cached end is not of its present state."""
    await store.append("ann", "c", [user("one")], create=True, window=5)
    await inner.append("ann", "c", [user("two")])


async def test_nothing_of_a_deleted_conversation_comes_into_the_next_one_of_its_name() -> None:
    inner = MemoryStore()
    between = Between(inner)
    async with CachedStore(between, MemoryCache()) as store:
        await stale(inner, store)

        async def begin_anew() -> None:
            await inner.delete("ann", "c")
            await inner.create("ann", id="c")

        between.then = begin_anew
        done = await store.append("ann", "c", [user("three")], window=5)
        assert [m.text for m in done.tail] == ["three"]
        assert await inner.tail("ann", "c") == []


async def test_a_write_whose_history_cannot_be_read_can_be_repeated() -> None:
    inner = MemoryStore()
    faulty = FaultyStore(inner)
    async with CachedStore(faulty, MemoryCache()) as store:
        await stale(inner, store)
        faulty.plan("append", None, Fault(kind="raise"))
        three = user("three")
        with pytest.raises(OutcomeUnknown):
            await store.append("ann", "c", [three], window=5)
        done = await store.append("ann", "c", [three], window=5)
        assert [m.text for m in done.tail] == ["one", "two", "three"]
        assert [m.text for m in await inner.tail("ann", "c")] == ["one", "two", "three"]


@pytest.mark.parametrize("secret", [b"x" * 65, "text"])
def test_a_key_that_cannot_be_used_is_refused_at_once(secret: Any) -> None:
    with pytest.raises(ConfigError):
        CachedStore(MemoryStore(), MemoryCache(), secret=secret)


@pytest.mark.parametrize("window", [-1, 1001, None, "5", True])
async def test_a_window_that_cannot_be_is_refused_as_the_engine_refuses_it(window: Any) -> None:
    async with CachedStore(MemoryStore(), MemoryCache()) as store:
        await store.append("ann", "c", [user("one")], create=True, window=5)
        for write in (store.append, store.begin_turn):
            with pytest.raises(InvalidInput, match="window"):
                await write("ann", "c", [user("two")], window=window)
        assert [m.text for m in await store.tail("ann", "c")] == ["one"]


async def test_no_more_is_kept_than_is_asked_for() -> None:
    """Each turn writes the entry anew: what nobody reads in it would be paid for at every turn."""
    cache = MemoryCache()
    async with CachedStore(MemoryStore(), cache) as store:
        sizes = []
        for n in range(100):
            done = await store.append("ann", "c", [user(f"message {n:4}")], create=True, window=10)
            assert [m.text for m in done.tail] == [f"message {i:4}" for i in range(max(0, n - 9), n + 1)]
            sizes.append(len(await cache.get(conversation_key("ann", "c")) or b""))
        assert sizes[9] <= sizes[99] < sizes[9] * 1.2
        assert (store.hits, store.misses) == (99, 1)
        assert len((await store.append("ann", "c", [user("wider")], window=30)).tail) == 30
        assert len((await store.append("ann", "c", [user("again")], window=30)).tail) == 30
        assert (store.hits, store.misses) == (100, 2)
