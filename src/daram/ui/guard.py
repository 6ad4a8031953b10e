"""From where the service may be asked: under its own names, from its own pages, and by default from this machine only.

A browser is led around by every site that its user visits. Two checks keep those out: the ``Host`` must be a name of
ours (another name that was pointed at our address is DNS rebinding), and a request that comes from a page must come
from ours (``Origin``, ``Sec-Fetch-Site``), web sockets included. The content security policy is the other direction: a
page can reach nobody but its server. Who may do what is for the accounts to say, behind this.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]")
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")

_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), browsing-topics=()",
}


class Guard:
    """ASGI middleware: 403 for who is not to ask, and the headers that keep the pages at home.

    ``hosts``: names under which others may ask (``.example.org``: all below it); without any, only this machine may.
    ``origins``: other sites whose pages may use what lies under ``shared``, and nothing else.
    ``page``: where the page lies whose own scripts have these ``script_hashes`` (``sha256-…``); all others are files.
    ``free``: paths that anybody may ask under any name, as the probes of a balancer do; they must not tell secrets.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        shared: str = "/v1",
        page: str = "/chat",
        script_hashes: Iterable[str] = (),
        free: Collection[str] = (),
    ) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)
        self._shared = shared
        self._page = page
        self._scripts = " ".join(f"'{value}'" for value in script_hashes)
        self._free = frozenset(free)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        origin = _header(scope, b"origin").lower()
        path: str = scope["path"]
        shared = bool(origin) and origin in self._origins and _below(path, self._shared)
        problem = None
        if path not in self._free:
            problem = refusal(scope, self._hosts, shared=shared)
        if problem is not None:
            await _refuse(scope, receive, send, problem, as_json=_below(path, self._shared) or _below(path, "/api"))
            return
        if shared and scope["type"] == "http" and scope["method"] == "OPTIONS":
            await _preflight(scope, send, origin)
            return
        added = dict(_HEADERS) | ({"cache-control": "no-store"} if _below(path, self._shared) else {})
        added["content-security-policy"] = self._policy(scope)
        if scope.get("scheme") in ("https", "wss"):
            added["strict-transport-security"] = "max-age=31536000"
        if shared:
            added |= _shared_with(origin)
            added["cross-origin-resource-policy"] = "cross-origin"
        headers = [(name.encode(), value.encode("latin-1")) for name, value in added.items()]

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                # What the application says of itself stands, however it writes the names.
                given = {name.lower() for name, _ in message["headers"]}
                own = [(name, value) for name, value in headers if name not in given]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await self._app(scope, receive, guarded)

    def _policy(self, scope: Scope) -> str:
        rules = {
            "default-src": "'self'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' data:",
            "connect-src": "'self'",
            "object-src": "'none'",
            "base-uri": "'none'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
        }
        if _below(scope["path"], self._page):
            secure = scope.get("scheme") in ("https", "wss")
            rules |= {
                "script-src": f"'self' {self._scripts}",
                "style-src": "'self' 'unsafe-inline'",
                "img-src": "'self' data: blob:",
                "font-src": "'self' data:",
                "media-src": "'self' data: blob:",
                # Older Safaris do not count the web socket of the same host as 'self'.
                "connect-src": f"'self' {'wss' if secure else 'ws'}://{_header(scope, b'host')}",
                "worker-src": "'self' blob:",
                "frame-src": "'none'",
            }
        return "; ".join(f"{name} {value.strip()}" for name, value in rules.items())


def refusal(scope: Scope, hosts: Collection[str] = (), *, shared: bool = False) -> str | None:
    """Why a request may not pass, in one line; None if it may. ``shared``: it may come from another site's page."""
    peer = (scope.get("client") or ("",))[0]
    if not hosts and not _is_loopback(peer):
        return (
            f"{peer!r:.80} is another machine, and this service serves its own machine only; "
            "DARAM_ALLOWED_HOSTS opens it to others"
        )
    given = [value for name, value in scope["headers"] if name == b"host"]
    host = given[0].decode("latin-1").lower() if len(given) == 1 else ""
    if not _is_ours(host, hosts):
        where = "as http://localhost or http://127.0.0.1" if not hosts else "under one of its own names"
        return f"Host {host!r:.80} is not a name of this service; open it {where}"
    if shared:
        return None
    origin = _header(scope, b"origin")
    if origin and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return f"Origin {origin!r:.80} is another site; only our own pages may talk to this server"
    # An image, a script or a form of another site carries no Origin on GET, but browsers say where it stands.
    if _header(scope, b"sec-fetch-site") in ("cross-site", "same-site") and not _is_navigation(scope):
        return "the request comes from another site; only our own pages may talk to this server"
    return None


def _is_ours(host: str, hosts: Collection[str]) -> bool:
    parts = _HOST.fullmatch(host)
    if parts is None:
        return False
    name = parts[1]
    if _LOCAL.fullmatch(name):
        return True
    bare = name.strip("[]")
    return any(
        bare == allowed.strip("[]") or (allowed.startswith(".") and (bare == allowed[1:] or bare.endswith(allowed)))
        for allowed in hosts
    )


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _is_navigation(scope: Scope) -> bool:
    # A link on another site may open a page: that site cannot read what it shows.
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and _header(scope, b"sec-fetch-mode") == "navigate"
        and _header(scope, b"sec-fetch-dest") == "document"
    )


def is_local(scope: Scope) -> bool:
    """Whether the peer is on this machine."""
    return _is_loopback((scope.get("client") or ("",))[0])


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


def _shared_with(origin: str) -> Mapping[str, str]:
    exposed = "retry-after, x-request-id, x-ratelimit-limit-requests, x-ratelimit-remaining-requests"
    return {"access-control-allow-origin": origin, "vary": "origin", "access-control-expose-headers": exposed}


async def _preflight(scope: Scope, send: Send, origin: str) -> None:
    allowed = {
        **_shared_with(origin),
        "access-control-allow-methods": "GET, POST, PATCH, DELETE",
        "access-control-allow-headers": _header(scope, b"access-control-request-headers") or "authorization",
        "access-control-max-age": "600",
    }
    headers = [(name.encode(), value.encode("latin-1")) for name, value in allowed.items()]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: str, *, as_json: bool) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": problem[:120]})
        return
    kind, body = "text/plain; charset=utf-8", f"403 Forbidden: {problem}\n".encode()
    if as_json:
        error = {"message": problem, "type": "invalid_request_error", "param": None, "code": "forbidden"}
        kind, body = "application/json", json.dumps({"error": error}).encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
