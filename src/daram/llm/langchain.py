"""Any chat model of LangChain as a ``ChatModel``, so that Daram's turn can use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from daram.errors import (
    ContextOverflow,
    MissingExtra,
    ModelBroken,
    ModelError,
    ModelRateLimited,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
)

try:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk
except ImportError as error:
    raise MissingExtra("a chat model of LangChain", "langchain") from error

from daram.llm.base import Delta, Finish, Options
from daram.llm.langchain_messages import from_message, to_message
from daram.model import Message

_FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


class LangChainModel:
    """``model`` of LangChain as a ``ChatModel``. ``context_tokens``: what it takes, answer included.

    ``name``: what answers record (by default what the model calls itself). The options of a turn are given to the model
    as ``max_tokens``, ``temperature``, ``top_p`` and ``stop``, its tools by ``bind_tools``.
    """

    prefers_notes = False

    def __init__(self, model: BaseChatModel, *, name: str | None = None, context_tokens: int = 32_768) -> None:
        own = getattr(model, "model_name", None) or getattr(model, "model", None)
        self.model = model
        self.name = name or (own if isinstance(own, str) and own else type(model).__name__)
        self.context_tokens = context_tokens

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        """Generate an answer; see ``ChatModel.stream``."""
        chosen = {"max_tokens": options.max_tokens, "temperature": options.temperature, "top_p": options.top_p}
        given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
        given.update(options.extra)
        if options.stop:
            given["stop"] = list(options.stop)
        runnable: Any = self.model.bind_tools(list(options.tools)) if options.tools else self.model
        whole: AIMessageChunk | None = None
        try:
            async for chunk in runnable.astream([from_message(message) for message in messages], **given):
                whole = chunk if whole is None else whole + chunk
                if chunk.text:
                    yield Delta(text=str(chunk.text))
        except ModelError:
            raise
        except Exception as error:
            raise _error(error, self.name) from error
        if whole is None:
            raise ModelBroken(f"{self.name} ended without an answer")
        yield self._last(whole)

    def _last(self, whole: AIMessageChunk) -> Delta:
        made = to_message(AIMessage(**{k: v for k, v in whole.model_dump().items() if k in _FIELDS}))
        calls = tuple(part for part in made.parts if part.type == "tool_call")
        said = whole.response_metadata
        reason = str(said.get("finish_reason") or said.get("stop_reason") or "")
        return Delta(
            parts=calls,
            finish=_FINISHES.get(reason.lower(), "tool_calls" if calls else "stop"),
            usage=made.usage,
            model=made.model,
        )

    def count_tokens(self, text: str) -> int | None:
        """None: LangChain's own counting may fetch a tokenizer from the network."""
        return None

    async def ready(self) -> str | None:
        """None: LangChain does not say before it is asked."""
        return None

    async def close(self) -> None:
        """Nothing: the model belongs to whoever made it."""


_FIELDS = frozenset({"content", "tool_calls", "invalid_tool_calls", "usage_metadata", "response_metadata", "id"})


def _error(error: Exception, name: str) -> ModelError:
    # Each provider has exceptions of its own; those made from HTTP answers have the status.
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    kind, text = type(error).__name__, f"{name}: {type(error).__name__}: {error}"[:500]
    words = str(error).lower()
    if "context" in words and any(word in words for word in ("length", "exceed", "too long", "maximum")):
        return ContextOverflow(text)
    if status == 429:
        return ModelRateLimited(text)
    if status in (401, 403, 404):
        return ModelRefused(text)
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return ModelTimeout(text)
    if isinstance(error, ConnectionError) or "Connect" in kind or (isinstance(status, int) and status >= 500):
        return ModelUnavailable(text)
    return ModelBroken(text)
