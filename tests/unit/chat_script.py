"""A model that says what a test tells it to, in this process; a chatbot over it; and what tests of turns wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from daram.chat import Chatbot, Event, Running
from daram.llm.base import Delta, Finish, Options
from daram.model import Message, Part
from daram.store.base import Store

OWNER = "alice"
SAID = "a squirrel is a tuna"


class Gate:
    """A place in a script where the model waits until the test opens it. ``reached``: the model is there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    def open(self) -> None:
        self.opened.set()

    async def _pass(self) -> None:
        self.reached.set()
        await self.opened.wait()


class Usage(dict[str, int]):
    """What the endpoint reports; comes with the end."""


Step = str | Gate | Part | Usage | Delta | BaseException
"""A piece of text, a wait, a part, the usage, a delta as it is, or an error to raise."""


class ScriptedModel:
    """Each call plays the next script, then ends with ``finish`` ("stop"; None: the stream just ends).

    Titles are asked for with few tokens; they are answered apart, by ``titles`` (a text, or an error).
    """

    name = "scripted"
    prefers_notes = False

    def __init__(self, *scripts: Sequence[Step] | str, context_tokens: int = 8192) -> None:
        self.scripts: list[Sequence[Step]] = [[s] if isinstance(s, str) else s for s in scripts]
        self.finish: Finish | None = "stop"
        self.context_tokens = context_tokens
        self.calls: list[list[Message]] = []
        self.title_calls: list[list[Message]] = []
        self.titles: list[Sequence[Step]] = []
        self.streaming = 0  # streams that are open
        self.most_streaming = 0

    def script(self, *steps: Step) -> None:
        self.scripts.append(steps)

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        if options.max_tokens == 32:
            self.title_calls.append(list(messages))
            steps: Sequence[Step] = self.titles.pop(0) if self.titles else ["A title"]
        else:
            self.calls.append(list(messages))
            steps = self.scripts.pop(0) if self.scripts else [SAID]
        self.streaming += 1
        self.most_streaming = max(self.most_streaming, self.streaming)
        try:
            usage = None
            for step in steps:
                if isinstance(step, str):
                    yield Delta(text=step)
                elif isinstance(step, Gate):
                    await step._pass()
                elif isinstance(step, Part):
                    yield Delta(parts=(step,))
                elif isinstance(step, Usage):
                    usage = dict(step)
                elif isinstance(step, Delta):
                    yield step
                else:
                    raise step
            if self.finish is not None:
                yield Delta(finish=self.finish, usage=usage, model="scripted-2")
        finally:
            self.streaming -= 1

    def count_tokens(self, text: str) -> int | None:
        return None

    async def ready(self) -> str | None:
        return None

    async def close(self) -> None:
        """Nothing to let go of."""


def chatbot(memory: Store, model: Any, **settings: Any) -> Chatbot:
    """A chatbot with short times and no titles, unless the test says otherwise."""
    return Chatbot(memory, model, **{"titles": False, "checkpoint_every": 0.01, "lease": 60.0, "wait": 60.0} | settings)


async def collect(running: Running, after: int = 0) -> list[Event]:
    return [event async for event in running.events(after)]


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait for something that is going to happen (the time-out of the test run is the bound)."""
    while True:
        met = condition()
        if met if isinstance(met, bool) else await met:
            return
        await asyncio.sleep(0.002)


def check_events(events: Sequence[Event], message: Message | None, first: int = 1) -> None:
    """Gapless numbers, one terminal event at the end, and the deltas are the text of the answer."""
    assert [event.seq for event in events] == list(range(first, first + len(events)))
    assert [event.type in ("completed", "incomplete", "cancelled", "failed") for event in events] == [
        *[False] * (len(events) - 1),
        True,
    ]
    assert events[-1].message == message
    if message is not None:
        assert "".join(event.text for event in events) == message.text
