"""A cached end of a conversation that proved stale is read again: what may happen in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from daram.cache.breaker import Breaker
from daram.cache.cached import CachedStore
from daram.cache.memory import MemoryCache
from daram.errors import ConfigError, InvalidInput, OutcomeUnknown
from daram.ids import conversation_key
from daram.model import Appended, Turn, user
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


def patient() -> Breaker:
    """One that a busy machine does not spend."""
    return Breaker(budget=3600)


async def stale(inner: Store, store: CachedStore) -> None:
    """A conversation whose cached end is not of its present state."""
    await store.append("ann", "c", [user("one")], create=True, window=5)
    await inner.append("ann", "c", [user("two")])


async def test_nothing_of_a_deleted_conversation_comes_into_the_next_one_of_its_name() -> None:
    inner = MemoryStore()
    between = Between(inner)
    async with CachedStore(between, MemoryCache(), breaker=patient()) as store:
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
    async with CachedStore(faulty, MemoryCache(), breaker=patient()) as store:
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
    async with CachedStore(MemoryStore(), cache, breaker=patient()) as store:
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


class Slow(StoreWrapper):
    """An engine whose every write takes a second on ``clock``."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    async def append(self, *args: Any, **kwargs: Any) -> Appended:
        self.now += 1
        return await super().append(*args, **kwargs)

    async def begin_turn(self, *args: Any, **kwargs: Any) -> Turn:
        self.now += 1
        return await super().begin_turn(*args, **kwargs)

    async def finish_turn(self, *args: Any, **kwargs: Any) -> Appended:
        self.now += 1
        return await super().finish_turn(*args, **kwargs)


async def test_what_the_engine_takes_is_not_taken_off_the_budget_of_the_cache() -> None:
    engine = Slow(MemoryStore())
    async with CachedStore(engine, MemoryCache(), breaker=Breaker(clock=engine.clock)) as store:
        for n in range(5):
            await take_turn(store, n)
            await store.append("ann", "c", [user("more")], window=4)
        assert (store.hits, store.misses) == (9, 1)


async def take_turn(store: Store, number: int) -> None:
    turn = await store.begin_turn("ann", "c", [user(f"question {number}")], window=4, create=True)
    assert turn.answer is not None
    await store.finish_turn("ann", "c", turn.answer.id, turn.answer.token, text=f"answer {number}")


class Down(MemoryCache):
    """A cache in whose ``mood`` calls hang, or are refused at once; it counts those that were made in it."""

    def __init__(self, mood: str) -> None:
        super().__init__()
        self.mood = mood
        self.calls = 0

    async def _ask(self) -> None:
        if self.mood == "well":
            return
        self.calls += 1
        if self.mood == "silent":
            await asyncio.Event().wait()
        raise ConnectionError("refused")

    async def get(self, key: bytes) -> bytes | None:
        await self._ask()
        return await super().get(key)

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        await self._ask()
        await super().swap(key, stamp, value)

    async def drop(self, key: bytes) -> None:
        await self._ask()
        await super().drop(key)


@pytest.mark.parametrize("mood", ["silent", "refused"])
async def test_a_cache_that_is_down_is_waited_for_once_a_turn(mood: str) -> None:
    cache = Down(mood)
    async with CachedStore(MemoryStore(), cache, breaker=Breaker(budget=0.01, failures=1 << 30)) as store:
        for n in range(1, 6):
            await take_turn(store, n)
            assert cache.calls == n
        for window in (0, 4):
            before = cache.calls
            await store.append("ann", "c", [user("no turn")], window=window)
            assert cache.calls == before + 1
        assert [m.text for m in await store.tail("ann", "c", limit=4)][:2] == ["question 5", "answer 5"]


async def test_a_cache_that_dies_within_a_turn_is_waited_for_once_and_found_again() -> None:
    cache = Down("well")
    async with CachedStore(MemoryStore(), cache, breaker=patient()) as store:
        await take_turn(store, 1)
        turn = await store.begin_turn("ann", "c", [user("question")], window=4)
        assert turn.answer is not None
        cache.mood = "refused"
        await store.finish_turn("ann", "c", turn.answer.id, turn.answer.token, text="answer")
        assert cache.calls == 1
        cache.mood = "well"
        await take_turn(store, 3)  # what the cache has is of the state before the answer
        await take_turn(store, 4)
        assert (store.hits, store.misses) == (2, 2)


async def test_turns_that_never_end_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daram.cache.cached._MAX_FORSAKEN", 3)
    async with CachedStore(MemoryStore(), Down("refused"), breaker=Breaker(failures=1 << 30)) as store:
        for n in range(10):
            await store.begin_turn("ann", f"c{n}", [user("question")], create=True)
            assert len(store._forsaken) <= 3
