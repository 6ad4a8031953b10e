"""The server in front of the application: uvicorn, with time-outs where it has none."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from daram.settings import Settings

__all__ = ["door"]

_KEEP_ALIVE = 15  # seconds that an idle connection stays open


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


def _protocol(patience: float) -> type[H11Protocol]:
    """uvicorn's protocol, which closes a connection whose request has no complete head after ``patience`` seconds. (How
    long a head may be is h11's own bound.)

    What is behind the head of a request that was answered before it was read is not the next one's: it is let pass, for
    so many seconds. To close there could take the answer back from a client that has not read it yet. (A connection
    that is not to be kept is closed by uvicorn behind the answer.)
    """

    class Protocol(H11Protocol):
        cycle: RequestResponseCycle | None  # type: ignore[assignment]  # uvicorn's own says that there always is one
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            if self._timer is None and (self.cycle is None or self.cycle.response_complete):
                self._expect_head()  # the next request on this connection begins, or the rest of the last one comes
            before = self.cycle
            was_rest = self._in_rest()
            super().data_received(data)
            if self.cycle is not before or self.transport.get_protocol() is not self:  # a request, or a web socket
                self._stop_timer()
            elif was_rest and not self._in_rest():
                self._stop_timer()
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _in_rest(self) -> bool:
            answered = self.cycle is not None and self.cycle.response_complete
            return answered and self.conn.their_state is h11.SEND_BODY

        def _expect_head(self) -> None:
            self._timer = asyncio.get_running_loop().call_later(patience, self._give_up)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._stop_timer()
            if not self.transport.is_closing():
                self.transport.close()

    return Protocol
