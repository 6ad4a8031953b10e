"""The event log in memory: order, ends, followers, bounds; and text from a model made fit to be stored."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daram import errors
from daram.chat import Event, EventLog, MemoryEventLog
from daram.chat.clean import TextStream, clean_name, clean_parts, clean_usage
from daram.model import Part, assistant
from daram.store import validate
from daram.store.validate import Limits
from daram.text.clean import clean_text


def event(seq: int, type: str = "delta", text: str = "", answer: str = "a") -> Event:
    return Event(seq=seq, type=type, answer=answer, text=text)  # type: ignore[arg-type]


async def all_of(log: MemoryEventLog, answer: str = "a", after: int = 0) -> list[int]:
    return [e.seq async for e in log.follow(answer, after)]


async def test_numbers_are_gapless_and_nothing_follows_the_end() -> None:
    log = MemoryEventLog()
    assert isinstance(log, EventLog)
    with pytest.raises(errors.Conflict):
        await log.publish("a", event(2))
    await log.publish("a", event(1, "created"))
    for seq in (1, 3):
        with pytest.raises(errors.Conflict):
            await log.publish("a", event(seq))
    await log.publish("a", event(2, text="one "))
    await log.publish("a", event(3, text="two"))
    assert await log.text("a") == ("one two", 3)
    await log.publish("a", event(4, "completed"))
    for type in ("delta", "completed"):
        with pytest.raises(errors.Conflict):
            await log.publish("a", event(5, type))
    assert await all_of(log) == [1, 2, 3, 4]
    assert await all_of(log, after=3) == [4]
    assert await all_of(log, after=4) == []
    assert await all_of(log, after=99) == []


async def test_what_the_log_does_not_know() -> None:
    log = MemoryEventLog()
    assert await log.text("a") is None
    assert await all_of(log) == []


async def test_followers_see_the_same_whenever_they_come() -> None:
    log = MemoryEventLog()
    await log.publish("a", event(1, "created"))
    early = [asyncio.create_task(all_of(log, after=after)) for after in (0, 1, 5)]
    await asyncio.sleep(0)
    for seq in range(2, 8):
        await log.publish("a", event(seq))
        await asyncio.sleep(0)
    left = asyncio.create_task(all_of(log))
    await asyncio.sleep(0)
    left.cancel()
    await log.publish("a", event(8, "failed"))
    assert [await task for task in early] == [[1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6, 7, 8], [6, 7, 8]]


async def test_closing_ends_the_followers() -> None:
    log = MemoryEventLog()
    await log.publish("a", event(1, "created"))
    following = asyncio.create_task(all_of(log))
    await asyncio.sleep(0)
    await log.close()
    await log.close()
    assert await following == [1]
    with pytest.raises(errors.ChatbotClosed):
        await log.publish("a", event(2))


async def test_finished_logs_are_forgotten_after_a_while() -> None:
    log = MemoryEventLog(keep=0.0)
    await log.publish("a", event(1, "created"))
    following = log.follow("a")
    assert (await anext(following)).seq == 1
    await log.publish("a", event(2, "completed"))
    assert await log.text("a") is None
    assert (await anext(following)).seq == 2  # who follows it keeps it
    await following.aclose()


async def test_all_logs_together_are_bounded_but_running_ones_stay() -> None:
    log = MemoryEventLog(limit=10_000)
    await log.publish("running", event(1, text="x" * 9_000, answer="running"))
    for name in "abc":
        await log.publish(name, event(1, text="x" * 4_000, answer=name))
        await log.publish(name, Event(seq=2, type="completed", answer=name, message=assistant("x" * 4_000)))
    assert await log.text("running") is not None
    assert [await log.text(name) for name in "abc"] == [None, None, None]
    await log.publish("running", event(2, "completed", answer="running"))
    assert await log.text("running") is not None
    assert 9_000 < log._bytes < 10_000


# --- text from a model ---


@given(st.lists(st.text(st.characters(codec=None), max_size=8), max_size=8))
def test_any_text_becomes_one_that_can_be_stored(pieces: list[str]) -> None:
    whole = TextStream(1 << 20)
    told = [whole.feed(piece) for piece in pieces] + [whole.end()]
    assert "".join(told) == clean_text("".join(pieces))  # however it was cut
    for piece in told:  # and each piece may be told by itself
        validate.text(piece, "text", 1 << 20)


@given(st.lists(st.text(max_size=8), max_size=8), st.integers(0, 40))
def test_a_text_is_cut_between_characters(pieces: list[str], limit: int) -> None:
    stream = TextStream(limit)
    told = "".join(stream.feed(piece) for piece in pieces) + stream.end()
    assert clean_text("".join(pieces)).startswith(told)
    size = len(clean_text("".join(pieces)).encode())
    assert len(told.encode()) <= limit
    assert stream.full == (size > limit)
    if stream.full:
        assert len(told.encode()) > limit - 4


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary(max_size=3),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
    max_leaves=20,
)


@given(
    st.text(st.characters(codec=None), max_size=80),
    st.none() | st.text(st.characters(codec=None), max_size=200),
    st.dictionaries(st.text(st.characters(codec=None)), _json),
)
def test_any_part_becomes_one_that_can_be_stored(type: str, id: str | None, data: dict[str, object]) -> None:
    parts, whole = clean_parts([Part(type=type, id=id, data=data)], 1 << 20)
    assert whole
    assert validate.parts(parts, "parts") == parts


def test_parts_are_bounded_and_deep_ones_cut() -> None:
    deep: object = "end"
    for _ in range(200):
        deep = [deep]
    parts, whole = clean_parts([Part(type="x", data={"deep": deep}), Part(type="y", data={"long": "z" * 2000})], 1000)
    assert [part.type for part in parts] == ["x"]
    assert not whole
    validate.parts(parts, "parts")


@given(st.none() | st.dictionaries(st.text(st.characters(codec=None)), _json))
def test_any_usage_becomes_one_that_can_be_stored(usage: dict[str, object] | None) -> None:
    validate.counters(clean_usage(usage), "usage")


def test_usage_keeps_what_are_counters() -> None:
    assert clean_usage({"input_tokens": 3, "cost": 0.1, "details": {}, "flag": True, "debt": -1}) == {"input_tokens": 3}
    assert clean_usage("rubbish") is None  # type: ignore[arg-type]


@given(st.none() | st.text(st.characters(codec=None), max_size=300))
def test_any_model_name_becomes_one_that_can_be_stored(name: str | None) -> None:
    clean = clean_name(name)
    assert clean is None or validate.name(clean, "model", Limits().title_chars)
