"""What stands in the place of a model where none is set up: history and search work, a turn gets an honest error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from daram.errors import ModelUnavailable
from daram.llm.base import Delta, Options
from daram.model import Message


class NoModel:
    """A ``ChatModel`` that never answers; ``reason`` says what to set or install."""

    name = "none"
    context_tokens = 4096  # enough for a turn to be assembled and its message kept, before the error is given
    prefers_notes = False

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        """Raises ``ModelUnavailable`` with the reason."""
        nothing: tuple[Delta, ...] = ()
        for delta in nothing:
            yield delta
        raise ModelUnavailable(self.reason)

    def count_tokens(self, text: str) -> int | None:
        """None: nobody knows."""
        return None

    async def ready(self) -> str | None:
        """The reason."""
        return self.reason

    async def close(self) -> None:
        """Nothing to let go of."""
