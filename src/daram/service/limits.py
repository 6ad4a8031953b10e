"""How much one request may take: the size of its body, the time until it is here, the time a client may not listen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Bodies"]


_SLOWEST: Final = 1 << 16
"""Bytes in a second: a large body has the time that it takes at this speed, beyond what every body has."""


async def _no_more(_scope: Scope) -> int:
    return 0


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str, limit: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.limit = limit


class _NotListening(Exception):
    """The client takes nothing any more."""


class _Patience:
    """Sends, and raises ``_NotListening`` where that takes longer than ``seconds``.

    There is one timer for a whole answer: one for each of its pieces would cost more than the sending.
    """

    def __init__(self, send: Send, seconds: float) -> None:
        self.used = False
        self._send = send
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[object] | None = None
        self._since: float | None = None
        self._expired = False

    async def send(self, message: Message) -> None:
        """Pass the message on."""
        self.used = True
        self._sender = asyncio.current_task(self._loop)
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)
        self._since = self._clock()
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if self._expired and self._sender is not None and self._sender.uncancel() == 0:
                raise _NotListening from None
            raise
        finally:
            self._since = None

    def end(self) -> None:
        """Nothing more is sent."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        due = (self._clock() if self._since is None else self._since) + self._seconds
        if due <= self._clock() and self._sender is not None:
            self._expired = True
            self._sender.cancel()
        else:
            self._timer = self._loop.call_at(due, self._look)


class Bodies:
    """ASGI middleware: 413 for a body above ``limit`` bytes, 408 for one that is not here after ``arrival`` seconds; a
    client that takes none of its answer for ``departure`` seconds loses its connection. ``larger`` tells how many bytes
    a request may have that has, or may have, more than ``limit``; it is asked before more is read. ``detail`` says
    what the page is told in a 413: of the request, and the limit that it met.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: int,
        arrival: float,
        departure: float,
        larger: Callable[[Scope], Awaitable[int]] = _no_more,
        detail: Callable[[Scope, int], str | None] | None = None,
    ) -> None:
        self._app = app
        self._limit = limit
        self._arrival = arrival
        self._departure = departure
        self._larger = larger
        self._detail = detail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        patience = _Patience(send, self._departure)
        try:
            await self._app(scope, self._bounded(receive, await self._allowed(scope)), patience.send)
        except _Refused as refused:
            if patience.used:
                raise
            await _say(send, refused, self._detail and self._detail(scope, refused.limit))
        except _NotListening:
            # The server closes a connection whose answer was not ended.
            return
        finally:
            patience.end()

    async def _allowed(self, scope: Scope) -> int:
        """How many bytes the body may have; refuses what says that it has more."""
        found = (value for name, value in scope["headers"] if name == b"content-length" and value.isdigit())
        announced = int(next(found, b"-1"))
        if 0 <= announced <= self._limit:
            return self._limit
        allowed = max(self._limit, await self._larger(scope))
        if announced > allowed:
            raise self._too_large(allowed)
        return allowed

    def _bounded(self, receive: Receive, limit: int) -> Receive:
        deadline = asyncio.get_running_loop().time() + self._arrival
        size, complete = 0, False

        async def bounded() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()  # it waits for the client to leave
            try:
                async with asyncio.timeout_at(deadline + max(0, size - self._limit) / _SLOWEST):
                    message = await receive()
            except TimeoutError:
                text = f"The request was not complete after {self._arrival:g} seconds. Send it again."
                raise _Refused(408, text, "request_timeout") from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > limit:
                    raise self._too_large(limit)
            return message

        return bounded

    def _too_large(self, limit: int) -> _Refused:
        setting = "DARAM_BODY_LIMIT" if limit == self._limit else "DARAM_UPLOAD_LIMIT"
        text = f"The body of the request is too large: at most {limit:,} bytes are allowed ({setting})."
        return _Refused(413, text, "too_large", limit)


async def _say(send: Send, refused: _Refused, detail: str | None) -> None:
    error = {"message": str(refused), "type": "invalid_request_error", "param": None, "code": refused.code}
    body = json.dumps({"error": error} | ({"detail": detail} if detail else {})).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 408:
        headers.append((b"connection", b"close"))
    # Else what is left of the body is let pass (``daram.service.door``): to close on a client that is still sending
    # takes the answer back.
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
