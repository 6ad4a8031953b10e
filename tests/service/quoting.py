"""A model that cites the passages it is given, and can be made to think for as long as a test likes."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Sequence

import anyio.to_thread

from daram.llm.base import Delta, Options
from daram.model import Message


class Quoting:
    """See ``daram.llm.base.ChatModel``. ``asked``: the prompts it was given; while ``thinks`` is cleared it says
    nothing."""

    name = "quoting"
    context_tokens = 100_000
    prefers_notes = True  # else it would be asked to word questions anew

    def __init__(self) -> None:
        self.asked: list[list[Message]] = []
        self.thinks = threading.Event()
        self.thinks.set()

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        self.asked.append(list(messages))
        while not self.thinks.is_set():
            await anyio.to_thread.run_sync(self.thinks.wait, 0.05)
        words = messages[-1].text
        numbers = "".join(f"[{number}]" for number in re.findall(r'<passage number="(\d+)"', words))
        yield Delta(text=f"The documents say so {numbers}." if numbers else f"You said: {words[-100:]}")
        yield Delta(finish="stop", usage={"input_tokens": 1, "output_tokens": 1}, model=self.name)

    def count_tokens(self, text: str) -> int | None:
        return len(text) // 4

    async def ready(self) -> str | None:
        return None

    async def close(self) -> None:
        return None
