"""The event log in Redis: what one process tells, every other one can follow; and answers go on without Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.unit.chat_script import Gate, ScriptedModel, chatbot, collect

import daram
from daram import Message
from daram.chat import redis_events
from daram.chat.events import Event, EventLog
from daram.chat.redis_events import RedisEventLog
from daram.errors import ConfigError, Conflict, StoreUnavailable
from daram.testing.proxy import TcpProxy
from daram.testing.servers import RedisCluster, RedisServer

MESSAGE = Message(id="a", role="assistant", text="one two", status="complete")
EVENTS = [
    Event(seq=1, type="created", answer="a", question="q"),
    Event(seq=2, type="delta", answer="a", text="one"),
    Event(seq=3, type="delta", answer="a", text=" two"),
    Event(seq=4, type="completed", answer="a", message=MESSAGE),
]
Make = Callable[..., RedisEventLog]


@pytest.fixture(params=["redis", "valkey", "cluster"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    server: RedisServer | RedisCluster = request.getfixturevalue(
        {"redis": "redis_server", "valkey": "valkey_server", "cluster": "redis_cluster"}[request.param]
    )
    server.flush()
    yield server.url
    server.flush()


@pytest.fixture
async def make(url: str) -> AsyncIterator[Make]:
    logs: list[RedisEventLog] = []

    def made(at: str = url, **options: Any) -> RedisEventLog:
        logs.append(RedisEventLog(at, **options))
        return logs[-1]

    yield made
    for log in logs:
        await log.close()


async def tell(log: EventLog, *events: Event) -> None:
    for event in events:
        await log.publish("a", event)


async def heard(log: EventLog, after: int = 0) -> list[Event]:
    async with asyncio.timeout(60):
        return [event async for event in log.follow("a", after)]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_others_hear_the_past_and_what_comes(make: Make) -> None:
    maker, other = make(), make()
    assert isinstance(other, EventLog)
    assert await heard(other) == []
    assert await other.text("a") is None
    await tell(maker, *EVENTS[:2])
    assert await other.text("a") == ("one", 2)
    following = [asyncio.create_task(heard(log, after)) for log in (maker, other, other) for after in (0, 1, 2)]
    await asyncio.sleep(0)
    await tell(maker, *EVENTS[2:])
    for task, after in zip(following, (0, 1, 2) * 3, strict=True):
        assert await task == EVENTS[after:]
    for log in (maker, other):
        assert [await heard(log, after) for after in range(6)] == [EVENTS[after:] for after in range(6)]


async def test_what_is_not_the_next_one_is_refused(make: Make) -> None:
    maker, other = make(), make()
    await tell(maker, *EVENTS[:2])
    with pytest.raises(Conflict):
        await tell(other, EVENTS[3])
    ended = Event(seq=3, type="incomplete", answer="a", message=MESSAGE)
    await tell(other, ended)  # recovery: its maker was taken for dead
    with pytest.raises(Conflict):
        await tell(maker, EVENTS[2])
    for log in (maker, other):
        assert await heard(log) == [*EVENTS[:2], ended]
        assert await heard(log, 2) == [ended]
    with pytest.raises(Conflict):
        await tell(other, Event(seq=4, type="incomplete", answer="a"))


async def test_who_follows_here_hears_who_ended_it_elsewhere(make: Make) -> None:
    maker, other = make(), make()
    await tell(maker, *EVENTS[:2])
    following = asyncio.create_task(heard(maker))
    await asyncio.sleep(0)
    ended = Event(seq=3, type="incomplete", answer="a", message=MESSAGE)
    await tell(other, ended)
    with pytest.raises(Conflict):
        await tell(maker, EVENTS[2])
    assert await following == [*EVENTS[:2], ended]


async def test_a_log_has_an_end_and_a_bound(make: Make, url: str) -> None:
    maker, other = make(limit=3, patience=50.0, keep=10.0), make()
    await tell(maker, EVENTS[0])
    key = maker._key("a")
    assert 0 < await other._client.pttl(key) <= 50_000
    await tell(maker, *EVENTS[1:3])
    assert await other.text("a") == ("one two", 3)
    await tell(maker, EVENTS[3])  # one too many: given up for others, whole for who is here
    assert await other.text("a") is None
    assert await heard(maker) == EVENTS
    brief = make(keep=10.0)
    for event in EVENTS:
        await brief.publish("b", event)
    assert 0 < await other._client.pttl(brief._key("b")) <= 10_000


async def test_connections_are_bounded(make: Make) -> None:
    maker, other = make(), make()
    names = [f"answer {i}" for i in range(120)]
    for name in names:
        await maker.publish(name, EVENTS[0])

    async def follow(name: str) -> int:
        return len([event async for event in other.follow(name)])

    following = [asyncio.create_task(follow(name)) for name in names]
    await until(lambda: _true(sum(map(len, other._followers.values())) == len(names)))
    assert len(other._readers) <= 8
    for name in names:
        for event in EVENTS[1:]:
            await maker.publish(name, event)
    async with asyncio.timeout(60):
        assert await asyncio.gather(*following) == [4] * len(names)
    await until(lambda: _true(not other._readers))


async def _true(value: bool) -> bool:
    return value


async def test_answers_go_on_without_redis_and_tell_it_later(redis_server: RedisServer) -> None:
    """The maker's own followers notice nothing; the others hear everything once Redis is back."""
    redis_server.flush()
    async with TcpProxy(redis_server.port) as proxy:
        maker, other = RedisEventLog(redis_server.url_of(port=proxy.port)), RedisEventLog(redis_server.url)
        try:
            await tell(maker, EVENTS[0])
            proxy.silent = True
            await tell(maker, EVENTS[1])
            assert await other.text("a") == ("", 1)
            proxy.silent = False
            maker._down_until = 0.0
            await tell(maker, *EVENTS[2:])
            assert await heard(maker) == await heard(other) == EVENTS
        finally:
            await maker.close()
            await other.close()


async def test_redis_forgets(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it forgot is told again; who was following without it is told that the log is lost."""
    monkeypatch.setattr(redis_events, "_SILENCE", 0.05)
    maker, other = make(), make()
    await tell(maker, *EVENTS[:2])
    assert (await anext(other.follow("a"))).seq == 1
    await other._client.delete(maker._key("a"))
    await tell(maker, EVENTS[2])
    assert await other.text("a") == ("one two", 3)
    events = other.follow("a")
    assert [(await anext(events)).seq for _ in range(3)] == [1, 2, 3]
    await other._client.delete(maker._key("a"))
    with pytest.raises(StoreUnavailable):
        await anext(events)


async def test_a_redis_that_is_not_there(tmp_path: Any) -> None:
    """Turns work; a resume elsewhere gets the stored answer as its one event."""
    gate = Gate()
    model = ScriptedModel(["one", gate, " two"])
    url = f"sqlite:///{tmp_path}/daram.db"
    nowhere = "redis://127.0.0.1:1/0"
    async with daram.open(url) as memory, daram.open(url) as second:
        here, there = RedisEventLog(nowhere), RedisEventLog(nowhere)
        async with chatbot(memory, model, events=here) as bot, chatbot(second, model, events=there) as other:
            running = await bot.start("alice", "c", "Hi")
            telling = asyncio.create_task(collect(running))
            await gate.reached.wait()
            resumed = other.resume("alice", "c", running.answer_id, after=2)
            following = asyncio.create_task(_all(resumed))
            gate.open()
            assert "".join(event.text for event in await telling) == "one two"
            [end] = await following
            assert (end.seq, end.type, end.message.text) == (3, "completed", "one two")
        await here.close()
        await there.close()


async def _all(events: Any) -> list[Event]:
    return [event async for event in events]


async def test_addresses() -> None:
    with pytest.raises(ConfigError):
        RedisEventLog("http://127.0.0.1")
