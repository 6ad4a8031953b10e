"""The server in front of the application: uvicorn, with time-outs where it has none."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from daram.settings import Settings

__all__ = ["door"]

_KEEP_ALIVE = 15  # seconds that an idle connection stays open
_HEAD = 1 << 16  # bytes that the head of a request may have


def door(app: ASGIApp, settings: Settings, *, grace: float = 5.0) -> uvicorn.Config:
    """How to serve ``app``: ``uvicorn.Server(door(app, settings)).serve(…)``.

    ``grace``: seconds that open connections get beyond ``DARAM_DRAIN`` when the server ends.
    """
    return uvicorn.Config(
        app,
        http=_protocol(settings.body_timeout),
        log_level="warning",
        log_config=None,
        access_log=False,
        server_header=False,
        # Without trusted proxies, who says on whose behalf it asks is not believed.
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies) or None,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.drain + grace),
    )


def _protocol(patience: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection whose request has no complete head after ``patience`` seconds or
    ``_HEAD`` bytes: not every parser that it may use has a bound of its own.

    What is behind the head of a request that was answered before it was read is not the next one's: it is let pass, for
    so many seconds. To close there could take the answer back from a client that has not read it yet.
    """

    class Protocol(_fastest()):  # type: ignore[misc]  # which one it is depends on what is installed
        _head: asyncio.TimerHandle | None = None
        _read = 0  # bytes of the head
        _in_body = False  # of httptools, which tells it to its protocol; h11 is asked

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            if self._head is None and (self.cycle is None or self.cycle.response_complete):
                self._expect_head()  # the next request on this connection begins
            before = self.cycle
            if not self._in_rest():
                self._read += len(data)
            super().data_received(data)
            if self.cycle is not before or self.transport.get_protocol() is not self:  # a request, or a web socket
                self._head_is_here()
            elif self._head is not None and self._read > _HEAD:
                self._give_up()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_is_here()
            super().connection_lost(exc)

        def on_headers_complete(self) -> None:
            self._in_body = True
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_body = False
            super().on_message_complete()

        def _in_rest(self) -> bool:
            if self.cycle is None or not self.cycle.response_complete:
                return False
            parser = getattr(self, "conn", None)
            return self._in_body if parser is None else parser.their_state is h11.SEND_BODY

        def _expect_head(self) -> None:
            self._read = 0
            self._head = asyncio.get_running_loop().call_later(patience, self._give_up)

        def _head_is_here(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _give_up(self) -> None:
            self._head_is_here()
            if not self.transport.is_closing():
                self.transport.close()

    return Protocol


def _fastest() -> type[asyncio.Protocol]:
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return H11Protocol
    return HttpToolsProtocol
