"""What Daram asks of a language model. Everything that talks to one (a local runtime, an endpoint) is a plug-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from daram.model import Message, Part

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a streamed answer. The last one of a whole answer has ``finish``; ``usage`` comes with it or
    never."""

    text: str = ""
    parts: tuple[Part, ...] = ()
    finish: Finish | None = None
    usage: dict[str, int] | None = None
    model: str | None = None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to generate. None leaves it to the model; ``temperature=0`` is greedy. ``extra`` goes to the endpoint as it
    is."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    extra: dict[str, Any] = {}


@runtime_checkable
class ChatModel(Protocol):
    """A language model that continues a conversation.

    ``name`` is what answers record; ``context_tokens`` the length of its context, answer included (tokens);
    ``prefers_notes`` says that it remembers better from quoted notes than from long raw history (small local models).
    """

    name: str
    context_tokens: int
    prefers_notes: bool

    def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        """Generate an answer. Closing the iterator (``aclose``) stops the generation at the next token.

        Nothing is retried after the first delta was given. Raises a child of ``ModelError``; ``ContextOverflow`` only
        before the first delta.
        """
        ...

    def count_tokens(self, text: str) -> int | None:
        """The exact number of tokens of ``text``, or None where only the endpoint knows."""
        ...

    async def ready(self) -> str | None:
        """None if it can answer now; else one line that says what is missing or still going on."""
        ...

    async def close(self) -> None:
        """Let go of everything; a second call is harmless."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of ``dimensions`` floats, unit length."""

    name: str
    dimensions: int

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order. Raises a child of ``ModelError``."""
        ...

    async def close(self) -> None:
        """Let go of everything; a second call is harmless."""
        ...
