"""Who takes nothing of an answer loses its connection; who takes it slowly does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daram.service.limits import Bodies

SCOPE: dict[str, Any] = {"type": "http", "headers": []}
PIECE = {"type": "http.response.body", "body": b"x", "more_body": True}


async def nothing() -> Any:
    await asyncio.Event().wait()


class Answer:
    """An application that sends pieces for as long as it may."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.sent = 0
        self.closed = False

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        try:
            for _ in range(self.pieces):
                await send(PIECE)
                self.sent += 1
        finally:
            self.closed = True


def bodies(answer: Answer, departure: float) -> Bodies:
    return Bodies(answer, limit=10, arrival=60, departure=departure)


async def test_who_takes_nothing_is_given_up() -> None:
    taken = 0

    async def send(_: Any) -> None:
        nonlocal taken
        if taken == 3:
            await asyncio.Event().wait()
        taken += 1

    answer = Answer(10)
    await asyncio.wait_for(bodies(answer, 0.05)(SCOPE, nothing, send), 60)
    assert (answer.sent, answer.closed) == (3, True)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_who_takes_each_piece_in_time_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pieces together take longer than one may, by the loop's clock."""
    loop = asyncio.get_running_loop()
    clock, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: clock() + ahead)

    async def send(_: Any) -> None:
        nonlocal ahead
        ahead += 600
        for _ in range(3):  # timers that are due run
            await asyncio.sleep(0)

    answer = Answer(30)
    await bodies(answer, 1000)(SCOPE, nothing, send)
    assert answer.sent == 30


async def test_who_is_cancelled_by_another_is_cancelled() -> None:
    reached = asyncio.Event()

    async def send(_: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    answer = Answer(1)
    task = asyncio.create_task(bodies(answer, 60)(SCOPE, nothing, send))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answer.closed
