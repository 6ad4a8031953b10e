"""The page as an ASGI application: which of Chainlit's doors are open, and who comes through them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from daram.chat import Chatbot
from daram.llm.base import ChatModel
from daram.memory import Memory
from daram.ui import home
from daram.ui.gate import Gate, Logins
from daram.ui.html import at_home, below, main_script, script_hashes
from daram.ui.library import ROOT
from daram.ui.strings import words

if TYPE_CHECKING:
    from daram.ui.page import Page

# What the page asks of Chainlit. Its other doors (files, tools, documentation from a CDN, other logins) stay shut.
_DOORS = (
    "/auth/config",
    "/auth/header",
    "/user",
    "/set-session-cookie",
    "/project/translations",
    "/project/settings",
    "/project/threads",
    "/project/thread",
    "/project/thread/{rest:path}",
    "/project/action",
    "/feedback",
    "/favicon",
    "/logo",
    "/avatars/{rest:path}",
    "/assets/{rest:path}",
    "/public/{rest:path}",
)
_FORM = 4096  # bytes of a request that brings a file, beside the file
_PAGES = ("/", "/thread/{id:path}", "/element/{id:path}")


class ChatPage:
    """Chainlit as an ASGI application that is to be called below ``root``, with paths as if it were not.

    ``directory``: the page's own, written at every start; ``login``: the path where those who are not logged in are
    led; ``limit``: the bytes that a request with a file may have. One page per process: Chainlit keeps its state in its
    modules. Raises ``MissingExtra`` without Chainlit, ``ConfigError`` for a second page elsewhere.
    """

    def __init__(self, directory: Path, logins: Logins, *, limit: int, root: str = ROOT, login: str = "/login") -> None:
        unit = 1_000_000 if limit - _FORM >= 1_000_000 else 1000
        largest = max(1, (limit - _FORM) // unit) * unit  # as the page says it
        self._server = home.load(directory, largest)
        self._html = at_home(self._server.get_html_template(root))
        path, build = main_script(self._html).removeprefix(root), Path(self._server.build_dir)
        self._script = _Script(path, below(root, (build / path.lstrip("/")).read_text("utf-8"), largest))
        from daram.ui.page import Page  # imports Chainlit, which must have found its directory before this
        from daram.ui.upload import Uploads

        self.script_hashes = script_hashes(self._html)
        """Of the scripts that stand in the page itself, for the content security policy."""
        self.page = Page(logins)
        self.uploads = Uploads(largest)
        known = self._server.sio.environ.get
        self._app = Gate(self._routes(), logins=logins, root=root, login=login, sockets=known)

    @asynccontextmanager
    async def open(self, memory: Memory, model: ChatModel, chatbot: Chatbot) -> AsyncIterator[None]:
        """Serve with these; at the end nobody is watched any more."""
        self.page.open(memory, model, chatbot)
        _wire(self._server, self.page)
        try:
            yield
        finally:
            await self.page.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def titled(self, owner: str, conversation: str, title: str) -> None:
        """A conversation got its title: whoever looks at the list sees it."""
        await self.page.titled(owner, conversation, title)

    def left(self, session: str) -> None:
        """That session of the accounts has ended: its tabs hear no more. To be called on the loop."""
        self.page.left(session)

    def _routes(self) -> Starlette:
        async def html(request: Request) -> Response:
            spoken = words(request.headers.get("accept-language")).language
            said = self._html.replace('<html lang="en">', f'<html lang="{spoken}">', 1)
            return HTMLResponse(said, headers={"cache-control": "no-store"})

        app = Starlette(
            routes=[
                Mount("/ws/socket.io", self._server.asgi_app),
                Route(self._script.path, self._script.serve),
                Route("/project/file", self.uploads.take, methods=["POST"]),
                Route("/citation/{thread}/{message}/{number:int}", self.page.cited),
                *(Route(path, self._server.app) for path in _DOORS),
                *(Route(path, html) for path in _PAGES),
            ],
        )
        app.router.redirect_slashes = False  # a door that is not there is not there
        return app


class _Script:
    """The page's own script, changed where it must be."""

    def __init__(self, path: str, script: str) -> None:
        self.path = path
        self._plain = script.encode()
        self._etag = f'"{sha256(self._plain).hexdigest()[:20]}"'
        self._packed: bytes | None = None

    async def serve(self, request: Request) -> Response:
        """The script, compressed for whoever takes it that way."""
        headers = {"cache-control": "no-cache", "etag": self._etag, "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == self._etag:
            return Response(status_code=304, headers=headers)
        body = self._plain
        if "gzip" in request.headers.get("accept-encoding", ""):
            if self._packed is None:
                self._packed = await asyncio.to_thread(gzip.compress, self._plain, 6)
            body = self._packed
            headers["content-encoding"] = "gzip"
        return Response(body, media_type="text/javascript; charset=utf-8", headers=headers)


def _wire(server: ModuleType, page: Page) -> None:
    """Let Chainlit call the page: our handlers in the place of its own for what makes or ends a turn."""
    import chainlit.data
    from chainlit.config import config

    code = config.code
    code.header_auth_callback = page.user  # that there is one tells Chainlit to ask who is there
    code.data_layer = lambda: page.layer
    code.on_chat_resume = page.resumable
    code.action_callbacks["retry"] = page.retried
    # Where Chainlit has asked before, it would go on with the data layer of an earlier page of this process.
    chainlit.data._data_layer = None
    chainlit.data._data_layer_initialized = False
    # A message that is too large is to be answered by us, in words, not by a connection that breaks.
    server.sio.eio.max_http_buffer_size = 4 << 20
    server.sio.on("connect", page.connects)
    server.sio.on("connection_successful", page.connected)
    server.sio.on("client_message", page.said)
    server.sio.on("edit_message", page.edited)
    server.sio.on("stop", page.stopped)
    server.sio.on("chat_settings_change", page.chosen)
