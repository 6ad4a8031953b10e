"""Each request gets an id, a line in the log and a place in the figures."""

from __future__ import annotations

import logging
import re
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daram import ids
from daram.service.observe import traces
from daram.service.observe.metrics import Metrics
from daram.service.observe.request import Note, noted

__all__ = ["Observed", "route"]

log = logging.getLogger("daram.requests")

_OWN_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# The words of our own addresses. All other parts of a path are somebody's: an id, a name, what a scanner tries.
_WORDS: Final = frozenset(
    """
    v1 models conversations items responses cancel input_items input_tokens compact chat completions
    branches export healthz readyz metrics login logout link account password keys revoke admin static
    oidc api openapi.json docs assets public avatars ws socket.io project user thread threads settings
    translations action feedback auth config header search messages edit regenerate favicon logo
    """.split()  # noqa: SIM905  # a list of them would be a page long
)


def route(path: str) -> str:
    """A path with everything but our own words replaced: there are few of those, and no secret in them."""
    parts = path.strip("/").split("/")
    if parts[0] and parts[0] not in _WORDS:
        return "other"
    return "/" + "/".join(part if part in _WORDS else "{}" for part in parts[:6] if part)


class Observed:
    """ASGI middleware around everything. ``metrics``: where to count, if anywhere."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics | None) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note = Note(id=_id_of(scope))
        status, size, began = 499, 0, time.perf_counter()

        async def told(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                added = {"x-request-id": note.id, **note.headers}
                own = {name.encode() for name in added}
                headers = [pair for pair in message["headers"] if pair[0].lower() not in own]
                headers += [(name.encode(), value.encode("latin-1")) for name, value in added.items()]
                message = {**message, "headers": headers}
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        method, where = scope["method"], route(scope["path"])
        token = noted.set(note)
        try:
            with traces.request(method, where, note.id, scope) as span:
                try:
                    await self._app(scope, receive, told)
                finally:
                    span.ended(status)
        except Exception:
            status = 500 if status == 499 else status
            raise
        finally:
            noted.reset(token)
            taken = time.perf_counter() - began
            if self._metrics is not None:
                self._metrics.request(method, where, status, taken)
            log.info(
                "%s %s %d %.1f ms",
                method,
                where,
                status,
                taken * 1000,
                extra={
                    "request_id": note.id,
                    "method": method,
                    "route": where,
                    "status": status,
                    "milliseconds": round(taken * 1000, 1),
                    "bytes": size,
                    "user": note.user,
                },
            )


def _id_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _OWN_ID.fullmatch(text := value.decode("latin-1")):
            return str(text)
    return "req_" + ids.uuid7()
