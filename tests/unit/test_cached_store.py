"""A cached end of a conversation that proved stale is read again: what may happen in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from daram.cache.cached import CachedStore
from daram.cache.memory import MemoryCache
from daram.errors import ConfigError, OutcomeUnknown
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
