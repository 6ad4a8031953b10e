"""Asking over chat completions: one request, its stream, its faults, and when to ask again.

What the plug-ins share: ``daram.llm.openai`` (any endpoint) and ``daram.llm.local`` (llama.cpp on this machine).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import httpx
import msgspec

from daram.errors import ModelBroken, ModelError, ModelTimeout, ModelUnavailable
from daram.llm import _refusals, _sse, wire
from daram.llm.base import Delta, Options
from daram.model import Message

_log = logging.getLogger("daram.llm")
_random = random.SystemRandom()

_DEFAULTS: Final = Options()
_ERROR_BODY: Final = 64 << 10
_ANSWER_BODY: Final = 8 << 20
_PATIENCE: Final = 10  # read time-outs that an endpoint may fill with nothing but signs of life
_READY_FOR: Final = 30.0


class Endpoint:
    """Where a model is asked: an address and how patient to be. Times are in seconds.

    ``connect_timeout`` bounds the connecting, ``read_timeout`` each silence (before the first byte and between bytes).
    A request is sent again, ``max_retries`` times at most, only while nothing of the answer has come: when the
    connection failed or the endpoint answered 408, 409, 429 or 5xx; after ``backoff``, doubled each time up to
    ``max_backoff``, with jitter, or after what ``Retry-After`` says where that is at most ``max_backoff`` (a longer
    one is reported instead of waited for). ``shown`` is what errors call the endpoint, ``advice`` what they
    recommend where it does not speak the protocol, ``settings`` the names of those for model, address and key.
    Without ``proxies`` those of the environment are left aside.
    """

    def __init__(
        self,
        name: str,
        url: httpx.URL,
        *,
        key: str,
        shown: str,
        advice: str = "",
        settings: tuple[str, str, str] = ("DARAM_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
        connect_timeout: float,
        read_timeout: float,
        max_retries: int,
        backoff: float = 0.5,
        max_backoff: float = 20.0,
        keep_alive: bool = True,
        proxies: bool = True,
    ) -> None:
        self.name = name
        self._url = url
        self._key = key
        self._shown = shown
        self._advice = advice
        self._settings = settings
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._max_retries = max_retries
        self._backoff = backoff
        self._max_backoff = max_backoff
        self._keep_alive = keep_alive
        self._proxies = proxies
        self._unwanted: set[str] = set()
        # A client belongs to the loop that it was first used on.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._closed = False
        self._ready_until = 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._shown!r})"

    async def stream(self, messages: Sequence[Message], options: Options = _DEFAULTS) -> AsyncGenerator[Delta]:
        """Generate an answer; see ``ChatModel.stream``. Closing the iterator closes the connection at once.

        Raises ``ModelRefused`` (401, 403, 404, a request that it does not take), ``ModelRateLimited`` (429),
        ``ContextOverflow``, ``ModelUnavailable`` (no connection, 5xx), ``ModelTimeout`` (silence) and ``ModelBroken``
        (cut off, or not the protocol).
        """
        request = wire.body(self.name, messages, options)
        attempt = 0
        while True:
            chunks = wire.Chunks(self.name)
            try:
                async with aclosing(self._attempt(self._adapted(request), chunks)) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except _Failure as failure:
                if failure.refusal is not None and self._learn(failure.refusal, request):
                    continue
                await self._rest(attempt, failure)
            attempt += 1

    async def post(self, path: str, request: dict[str, Any]) -> bytes:
        """What the endpoint answers to a request that it does not stream, with the same retries and errors."""
        attempt = 0
        while True:
            try:
                async with self._sent("POST", path, request) as response:
                    if not response.is_success:
                        raise self._failure(await _refusal(response))
                    try:
                        return await _read(response, _ANSWER_BODY)
                    except httpx.HTTPError as error:
                        raise self._lost(error, started=False) from error
            except _Failure as failure:
                await self._rest(attempt, failure)
            attempt += 1

    def broken(self, what: str) -> ModelBroken:
        """The error of an answer that is not what was asked for."""
        return ModelBroken(f"{self._shown} {what} of {self.name}")

    async def ready(self) -> str | None:
        """Ask the endpoint for its models (at most every 30 s); None where it answers, else what is wrong."""
        if time.monotonic() < self._ready_until and not self._closed:
            return None
        try:
            async with asyncio.timeout(self._connect_timeout), self._sent("GET", "models") as response:
                refusal = None if response.is_success else await _refusal(response)
        except TimeoutError:
            return f"{self._shown} does not answer within {self._connect_timeout:g} s; is it running?"
        except _Failure as failure:
            return str(failure.error)
        # Whoever has no list of models may still have this one.
        if refusal is not None and refusal.status not in (404, 405, 501):
            return str(self._failure(refusal).error)
        self._ready_until = time.monotonic() + _READY_FOR
        return None

    async def close(self) -> None:
        """Close the connections; answers that are being made end with ``ModelBroken``."""
        self._closed = True
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    # --- one attempt --------------------------------------------------------------------------------------------------

    async def _attempt(self, request: dict[str, Any], chunks: wire.Chunks) -> AsyncGenerator[Delta]:
        async with self._sent("POST", "chat/completions", request) as response:
            if not response.is_success:
                raise self._failure(await _refusal(response))
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            try:
                async with aclosing(self._events(response, kind)) as events:
                    async for event in events:
                        if delta := self._take(event, chunks):
                            yield delta
            except httpx.HTTPError as error:
                raise self._lost(error, chunks.started) from error
            except (ValueError, msgspec.DecodeError) as error:
                hint = "" if chunks.started else self._advice
                said = self._redact(str(error))
                what = f"sent what is not the protocol ({kind or 'no type'}): {said}{hint};"
                raise self._broken(what) from error
        if not chunks.ended and not (chunks.done and chunks.started):
            raise self._broken("ended the stream in the middle of the answer", transient=not chunks.started)
        yield chunks.end()

    async def _events(self, response: httpx.Response, kind: str) -> AsyncGenerator[str]:
        """The data of the events, ``[DONE]`` the last; of an endpoint that does not stream, its one answer."""
        if kind == "application/json":
            yield (await _read(response, _ANSWER_BODY)).decode()
            return
        heard = time.monotonic()
        async with aclosing(_raw(response)) as raw, aclosing(_sse.events(raw)) as events:
            async for event in events:
                if event is not None:
                    heard = time.monotonic()
                    yield event
                elif time.monotonic() - heard > _PATIENCE * self._read_timeout:
                    raise httpx.ReadTimeout("nothing but signs of life")
                if event == "[DONE]":
                    # Read to its end the connection can be used again; nobody waits for a server that leaves it open.
                    with suppress(TimeoutError, httpx.HTTPError):
                        async with asyncio.timeout(0.1):
                            async for _ in raw:
                                pass
                    return

    def _take(self, event: str, chunks: wire.Chunks) -> Delta | None:
        if event == "[DONE]":
            chunks.done = True
            return None
        chunk = msgspec.json.decode(event)
        if isinstance(chunk, dict) and chunk.get("error"):
            raise self._failure(_refusals.from_json(200, chunk), started=chunks.started)
        return chunks.add(chunk)

    @asynccontextmanager
    async def _sent(self, method: str, path: str, body: dict[str, Any] | None = None) -> AsyncIterator[httpx.Response]:
        """The response, its body not read yet; closed on leaving, also in the middle."""
        if self._closed:
            raise _Failure(ModelUnavailable(f"the model {self.name} was closed"))
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = self._url.copy_with(path=f"{self._url.path.rstrip('/')}/{path}")
        content = None if body is None else msgspec.json.encode(body)
        client = self._client()
        request = client.build_request(method, url, headers=headers, content=content)
        try:
            response = await client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._lost(error, started=False) from error
        try:
            yield response
        finally:
            await response.aclose()

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            timeout = httpx.Timeout(self._read_timeout, connect=self._connect_timeout, pool=None)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=20 if self._keep_alive else 0)
            self._clients[loop] = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=self._proxies)
        return self._clients[loop]

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _failure(self, refusal: _refusals.Refusal, *, started: bool = False) -> _Failure:
        # Some endpoints repeat the key in their complaint.
        refusal = msgspec.structs.replace(refusal, words=self._redact(refusal.words))
        error = _refusals.error(
            refusal,
            model=self.name,
            url=self._shown,
            has_key=bool(self._key),
            started=started,
            settings=self._settings,
        )
        return _Failure(error, refusal, transient=refusal.is_transient and not started)

    def _broken(self, what: str, *, transient: bool = False) -> _Failure:
        return _Failure(self.broken(what), transient=transient)

    def _lost(self, error: httpx.HTTPError, started: bool) -> _Failure:
        why = self._redact(str(error) or type(error).__name__)
        if isinstance(error, httpx.ConnectTimeout):
            text = f"{self._shown} cannot be connected to within {self._connect_timeout:g} s; is it running?"
            return _Failure(ModelUnavailable(text), transient=True)
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            return _Failure(ModelUnavailable(f"{self._shown} cannot be reached: {why}; is it running?"), transient=True)
        if isinstance(error, httpx.TimeoutException):
            when = "stopped talking in the middle of the answer" if started else "did not begin to answer"
            return _Failure(ModelTimeout(f"{self._shown} {when}: nothing for {self._read_timeout:g} s"))
        when = "in the middle of the answer" if started else "before the answer began"
        return _Failure(ModelBroken(f"{self._shown} cut the connection {when}: {why}"), transient=not started)

    def _redact(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    # --- trying again -------------------------------------------------------------------------------------------------

    async def _rest(self, attempt: int, failure: _Failure) -> None:
        """Wait before the next attempt; raises the failure's error where there should be none."""
        pause = self._pause(attempt, failure) if attempt < self._max_retries else None
        if pause is None:
            raise failure.error from failure.__cause__
        _log.info("asking %s again in %.1f s: %s", self.name, pause, failure.error)
        await asyncio.sleep(pause)

    def _pause(self, attempt: int, failure: _Failure) -> float | None:
        """Seconds until the next attempt; None where there should be none."""
        if not failure.transient:
            return None
        wait: float = min(self._backoff * 2.0**attempt, self._max_backoff) * _random.uniform(0.5, 1.0)
        asked = None if failure.refusal is None else failure.refusal.retry_after
        if asked is None:
            return wait
        return None if asked > self._max_backoff else max(asked, wait)

    def _learn(self, refusal: _refusals.Refusal, request: dict[str, Any]) -> bool:
        """Whether the endpoint refused a field that it can do without; the next requests leave it out."""
        if refusal.status not in (400, 422) or refusal.is_overflow:
            return False
        for field in ("stream_options", "max_tokens", "temperature", "top_p"):
            named = refusal.param.startswith(field) or field in refusal.words
            if named and field in request and field not in self._unwanted:
                # Only the first is ours; of the others an endpoint must say that it does not know or support them.
                if field != "stream_options" and "upport" not in f"{refusal.code} {refusal.words}":
                    continue
                self._unwanted.add(field)
                return True
        return False

    def _adapted(self, request: dict[str, Any]) -> dict[str, Any]:
        adapted = {field: value for field, value in request.items() if field not in self._unwanted}
        if "max_tokens" in request and "max_tokens" in self._unwanted:  # OpenAI's newer name for it
            adapted["max_completion_tokens"] = request["max_tokens"]
        return adapted


class _Failure(Exception):
    """Why an attempt failed, and whether the same request may succeed a moment later."""

    def __init__(self, error: ModelError, refusal: _refusals.Refusal | None = None, *, transient: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.refusal = refusal
        self.transient = transient


async def _refusal(response: httpx.Response) -> _refusals.Refusal:
    retry_after = _refusals.seconds(response.headers.get("retry-after"))
    try:
        text = (await _read(response, _ERROR_BODY)).decode("utf-8", "replace")
    except httpx.HTTPError:  # the status alone says enough
        text = ""
    return _refusals.read(response.status_code, text, retry_after)


async def _read(response: httpx.Response, limit: int) -> bytes:
    """The body, up to ``limit`` bytes."""
    data = bytearray()
    async with aclosing(_raw(response)) as chunks:
        async for chunk in chunks:
            data += chunk[: limit - len(data)]
            if len(data) >= limit:
                break
    return bytes(data)


def _raw(response: httpx.Response) -> AsyncGenerator[bytes]:
    return cast("AsyncGenerator[bytes]", response.aiter_bytes())
