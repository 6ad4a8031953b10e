"""How many tokens a text or a message takes in a model's context."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

MESSAGE_OVERHEAD: Final = 5
"""Tokens that the chat templates in use put around one message (role, begin and end marks)."""
REPLY_OVERHEAD: Final = 4
"""Tokens that open the answer at the end of a prompt."""
IMAGE_TOKENS: Final = 1_100
"""What an image of ordinary size costs at the common endpoints; its bytes say nothing about it."""

UNSENT: Final = frozenset({"citation", "reasoning", "request", "span", "item"})
"""Types of parts of which no model is told."""


class PartLike(Protocol):
    """A part of a message, as far as its size goes."""

    @property
    def type(self) -> str: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


class MessageLike(Protocol):
    """A message, as far as its size goes."""

    @property
    def text(self) -> str: ...
    @property
    def parts(self) -> Sequence[PartLike]: ...


def estimate(text: str) -> int:
    """About how many tokens: UTF-8 bytes / 4, rounded up (within +8 % on English, Korean, Japanese, Chinese prose)."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // 4)


class TokenCounter:
    """Counts with the model's own tokenizer where it has one, else by ``estimate``.

    ``count_tokens`` is the model's method of that name (see ``ChatModel``); ``exact`` tells whether it gave a number
    when asked: estimates need 15 % in reserve (see ``Budget``).
    """

    def __init__(self, count_tokens: Callable[[str], int | None] | None = None) -> None:
        self._count = count_tokens
        self.exact = count_tokens is not None and count_tokens("tokens") is not None

    def text(self, text: str) -> int:
        """The tokens of a bare text."""
        if self._count is not None and self.exact and text:
            try:
                number = self._count(text)
            except UnicodeEncodeError:  # lone surrogates, which no tokenizer can be given
                number = None
            # Exact budgets keep no reserve: an estimate among the counts (a text too long to count) has its own.
            return -(-estimate(text) * 100 // 85) if number is None else number
        return estimate(text)

    def message(self, message: MessageLike) -> int:
        """The tokens of a message in a prompt, with its parts and what the template puts around it."""
        return MESSAGE_OVERHEAD + self.text(message.text) + sum(self._part(part, message) for part in message.parts)

    def messages(self, messages: Sequence[MessageLike]) -> int:
        """The tokens of a whole prompt."""
        return REPLY_OVERHEAD + sum(self.message(message) for message in messages)

    def _part(self, part: PartLike, message: MessageLike) -> int:
        if part.type == "image":
            return IMAGE_TOKENS
        if part.type in UNSENT:
            return 0
        if part.type == "tool_result" and part.data.get("output") == message.text:
            return MESSAGE_OVERHEAD  # the text says it already, and goes to the model once
        return MESSAGE_OVERHEAD + self.text(json.dumps(dict(part.data), ensure_ascii=False, default=str))
