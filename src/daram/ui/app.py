"""The page as an ASGI application: which of Chainlit's doors are open, and what is opened and closed with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daram.chat.recover import purge_forever
from daram.config import make_chatbot, make_model, open_memory, prepare_data
from daram.errors import DaramError
from daram.llm.base import ChatModel
from daram.memory import Memory
from daram.settings import Settings
from daram.ui import home
from daram.ui.guard import Guard
from daram.ui.html import at_home, script_hashes
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
_PAGES = ("/", "/thread/{id:path}", "/login", "/element/{id:path}")


def create_app(settings: Settings, *, memory: Memory | None = None, model: ChatModel | None = None) -> Starlette:
    """The chat page, to be served on the loopback interface; its lifespan opens memory and model and closes them.

    A ``memory`` or ``model`` that is given is used as it is and not closed. One page per process: Chainlit keeps its
    state in its modules. Raises ``MissingExtra`` without Chainlit, ``ConfigError`` for a second page elsewhere.
    """
    prepare_data(settings)
    server = home.load(settings.data / "page")
    page_html = at_home(server.get_html_template(""))
    from daram.ui.page import Page  # imports Chainlit, which must have found its directory before this

    page = Page(settings.owner)
    plainly = PlainFailure()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with plainly.watch(), AsyncExitStack() as stack:
            store = memory
            if store is None:
                store = await stack.enter_async_context(await open_memory(settings))
            chat_model = model
            if chat_model is None:
                chat_model = make_model(settings)
                stack.push_async_callback(chat_model.close)
            chatbot = make_chatbot(settings, store, chat_model, on_title=page.titled)
            stack.push_async_callback(chatbot.close)
            await chatbot.recover()
            sweeping = asyncio.create_task(chatbot.sweep_forever())
            stack.callback(sweeping.cancel)
            purging = asyncio.create_task(purge_forever(store))
            stack.callback(purging.cancel)
            page.open(store, chat_model, chatbot)
            stack.push_async_callback(page.close)
            _wire(server, page)
            yield

    async def html(request: Request) -> Response:
        from chainlit.auth import create_jwt
        from chainlit.auth.cookie import set_auth_cookie

        spoken = words(request.headers.get("accept-language")).language
        said = page_html.replace('<html lang="en">', f'<html lang="{spoken}">', 1)
        response = HTMLResponse(said, headers={"cache-control": "no-store"})
        set_auth_cookie(request, response, create_jwt(await page.user()))
        return response

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    app = Starlette(
        routes=[
            Mount("/ws/socket.io", server.asgi_app),
            *(Route(path, server.app) for path in _DOORS),
            Route("/health", health),
            *(Route(path, html) for path in _PAGES),
        ],
        middleware=[Middleware(plainly), Middleware(Guard, script_hashes=script_hashes(page_html))],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a door that is not there is not there
    return app


class PlainFailure:
    """Middleware: what is wrong at the start (a newer schema, a full disk) in Daram's words, without a traceback."""

    def __init__(self) -> None:
        self._error: DaramError | None = None

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Around what is done at the start."""
        try:
            yield
        except DaramError as error:
            self._error = error
            raise

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            async def in_words(message: Message) -> None:
                if message["type"] == "lifespan.startup.failed" and self._error is not None:
                    message = {**message, "message": str(self._error)}
                await send(message)

            await app(scope, receive, in_words if scope["type"] == "lifespan" else send)

        return wrapped


def _wire(server: ModuleType, page: Page) -> None:
    """Let Chainlit call the page: our handlers in the place of its own for what makes or ends a turn."""
    import chainlit.data
    from chainlit.config import config

    code = config.code
    code.header_auth_callback = page.user
    code.data_layer = lambda: page.layer
    code.on_chat_resume = page.resumable
    code.action_callbacks["retry"] = page.retried
    # Where Chainlit has asked before, it would go on with the data layer of an earlier page of this process.
    chainlit.data._data_layer = None
    chainlit.data._data_layer_initialized = False
    # A message that is too large is to be answered by us, in words, not by a connection that breaks.
    server.sio.eio.max_http_buffer_size = 4 << 20
    server.sio.on("connection_successful", page.connected)
    server.sio.on("client_message", page.said)
    server.sio.on("edit_message", page.edited)
    server.sio.on("stop", page.stopped)
