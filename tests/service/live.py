"""The service under a real uvicorn, in a thread of the test's process, and people who call it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn
from tests.service.people import service_settings

from daram.knowledge import extract
from daram.llm.base import ChatModel
from daram.memory import Memory
from daram.settings import Settings
from daram.text.load import LoadLimits, Section, load

T = TypeVar("T")


class Live:
    """A running service. ``url``: its address, without a slash at the end."""

    def __init__(self, settings: Settings, model: ChatModel | None) -> None:
        from daram.service.asgi import create_app
        from daram.service.door import door

        self.app = create_app(settings, model=model, page=False)
        self.settings = settings
        self.server = uvicorn.Server(door(self.app, settings))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live service")

    @property
    def memory(self) -> Memory:
        """Its store; to be used on its loop (``call``)."""
        return self.app.runtime.memory

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the service."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(120)
        assert self.server.started, "the service did not start"

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._started.set()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            self.socket.close()

    async def _serve(self) -> None:
        serving = asyncio.create_task(self.server.serve(sockets=[self.socket]))
        while not self.server.started and not serving.done():
            await asyncio.sleep(0.01)
        self._started.set()
        await serving


@contextmanager
def live_service(data: Path, *, model: ChatModel | None = None, **settings: Any) -> Iterator[Live]:
    """The service on a free port, with a store of its own."""
    service = Live(service_settings(data, **settings), model)
    service.start()
    try:
        yield service
    finally:
        service.stop()


@contextmanager
def reading_here() -> Iterator[None]:
    """Within, documents are read in this process: where it does not matter how (a child takes a second to start)."""

    async def sections(
        _self: object, path: Path, *, name: str, media_type: str | None = None, limits: LoadLimits = LoadLimits()
    ) -> AsyncIterator[Section]:
        for section in load(path, name=name, media_type=media_type, limits=limits):
            yield section

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract.Readers, "sections", sections)
        yield
