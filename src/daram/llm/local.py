"""A model in a GGUF file, run on this machine by llama.cpp (``xllamacpp``, the extra ``local``)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import httpx
import msgspec

from daram.errors import ModelBroken, ModelError, ModelRateLimited, ModelTimeout, ModelUnavailable
from daram.llm._llama_process import LlamaProcess, Loaded, check_file, problem
from daram.llm.base import Delta, Options
from daram.llm.endpoint import Endpoint
from daram.model import Message

__all__ = ["CONTEXT_TOKENS", "LocalModel", "problem"]

CONTEXT_TOKENS: Final = 4096
"""Reading takes the time on an ordinary processor (30 to 80 tokens a second): a longer context would be waited for."""
_DEFAULTS: Final = Options()
_TEMPERATURE: Final = 0.2  # where nobody says: small models wander off at the usual 0.8
_SILENCE: Final = 120.0  # seconds; the runtime reports after every batch that it has read
_COUNTED: Final = 64 << 10  # characters; a longer text is over any context here, and is estimated


class LocalModel:
    """A ``ChatModel`` from a file. It loads in the background: from ``start``, ``ready`` or the first ``stream`` on.

    llama.cpp runs in a process of its own (``daram.llm._llama`` says why), which ``close`` ends, and which ends with
    this one. If it dies, the answer in progress fails and the next one starts it again. ``slots`` answers are made at
    the same time, each with ``context_tokens`` of its own; up to ``queue`` more wait their turn, in order, and any
    beyond get ``ModelRateLimited``. ``threads`` (None: all processors but one, at least one) is for all together.
    ``context_tokens`` (None: 4096) turns out smaller once loaded where the model was trained for less.
    """

    prefers_notes = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        context_tokens: int | None = None,
        threads: int | None = None,
        slots: int = 2,
        queue: int = 32,
    ) -> None:
        self._path = Path(path)
        self.name = name or self._path.stem
        self.context_tokens = context_tokens or CONTEXT_TOKENS
        self._threads = threads or max(1, _processors() - 1)
        self._slots = slots
        self._queue = queue
        self._inside = 0
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._closed = False
        self._since = 0.0
        self._process: LlamaProcess | None = None
        self._loading: Future[_Runtime] | None = None

    def __repr__(self) -> str:
        return f"LocalModel({self.name!r})"

    def start(self, *, again: bool = False) -> None:
        """Begin to load, in a thread; harmless when it has begun. A runtime that died starts anew.

        After a load that failed only ``again`` tries once more.
        """
        with self._lock:
            if self._closed or not self._wants_start(again):
                return
            loading: Future[_Runtime] = Future()
            self._loading = loading
            loading.set_running_or_notify_cancel()  # whoever waits for it may be cancelled, not the loading itself
            self._since = time.monotonic()
            threading.Thread(target=self._load, args=(loading,), name="daram-llama-load", daemon=True).start()

    async def ready(self) -> str | None:
        """None once loaded; else one line that says how far it is, or why it could not be. Starts the loading."""
        self.start()
        if self._closed or self._loading is None:
            return f"the local model {self.name} was closed"
        if not self._loading.done():
            size = self._path.stat().st_size if self._path.is_file() else 0
            seconds = time.monotonic() - self._since
            return f"the local model {self.name} is being loaded ({size / 1e9:.1f} GB, {seconds:.0f} s so far)"
        error = self._loading.exception()
        return None if error is None else str(error)

    async def stream(self, messages: Sequence[Message], options: Options = _DEFAULTS) -> AsyncGenerator[Delta]:
        """Generate an answer, when it is loaded and a slot is free; see ``ChatModel.stream``.

        Closing the iterator stops the generation at the next token, or batch of the prompt. Raises ``ContextOverflow``,
        ``ModelUnavailable`` (not installed, no such file, cannot be loaded; the text says what to do),
        ``ModelRateLimited`` (too many wait) and ``ModelBroken`` (closed, or the runtime died).
        """
        options = msgspec.structs.replace(
            options,
            temperature=_TEMPERATURE if options.temperature is None else options.temperature,
            extra={"return_progress": True} | options.extra,
        )
        async with self._turn():
            runtime = await self._runtime()
            try:
                async with contextlib.aclosing(runtime.endpoint.stream(messages, options)) as deltas:
                    async for delta in deltas:
                        yield delta
            except (ModelBroken, ModelTimeout, ModelUnavailable) as error:
                raise await self._explained(runtime, error) from error

    def count_tokens(self, text: str) -> int | None:
        """The exact number of tokens (about a millisecond); None while it is not loaded, and for very long texts."""
        loading = self._loading
        if loading is None or not loading.done() or loading.exception() is not None or len(text) > _COUNTED:
            return None
        return loading.result().tokenizer.count(text)

    async def close(self) -> None:
        """End the runtime and free its memory; answers that are being made end with ``ModelBroken``."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            await asyncio.to_thread(process.kill)

    # --- loading ------------------------------------------------------------------------------------------------------

    def _wants_start(self, again: bool) -> bool:
        if self._loading is None:
            return True
        if not self._loading.done():
            return False
        if self._loading.exception() is not None:
            return again
        return not self._loading.result().process.alive

    def _load(self, loading: Future[_Runtime]) -> None:
        try:
            reason = problem()
            if reason is not None:
                raise ModelUnavailable(reason)
            check_file(self._path)
            process = LlamaProcess(
                self._path,
                name=self.name,
                context_tokens=self.context_tokens,
                slots=self._slots,
                threads=self._threads,
            )
            with self._lock:
                self._process = process
                closed = self._closed
            if closed:
                process.kill()
            loaded = process.load()
            self.context_tokens = min(self.context_tokens, loaded.context_tokens)
            loading.set_result(_Runtime(self.name, process, loaded))
        except ModelUnavailable as error:
            loading.set_exception(self._gone() if self._closed else error)
        except OSError as error:
            loading.set_exception(ModelUnavailable(f"the local model {self.name} cannot be started: {error}"))
        finally:
            if not loading.done():  # nobody may wait for ever for what went wrong in another way
                loading.set_exception(ModelUnavailable(f"the local model {self.name} could not be loaded"))

    async def _runtime(self) -> _Runtime:
        self.start(again=True)
        if self._closed or self._loading is None:
            raise self._gone()
        try:
            return await asyncio.wrap_future(self._loading)
        except ModelUnavailable as error:  # the one object is for all who wait
            raise ModelUnavailable(str(error)) from error

    def _gone(self) -> ModelUnavailable:
        return ModelUnavailable(f"the local model {self.name} was closed")

    async def _explained(self, runtime: _Runtime, error: ModelError) -> ModelError:
        """The error to raise where the connection to the runtime failed: why, if it is that the runtime died."""
        for _ in range(20):  # the connection may end a moment before its process
            if not runtime.process.alive:
                break
            await asyncio.sleep(0.05)
        else:
            return error
        if self._closed:
            return ModelBroken(f"the local model {self.name} was closed in the middle of the answer")
        return ModelBroken(
            f"the local model {self.name} stopped: {runtime.process.death()}; it is started again when asked"
        )

    # --- taking turns -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        with self._lock:
            if self._inside >= self._slots + self._queue:
                text = f"{self._inside} answers are being made or wait already for the local model {self.name}"
                raise ModelRateLimited(f"{text}; try again later", retry_after=10.0)
            self._inside += 1
        try:
            loop = asyncio.get_running_loop()
            gate = self._gates.get(loop)
            if gate is None:
                gate = self._gates[loop] = asyncio.Semaphore(self._slots)
            async with gate:
                yield
        finally:
            with self._lock:
                self._inside -= 1


class _Runtime:
    """A process that has loaded, and the ways to ask it."""

    def __init__(self, name: str, process: LlamaProcess, loaded: Loaded) -> None:
        self.process = process
        self.tokenizer = _Tokenizer(loaded)
        self.endpoint = Endpoint(
            name,
            httpx.URL(f"{loaded.url}/v1"),
            key=loaded.key,
            shown="the local llama.cpp",
            connect_timeout=10.0,
            read_timeout=_SILENCE,
            max_retries=0,
            keep_alive=False,  # it closes connections after a stream, unannounced
            proxies=False,
        )


class _Tokenizer:
    """The model's own, asked over loopback. What is asked again (every message, each turn) is remembered."""

    def __init__(self, loaded: Loaded) -> None:
        self._address = loaded.url.removeprefix("http://")
        self._headers = {"Authorization": f"Bearer {loaded.key}", "Content-Type": "application/json"}
        self._silent_until = 0.0
        self._remembered = functools.lru_cache(maxsize=1024)(self._ask)

    def count(self, text: str) -> int | None:
        if time.monotonic() < self._silent_until:
            return None
        try:
            return self._remembered(text)
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            # Callers have an estimate to fall back on, and must not wait again for a runtime in trouble.
            self._silent_until = time.monotonic() + 10.0
            return None

    def _ask(self, text: str) -> int:
        connection = http.client.HTTPConnection(self._address, timeout=1.0)
        try:
            connection.request("POST", "/tokenize", json.dumps({"content": text}), self._headers)
            return len(json.load(connection.getresponse())["tokens"])
        finally:
            connection.close()


def _processors() -> int:
    # Those that this process may use: a container or taskset may allow fewer than there are.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
