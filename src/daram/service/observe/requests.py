"""Each request gets an id, a line in the log and a place in the figures."""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daram import ids
from daram.service.observe import traces
from daram.service.observe.metrics import Metrics
from daram.service.observe.request import Note, noted

__all__ = ["Observed", "route"]

log = logging.getLogger("daram.requests")

_OWN_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# What is counted by itself; "{}" is somebody's: an id, a name. All else is counted by its first word: whoever scans a
# server for addresses must not find a place in its memory for each.
_ROUTES: Final = """
    healthz readyz metrics login login/link logout account account/password account/keys account/keys/{}/revoke
    login/oidc/{}/login login/oidc/{}/login/callback
    admin static/{} chat chat/thread/{} chat/user chat/ws/socket.io chat/project/threads chat/project/thread
    v1/docs v1/openapi.json v1/models v1/models/{} v1/chat/completions
    v1/conversations v1/conversations/search v1/conversations/{} v1/conversations/{}/export
    v1/conversations/{}/items v1/conversations/{}/items/{} v1/conversations/{}/items/{}/branches
    v1/conversations/{}/items/{}/use
    v1/responses v1/responses/input_tokens v1/responses/compact v1/responses/{} v1/responses/{}/cancel
    v1/responses/{}/input_items
    v1/files v1/files/{} v1/files/{}/content
    v1/vector_stores v1/vector_stores/{} v1/vector_stores/{}/search
    v1/vector_stores/{}/files v1/vector_stores/{}/files/{} v1/vector_stores/{}/files/{}/content
    v1/vector_stores/{}/file_batches v1/vector_stores/{}/file_batches/{} v1/vector_stores/{}/file_batches/{}/cancel
    v1/vector_stores/{}/file_batches/{}/files
"""


def _tree(routes: list[str]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for route in routes:
        node = root
        for part in route.split("/"):
            node = node.setdefault(part, {})
        node[""] = "/" + route
    return root


# Sessions have the same operations under /api.
_TREE: Final = _tree([*_ROUTES.split(), *_ROUTES.replace("v1/", "api/").split(), "api/me"])


def route(path: str) -> str:
    """A path with everything but our own words left out: there are few of those, and no secret in them."""
    parts = path.strip("/").split("/")
    if parts == [""]:
        return "/"
    if parts[0] not in _TREE:
        return "other"
    node: dict[str, Any] | None = _TREE
    for part in parts:
        node = None if node is None or not part else node.get(part) or node.get("{}")
    found: str = f"/{parts[0]}/…" if node is None else node.get("", f"/{parts[0]}/…")
    return found


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
