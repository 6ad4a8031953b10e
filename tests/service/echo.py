"""A model that says what it was told, at once: where it does not matter what an answer says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from daram.llm.base import Delta, Options
from daram.model import Message


class Echo:
    """See ``daram.llm.base.ChatModel``."""

    name = "echo"
    context_tokens = 100_000
    prefers_notes = False

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        yield Delta(text=f"You said: {messages[-1].text[:100]}")
        yield Delta(finish="stop", usage={"input_tokens": 1, "output_tokens": 1}, model=self.name)

    def count_tokens(self, text: str) -> int | None:
        return len(text) // 4

    async def ready(self) -> str | None:
        return None

    async def close(self) -> None:
        return None
