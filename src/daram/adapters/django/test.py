"""For a project's tests: a store of their own for each, in memory or anywhere, and a model that needs no endpoint.

::

    class ChatTests(DaramTestMixin, TestCase):
        def test_it_remembers(self): ...

    pytest_plugins = ["daram.adapters.django.pytest_plugin"]  # pytest: in conftest.py; then the fixture ``daram_store``
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from daram.adapters.django import conf, life
from daram.adapters.django.faces import SyncMemory
from daram.llm.base import ChatModel, Delta, Options
from daram.model import Message

__all__ = ["DaramTestMixin", "ScriptedModel", "fresh_store"]

Reply = str | Callable[[Sequence[Message]], str]


class ScriptedModel:
    """A model that gives these replies in turn, the last one again and again; a function makes its reply from what the
    model was shown. ``asked``: what it was shown, turn by turn.
    """

    name = "scripted"
    context_tokens = 100_000
    prefers_notes = False

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies) or ["All right."]
        self.asked: list[list[Message]] = []

    async def stream(self, messages: Sequence[Message], options: Options = Options()) -> AsyncGenerator[Delta, None]:
        """The next reply, word by word."""
        self.asked.append(list(messages))
        reply = self._replies[0] if len(self._replies) == 1 else self._replies.pop(0)
        words = (reply if isinstance(reply, str) else reply(messages)).split(" ")
        for number, word in enumerate(words):
            yield Delta(text=f" {word}" if number else word)
        yield Delta(finish="stop")

    def count_tokens(self, text: str) -> int | None:
        """Unknown."""
        return None

    async def ready(self) -> str | None:
        """Always."""
        return None

    async def close(self) -> None:
        """Nothing to let go of."""


@contextmanager
def fresh_store(*, model: ChatModel | None = None, store: str = "memory://", **settings: Any) -> Iterator[SyncMemory]:
    """An empty store in the place of the project's while the block runs, also for the views; also a decorator
    of synchronous functions.

    ``model``: what answers (by default a ``ScriptedModel``); ``settings``: fields of Daram's settings to change, as
    ``window=5``. Titles are not made, unless ``titles=True`` says so; documents are searched by words, unless
    ``embedder="local"`` does.
    """
    usual = {"documents": None, "cache": None, "redis": None, "titles": False, "embedder": "off"}
    found = replace(conf.settings(), store=store, **{**usual, **settings})
    chosen = ScriptedModel() if model is None else model
    with life.instead(found, lambda: chosen) as memory:
        yield memory


class DaramTestMixin:
    """For a ``TestCase``: each test has an empty store, ``self.memory``, and ``self.model`` in the place of a model.

    ``daram_model``: a function that makes another model; ``daram_store``: its URL; ``"sqlite"`` is a file that goes
    with the test.
    """

    daram_store = "memory://"
    daram_model: Callable[[], ChatModel] = ScriptedModel
    memory: SyncMemory
    model: Any

    def setUp(self) -> None:
        """Begin with an empty store."""
        super().setUp()  # type: ignore[misc]  # a TestCase's
        stack = ExitStack()
        self.addCleanup(stack.close)  # type: ignore[attr-defined]  # a TestCase's
        self.model = type(self).daram_model()
        store = self.daram_store
        if store == "sqlite":
            store = f"sqlite:///{Path(stack.enter_context(tempfile.TemporaryDirectory())) / 'daram.db'}"
        self.memory = stack.enter_context(fresh_store(model=self.model, store=store))
