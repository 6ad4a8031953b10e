"""A model whose work is counted and traced."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from daram.errors import DaramError
from daram.llm.base import ChatModel, Delta, Options
from daram.model import Message
from daram.service.observe import traces
from daram.service.observe.metrics import Metrics

__all__ = ["watched"]


def watched(model: ChatModel, metrics: Metrics | None) -> ChatModel:
    """The model, watched where there is anybody to tell."""
    if metrics is None and not traces.active():
        return model
    return cast("ChatModel", _WatchedModel(model, metrics))


class _WatchedModel:
    """The model that it wraps, in all but that it is watched: see ``ChatModel``."""

    def __init__(self, inner: ChatModel, metrics: Metrics | None) -> None:
        self._inner = inner
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncIterator[Delta]:
        """As the model's, with a span and figures."""
        began, first = time.perf_counter(), None
        usage: dict[str, int] | None = None
        outcome, name = "stopped", self._inner.name
        if self._metrics is not None:
            self._metrics.generation_began()
        with traces.generation(
            name, max_tokens=options.max_tokens, temperature=options.temperature, top_p=options.top_p
        ) as span:
            try:
                async with aclosing(cast("Any", self._inner.stream(messages, options))) as deltas:
                    async for delta in deltas:
                        if first is None and (delta.text or delta.parts):
                            first = time.perf_counter() - began
                        usage = delta.usage or usage
                        if delta.finish is not None:
                            outcome = delta.finish
                            span.set(gen_ai__response__finish_reasons=(delta.finish,))
                        if delta.model:
                            span.set(gen_ai__response__model=delta.model)
                        yield delta
            except Exception as error:
                outcome = error.code if isinstance(error, DaramError) else "error"
                span.failed(outcome)
                raise
            finally:
                if usage:
                    span.set(
                        gen_ai__usage__input_tokens=usage.get("input_tokens"),
                        gen_ai__usage__output_tokens=usage.get("output_tokens"),
                    )
                if self._metrics is not None:
                    self._metrics.generation_ended(name, outcome, first, usage)
