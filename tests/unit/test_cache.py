"""The parts of the cache by themselves: what is kept in memory, how entries are written, the breaker, URLs, Django."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daram.cache import entry as entries
from daram.cache.breaker import Breaker
from daram.cache.entry import STAMP, Entry, decode, encode, stamp
from daram.cache.memory import MemoryCache
from daram.cache.tiered import TieredCache
from daram.cache.url import cache_from_url
from daram.errors import ConfigError
from daram.model import Message, assistant, user

KEY = b"k" * 16
LIMIT = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def value(etag: str = "a", size: int = 100) -> bytes:
    return stamp(etag) + b"x" * (size - STAMP)


class TestMemory:
    async def test_the_least_recently_used_goes_first(self) -> None:
        cache = MemoryCache(max_bytes=3 * 1300)
        for key in (b"1", b"2", b"3"):
            await cache.put(key, value(size=1000))
        assert await cache.get(b"1") is not None
        await cache.put(b"4", value(size=1000))
        assert [await cache.get(key) is not None for key in (b"1", b"2", b"3", b"4")] == [True, False, True, True]

    async def test_bytes_are_bounded_whatever_comes(self) -> None:
        cache = MemoryCache(max_bytes=10_000)
        for number in range(200):
            await cache.put(b"%d" % (number % 50), value(size=100 + 37 * (number % 20)))
            await cache.swap(b"%d" % (number % 30), stamp("a"), value(size=500))
            kept = sum(len(found[1]) + 300 for found in cache._values.values())
            assert kept == cache._bytes <= 10_000
        await cache.put(b"large", value(size=20_000))
        assert await cache.get(b"large") is None
        assert cache._bytes == 0

    async def test_a_value_ends(self) -> None:
        clock = Clock()
        cache = MemoryCache(ttl=10, clock=clock)
        await cache.put(b"1", value())
        clock.now += 9.9
        assert await cache.get(b"1") == value()
        clock.now += 0.1
        assert await cache.get(b"1") is None
        assert cache._bytes == 0

    async def test_swap_replaces_that_state_alone(self) -> None:
        cache = MemoryCache()
        await cache.put(b"1", value("a"))
        await cache.swap(b"1", stamp("a"), value("b"))
        assert await cache.get(b"1") == value("b")
        await cache.swap(b"1", stamp("a"), value("c"))
        assert await cache.get(b"1") is None
        await cache.swap(b"1", stamp("a"), value("c"))
        assert await cache.get(b"1") == value("c")
        await cache.drop(b"1")
        await cache.drop(b"1")
        assert await cache.get(b"1") is None

    async def test_closing_forgets(self) -> None:
        cache = MemoryCache()
        await cache.put(b"1", value())
        await cache.close()
        await cache.close()
        assert await cache.get(b"1") is None


def message(text: str, **more: object) -> Message:
    return user(text, id="m", **more)  # type: ignore[arg-type]


MESSAGES = st.lists(
    st.builds(
        lambda text, known: user(text, metadata=known), st.text(max_size=50), st.dictionaries(st.text(), st.text())
    ),
    max_size=4,
)


class TestEntries:
    @given(
        owner=st.text(), etag=st.text("abcdef0123456789", min_size=16, max_size=16), tail=MESSAGES, whole=st.booleans()
    )
    def test_what_is_written_is_read(self, owner: str, etag: str, tail: list[Message], whole: bool) -> None:
        made = Entry(owner, etag, tail[-1].id if tail else None, whole, tail)
        data = encode(made, KEY, b"", LIMIT)
        assert data is not None
        assert data.startswith(stamp(etag))
        assert decode(data, KEY, b"", LIMIT) == made
        assert decode(data, b"other", b"", LIMIT) is None
        assert decode(data, KEY, b"secret", LIMIT) is None
        assert decode(data, KEY, b"", len(data) - 1) is None

    @given(st.binary(max_size=300))
    def test_garbage_is_a_miss(self, junk: bytes) -> None:
        assert decode(junk, KEY, b"", LIMIT) is None
        # Even with the right checksum, as whoever can write to a cache without a key could make it.
        assert decode(junk + entries._checksum(b"", KEY, junk), KEY, b"", LIMIT) is None

    @given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
    def test_a_flipped_bit_is_a_miss(self, at: int, bit: int) -> None:
        data = bytearray(encode(Entry("ann", "e" * 16, "m", True, [message("squirrel")]), KEY, b"", LIMIT) or b"")
        data[at % len(data)] ^= 1 << bit
        assert decode(bytes(data), KEY, b"", LIMIT) is None

    @pytest.mark.parametrize("what", [None, "text", 5, b""])
    def test_what_is_not_bytes_is_a_miss(self, what: object) -> None:
        assert decode(what, KEY, b"", LIMIT) is None  # type: ignore[arg-type]

    def test_older_messages_are_left_out_until_it_fits(self) -> None:
        tail = [user("x" * 1000, id=str(number)) for number in range(10)]
        data = encode(Entry("ann", "e" * 16, "9", True, tail), KEY, b"", 4000)
        assert data is not None
        assert len(data) <= 4000
        found = decode(data, KEY, b"", 4000)
        assert found is not None
        assert found.tail == tail[-len(found.tail) :]
        assert not found.complete
        assert encode(Entry("ann", "e" * 16, "9", True, tail), KEY, b"", 500) is None

    def test_an_entry_is_extended_by_what_follows_it_alone(self) -> None:
        old, new = user("q", id="q"), assistant("a", id="a")
        entry = Entry("ann", "1", "q", True, [old])
        assert entry.extended("1", "q", "2", [new]) == Entry("ann", "2", "a", True, [old, new])
        assert entry.extended("0", "q", "2", [new]) is None
        assert entry.extended("1", "p", "2", [new]) is None
        assert entry.extended("1", "q", "2", []) is None


async def fails() -> None:
    raise ConnectionError("down")


async def hangs() -> None:
    await asyncio.sleep(3600)


async def works() -> str:
    return "well"


class TestBreaker:
    async def test_it_opens_and_tries_again(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = Clock()
        breaker = Breaker(budget=10, failures=3, pause=1, longest=3, clock=clock)
        for _ in range(2):
            assert await breaker.call(fails, breaker.operation()) is None
        assert not breaker.is_open
        assert await breaker.call(works, breaker.operation()) == "well"  # in a row, that is
        for _ in range(3):
            await breaker.call(fails, breaker.operation())
        assert breaker.is_open
        assert await breaker.call(works, breaker.operation()) is None
        assert "3 times in a row" in caplog.text
        for pause in (1, 2, 3, 3):
            clock.now += pause
            assert not breaker.is_open
            await breaker.call(fails, breaker.operation())
            assert breaker.is_open
        clock.now += 3
        assert await breaker.call(works, breaker.operation()) == "well"
        assert not breaker.is_open

    async def test_one_trouble_that_hits_many_calls_counts_once(self) -> None:
        clock = Clock()
        breaker = Breaker(budget=10, failures=3, pause=1, longest=60, clock=clock)
        together = asyncio.Barrier(32)

        async def fails_with_the_others() -> None:
            await together.wait()
            raise OSError("down")

        await asyncio.gather(*(breaker.call(fails_with_the_others, breaker.operation()) for _ in range(32)))
        assert breaker.is_open
        clock.now += 1
        assert not breaker.is_open

    async def test_one_call_tries_whether_it_is_well_again(self) -> None:
        clock = Clock()
        breaker = Breaker(budget=10, failures=1, pause=1, clock=clock)
        await breaker.call(fails, breaker.operation())
        clock.now += 1
        called, go_on = [], asyncio.Event()

        async def try_it() -> str:
            called.append(1)
            await go_on.wait()
            return "well"

        calls = [asyncio.create_task(breaker.call(try_it, breaker.operation())) for _ in range(5)]
        await asyncio.sleep(0)
        go_on.set()
        assert sorted(filter(None, await asyncio.gather(*calls))) == ["well"]
        assert len(called) == 1
        assert await breaker.call(works, breaker.operation()) == "well"

    async def test_what_hangs_is_left_alone_once_the_budget_is_spent(self) -> None:
        breaker = Breaker(budget=0.01)
        assert await breaker.call(hangs, breaker.operation()) is None

    async def test_one_budget_for_all_calls_of_an_operation(self) -> None:
        clock = Clock()
        breaker = Breaker(budget=30, clock=clock)

        async def takes(seconds: float) -> str:
            clock.now += seconds
            return "well"

        budget = breaker.operation()
        clock.now += 3600  # the engine's time, not the cache's
        assert await breaker.call(lambda: takes(20), budget) == "well"
        clock.now += 3600
        assert await breaker.call(lambda: takes(20), budget) == "well"
        assert budget.spent
        assert await breaker.call(works, budget) is None
        assert await breaker.call(works, breaker.operation()) == "well"

    async def test_an_operation_that_the_cache_failed_goes_on_without_it(self) -> None:
        breaker = Breaker(budget=3600)
        budget = breaker.operation()
        assert await breaker.call(fails, budget) is None
        assert await breaker.call(works, budget) is None
        assert await breaker.call(works, breaker.operation()) == "well"

    async def test_whoever_cancels_the_operation_is_obeyed(self) -> None:
        breaker = Breaker(budget=3600)
        task = asyncio.create_task(breaker.call(hangs, breaker.operation()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestTiers:
    async def test_the_nearest_is_asked_first_and_learns(self) -> None:
        near, far = MemoryCache(), MemoryCache()
        tiers = TieredCache([near, far])
        await far.put(b"1", value("a"))
        assert await tiers.get(b"1") == value("a")
        assert await near.get(b"1") == value("a")
        await tiers.swap(b"1", stamp("a"), value("b"))
        assert await near.get(b"1") == await far.get(b"1") == value("b")
        await tiers.drop(b"1")
        assert await near.get(b"1") is await far.get(b"1") is None
        assert "; then " in await tiers.describe()
        await tiers.close()


class TestUrls:
    async def test_what_they_stand_for(self) -> None:
        for url, words in {
            "memory://": ["process memory"],
            "memory://?max_bytes=100000&ttl=5": ["of 100,000 bytes"],
            "memory://,memory://": ["; then "],
        }.items():
            cache = cache_from_url(url)
            told = await cache.describe()
            assert all(word in told for word in words)
            await cache.close()

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "memcached://h",
            "memory://?ttl=soon",
            "memory://?ttl=0",
            "memory://?max_bytes=1",
            "memory://?x=1",
            "redis://h:port/0",
            "redis://[::1",
        ],
    )
    def test_what_they_do_not(self, url: str) -> None:
        with pytest.raises(ConfigError):
            cache_from_url(url)

    async def test_the_password_of_a_server_is_not_told(self) -> None:
        pytest.importorskip("redis")
        cache = cache_from_url("redis://:secret-word@127.0.0.1:1/0")
        with pytest.raises(Exception) as caught:  # whatever the driver raises: the breaker takes it
            await cache.describe()
        assert "secret-word" not in str(caught.value)
        await cache.close()


class TestDjango:
    @pytest.fixture
    def settings(self) -> None:
        pytest.importorskip("django", reason="needs daram[django]")
        from django.conf import settings

        if not settings.configured:
            settings.configure(
                CACHES={
                    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
                    "none": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
                }
            )

    async def test_it_keeps_swaps_and_drops(self, settings: None) -> None:
        cache = cache_from_url("django:default")
        await cache.put(KEY, value("a"))
        assert await cache.get(KEY) == value("a")
        await cache.swap(KEY, stamp("a"), value("b"))
        assert await cache.get(KEY) == value("b")
        await cache.swap(KEY, stamp("a"), value("c"))
        assert await cache.get(KEY) is None
        await cache.swap(KEY, stamp("a"), value("c"))
        assert await cache.get(KEY) == value("c")
        await cache.drop(KEY)
        assert await cache.get(KEY) is None
        assert "LocMemCache" in await cache.describe()
        await cache.close()

    async def test_what_others_keep_there_is_a_miss(self, settings: None) -> None:
        from django.core.cache import caches

        cache = cache_from_url("django:default")
        await caches["default"].aset("daram:cache:" + KEY.hex(), {"not": "bytes"})
        assert await cache.get(KEY) is None

    def test_an_alias_that_is_not_there(self, settings: None) -> None:
        with pytest.raises(ConfigError, match="nowhere"):
            cache_from_url("django:nowhere")
