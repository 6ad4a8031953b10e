"""So many requests a minute, so many at once: by a clock of the test's own."""

from __future__ import annotations

import asyncio
from typing import Any

from daram.service.observe.request import Note, admit, noted
from daram.service.quota import Quota


class World:
    """An application behind a quota, and the time."""

    def __init__(self, *, rate: int, running: int) -> None:
        self.now = 1000.0
        self.open = asyncio.Event()
        self.open.set()
        self.began = 0
        self.quota = Quota(self._app, rate=rate, running=running, clock=lambda: self.now)

    async def ask(self, user: int) -> Note:
        """One request; what is known of it afterwards."""
        note = Note(id="r")
        token = noted.set(note)
        try:
            await self.quota({"type": "http", "user": user}, _nothing, _nowhere)
        finally:
            noted.reset(token)
        return note

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        problem = admit(scope["user"])
        if problem is None:
            self.began += 1
            await self.open.wait()
        note = noted.get()
        assert note is not None
        note.headers["problem"] = problem or ""


async def _nothing() -> Any:
    raise AssertionError("nobody reads the body")


async def _nowhere(message: Any) -> None:
    raise AssertionError("nobody answers")


async def test_a_minutes_worth_at_once_and_then_as_it_is_refilled() -> None:
    world = World(rate=60, running=0)
    for left in range(59, -1, -1):
        note = await world.ask(1)
        assert (note.user, note.headers["problem"]) == (1, "")
        assert note.headers["x-ratelimit-limit-requests"] == "60"
        assert note.headers["x-ratelimit-remaining-requests"] == str(left)
    refused = await world.ask(1)
    assert "60 requests in a minute" in refused.headers["problem"]
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-ratelimit-reset-requests"] == "60.000s"
    assert (await world.ask(2)).headers["problem"] == ""  # somebody else's is their own
    world.now += 2
    assert [bool((await world.ask(1)).headers["problem"]) for _ in range(3)] == [False, False, True]
    world.now += 3600
    assert (await world.ask(1)).headers["x-ratelimit-remaining-requests"] == "59"  # never more than a minute's


async def test_what_runs_at_once_is_bounded_and_freed() -> None:
    world = World(rate=0, running=2)
    world.open.clear()
    running = [asyncio.create_task(world.ask(1)) for _ in range(2)]
    while world.began < 2:
        await asyncio.sleep(0)
    refused = await world.ask(1)
    assert "2 requests running" in refused.headers["problem"]
    assert refused.headers["retry-after"] == "1"
    assert "x-ratelimit-limit-requests" not in refused.headers
    running[0].cancel()  # the client left
    await asyncio.gather(running[0], return_exceptions=True)
    world.open.set()
    assert (await world.ask(1)).headers["problem"] == ""
    await running[1]


async def test_no_limit_is_no_limit() -> None:
    world = World(rate=0, running=0)
    notes = [await world.ask(1) for _ in range(1000)]
    assert {note.headers["problem"] for note in notes} == {""}


async def test_users_who_ask_no_more_are_forgotten() -> None:
    world = World(rate=10, running=0)
    for user in range(11_000):
        await world.ask(user)
        world.now += 0.1
    assert len(world.quota._buckets) == 10_000
    assert (await world.ask(10_999)).headers["x-ratelimit-remaining-requests"] == "8"
