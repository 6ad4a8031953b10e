"""Who looks at the page: whoever is logged in by the session of the accounts, asked anew for each request and socket.

Chainlit has a login of its own, a signed cookie. The browser never gets it: the gate takes the cookie out of what comes
in, puts one in its place that names whom the session names, and lets none out. So there is one login, and it ends when
the session does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, quote

from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What everybody may have: the files of the page, and the words and pictures in it.
_OPEN = re.compile(r"/(?:assets|public|avatars)/.*|/favicon|/logo|/auth/config|/project/translations")
_SESSION_HEADER = b"x-daram-session"
_VISITOR = "daram.visitor"
_PAGE = re.compile(r"/(?:(?:thread|element)/.*|login)?")


class Visitor(NamedTuple):
    """Who is logged in: ``owner`` of the conversations, the ``name`` to show, the ``session`` that says so."""

    owner: str
    name: str
    session: str


class Logins(Protocol):
    """The accounts, as the page knows them."""

    @property
    def cookie(self) -> str:
        """The name of the cookie that names the session."""
        ...

    async def visitor(self, session: str) -> Visitor | None:
        """Whose session that is; None where nobody is logged in by it (any more)."""
        ...

    async def log_out(self, session: str) -> None:
        """End it."""
        ...


Sockets = Callable[[str], Mapping[str, Any] | None]

_visitor: ContextVar[Visitor] = ContextVar("daram_page_visitor")


def owner() -> str | None:
    """Whose request or socket this is; None outside of both."""
    visitor = _visitor.get(None)
    return None if visitor is None else visitor.owner


def session_of(environ: dict[str, str]) -> str:
    """The session that a socket was opened by, from what Chainlit keeps of its handshake."""
    return environ.get("HTTP_X_DARAM_SESSION", "")


class Gate:
    """ASGI middleware around Chainlit below ``root``: lets in who is logged in and says to Chainlit who that is.

    ``login``: where pages lead whoever is not; ``sockets``: what is known of an open socket by its id. It is
    the session's that opened it, and what comes for it is not asked about again: it must be heard in the order in which
    it was sent, and a socket is closed when its session ends.
    """

    def __init__(self, app: ASGIApp, *, logins: Logins, root: str, login: str, sockets: Sockets) -> None:
        self._app = app
        self._sockets = sockets
        self._logins = logins
        self._root = root
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["type"] == "http" and _OPEN.fullmatch(path):
            await self._app(scope, receive, _without_cookies(send))
            return
        session = _cookies(scope).get(self._logins.cookie, "")
        opener = self._opener(scope)
        if opener is not None:
            visitor = opener if opener.session == session else None
        else:
            visitor = await self._logins.visitor(session) if session else None
        if visitor is None:
            await self._turn_away(scope, receive, send)
        elif (path, scope.get("method")) == ("/logout", "POST"):
            await self._logins.log_out(visitor.session)
            response = JSONResponse({"success": True})
            name = self._logins.cookie
            response.delete_cookie(name, secure=name.startswith("__Host-"), httponly=True, samesite="lax")
            await response(scope, receive, send)
        elif path == "/login":  # Chainlit's own
            await RedirectResponse(f"{self._root}/", 303)(scope, receive, send)
        else:
            _visitor.set(visitor)
            await self._app(_known(scope, visitor), receive, _without_cookies(send))

    def _opener(self, scope: Scope) -> Visitor | None:
        """Who opened the socket that this is about, where it is about an open one."""
        if not scope["path"].startswith("/ws/socket.io"):
            return None
        sid = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("sid", [""])[0]
        environ = self._sockets(sid) or {}
        found: Visitor | None = environ.get("asgi.scope", {}).get(_VISITOR)
        return found

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "log in first"})
            return
        response: Response = JSONResponse({"detail": "log in first"}, 401)
        if scope["method"] in ("GET", "HEAD") and _PAGE.fullmatch(scope["path"]):
            path = "/" if scope["path"] == "/login" else scope["path"]
            response = RedirectResponse(f"{self._login}?next={quote(self._root + path, safe='/')}", 303)
        response.headers["cache-control"] = "no-store"
        await response(scope, receive, send)


def _known(scope: Scope, visitor: Visitor) -> Scope:
    """The scope with Chainlit's own cookie and nobody else's, and with the session in a header."""
    from chainlit.auth import create_jwt
    from chainlit.auth.cookie import _auth_cookie_name
    from chainlit.user import User

    token = create_jwt(User(identifier=visitor.owner, display_name=visitor.name))
    dropped = (b"cookie", b"authorization", _SESSION_HEADER)
    headers = [(name, value) for name, value in scope["headers"] if name not in dropped]
    kept = {name: value for name, value in _cookies(scope).items() if name == "X-Chainlit-Session-id"}
    cookies = "; ".join(f"{name}={value}" for name, value in {**kept, _auth_cookie_name: token}.items())
    headers += [(b"cookie", cookies.encode("latin-1")), (_SESSION_HEADER, visitor.session.encode("latin-1"))]
    return {**scope, "headers": headers, _VISITOR: visitor}


def _cookies(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name == b"cookie":
            # Not the standard library's parser: what other programs of this host have set may be nothing that it likes,
            # and then it drops ours as well.
            found |= cookie_parser(value.decode("latin-1"))
    return found


def _without_cookies(send: Send) -> Send:
    """Nothing of Chainlit's login reaches the browser."""
    from chainlit.auth.cookie import _auth_cookie_name

    own = _auth_cookie_name.encode()

    async def filtered(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            message = {**message, "headers": list(_foreign(message.get("headers", ()), own))}
        await send(message)

    return filtered


def _foreign(headers: Iterable[tuple[bytes, bytes]], own: bytes) -> Iterable[tuple[bytes, bytes]]:
    return (pair for pair in headers if not (pair[0].lower() == b"set-cookie" and pair[1].startswith(own)))
