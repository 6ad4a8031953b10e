"""Who may talk to the page: this machine's own browser, on the page itself, and nobody else.

The page has no password, so its door is the loopback address: a peer elsewhere is refused whatever the server listens
on. A browser, however, is led around by every site that its
user visits. Two checks keep those out: the ``Host`` must be a name of this machine (another name that was pointed at
127.0.0.1 is DNS rebinding), and a request that comes from a page must come from ours (``Origin``, ``Sec-Fetch-Site``),
web sockets included. The content security policy is the other direction: the page can reach nobody but its server.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?")

_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), browsing-topics=()",
}


class Guard:
    """ASGI middleware: 403 for who is not the page, and the headers that keep the page at home.

    ``script_hashes``: of the scripts that stand in the page itself, as ``sha256-…``; all others must be files of ours.
    """

    def __init__(self, app: ASGIApp, *, script_hashes: Iterable[str] = ()) -> None:
        self._app = app
        self._scripts = " ".join(f"'{value}'" for value in script_hashes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = refusal(scope)
        if problem is not None:
            await _refuse(scope, receive, send, problem)
            return
        policy = self._policy(_header(scope, b"host"))

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = policy
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, guarded)

    def _policy(self, host: str) -> str:
        rules = {
            "default-src": "'self'",
            "script-src": f"'self' {self._scripts}",
            "style-src": "'self' 'unsafe-inline'",
            "img-src": "'self' data: blob:",
            "font-src": "'self' data:",
            "media-src": "'self' data: blob:",
            # Older Safaris do not count the web socket of the same host as 'self'.
            "connect-src": f"'self' ws://{host}",
            "worker-src": "'self' blob:",
            "frame-src": "'none'",
            "object-src": "'none'",
            "base-uri": "'none'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
        }
        return "; ".join(f"{name} {value.strip()}" for name, value in rules.items())


def refusal(scope: Scope) -> str | None:
    """Why a request may not pass, in one line; None if it may."""
    peer = (scope.get("client") or ("",))[0]
    if not _is_loopback(peer):
        return f"{peer!r:.80} is another machine; this page knows no users and serves its own machine only"
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
    if not _HOST.fullmatch(host):
        return f"Host {host!r:.80} is not a name of this machine; open the page as http://localhost or http://127.0.0.1"
    origin = _header(scope, b"origin")
    if origin and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return f"Origin {origin!r:.80} is another site; only the page itself may talk to this server"
    # An image, a script or a form of another site carries no Origin on GET, but browsers say where it stands.
    if _header(scope, b"sec-fetch-site") in ("cross-site", "same-site") and not _is_navigation(scope):
        return "the request comes from another site; only the page itself may talk to this server"
    return None


def _is_navigation(scope: Scope) -> bool:
    # A link on another site may open the page: that site cannot read what it shows.
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and _header(scope, b"sec-fetch-mode") == "navigate"
        and _header(scope, b"sec-fetch-dest") == "document"
    )


def _is_loopback(address: str) -> bool:
    if not address:  # a Unix socket: its file's permissions say who may connect
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": problem[:120]})
        return
    body = f"403 Forbidden: {problem}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
