"""The service as one ASGI application: the API, the pages of the accounts, the chat page, and what stands around them.

From the outside in: who may ask (``ui.guard``), how much (``limits``), and then by path: ``/v1`` to Django without
middleware, ``/chat/`` to Chainlit, probes here, all else (``/api``, too) to Django with middleware.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from daram.config import make_redis
from daram.errors import DaramError
from daram.llm.base import ChatModel
from daram.memory import Memory
from daram.service.configure import configure
from daram.service.limits import Bodies
from daram.service.observe.metrics import Metrics
from daram.service.observe.model import watched
from daram.service.observe.requests import Observed
from daram.service.quota import Counts, LocalCounts, Quota
from daram.service.runtime import Runtime, running
from daram.service.slashes import hidden
from daram.settings import Settings
from daram.ui.app import ChatPage
from daram.ui.guard import Guard, is_local

__all__ = ["Service", "create_app"]

log = logging.getLogger(__name__)

CHAT = "/chat"
_PROBES = ("/healthz", "/readyz")
_COUNTING = 8  # connections to Redis that count requests


def create_app(
    settings: Settings, *, memory: Memory | None = None, model: ChatModel | None = None, page: bool = True
) -> Service:
    """The service; its lifespan opens what it needs and closes it.

    A ``memory`` or ``model`` that is given is used as it is and not closed. ``page=False`` leaves the chat page out, of
    which a process can have one only. Raises ``MissingExtra``, ``ConfigError``.
    """
    configure(settings)  # before anything of ours that has models is imported
    return Service(settings, memory=memory, model=model, page=page)


class Service:
    """See ``create_app``. ``runtime``: what it works with, while it runs."""

    runtime: Runtime

    def __init__(self, settings: Settings, *, memory: Memory | None, model: ChatModel | None, page: bool) -> None:
        from daram.service.bare import ApiHandler, PageHandler
        from daram.service.native_api.logins import DjangoLogins
        from daram.service.uploads import Allowance

        self._settings = settings
        self._given = (memory, model)
        self._logins = DjangoLogins()
        pages = settings.data / "page"
        self._page = ChatPage(pages, self._logins, limit=settings.upload_limit, root=CHAT) if page else None
        self._counts = counts(settings)
        self._api = Quota(cast("ASGIApp", ApiHandler()), self._counts)
        self._pages = cast("ASGIApp", PageHandler())
        self._native = Quota(self._pages, self._counts)
        bounded = Bodies(
            self._dispatch,
            limit=settings.body_limit,
            arrival=settings.body_timeout,
            departure=settings.send_timeout,
            larger=Allowance(settings.upload_limit, self._logins),
            detail=self._page.uploads.detail if self._page else None,
        )
        self._metrics = Metrics() if settings.metrics != "off" and Metrics.available() else None
        guarded = Guard(
            bounded,
            hosts=public_hosts(settings),
            origins=settings.cors_origins,
            page=CHAT,
            script_hashes=self._page.script_hashes if self._page else (),
            free=(*_PROBES, "/metrics") if settings.metrics == "open" else _PROBES,
        )
        self._app: ASGIApp = Observed(guarded, metrics=self._metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(scope, receive, send)

    async def drain(self) -> None:
        """The end is near: see ``Runtime.drain``. Harmless where it has not begun."""
        if hasattr(self, "runtime"):
            await self.runtime.drain()

    # --- by path ---

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if self._page is not None and path.startswith(f"{CHAT}/"):
            raw = scope.get("raw_path") or path.encode()
            inner = {**scope, "path": path.removeprefix(CHAT), "raw_path": raw.removeprefix(CHAT.encode())}
            await self._page(inner | {"root_path": ""}, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "there is no socket here"})
        elif path == "/v1" or path.startswith("/v1/"):
            await self._api(hidden(scope), receive, send)
        elif path.startswith("/api/"):
            await self._native(hidden(scope), receive, send)
        elif (response := await self._own(scope)) is not None:
            await response(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    async def _own(self, scope: Scope) -> Response | None:
        """What is answered here."""
        from daram.service import probes

        path, request = scope["path"], Request(scope)
        if path not in ("/", CHAT, "/metrics", *_PROBES):
            return None
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("405 Method Not Allowed\n", 405, {"allow": "GET, HEAD"})
        if path in _PROBES:
            return await probes.healthz() if path == "/healthz" else await probes.readyz(tell=_is_here(scope))
        if path == "/metrics":
            return await self._figures(scope, request.headers.get("authorization", ""))
        return RedirectResponse(f"{CHAT}/", 307, {"cache-control": "no-store"})

    async def _figures(self, scope: Scope, authorization: str) -> Response:
        from daram.service.accounts.auth import may_administer

        metrics, is_open = self._metrics, self._settings.metrics == "open"
        if metrics is not None and (is_open or _is_here(scope) or await may_administer(authorization)):
            return metrics.response(self.runtime)
        return PlainTextResponse("404 Not Found\n", 404)

    # --- from start to end ---

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan. What is wrong at the start (a newer schema, a full disk) is told in Daram's words."""
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._open())
            except DaramError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            except Exception as error:
                log.exception("the service could not start")
                await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        from daram.service.accounts.setup import prepare_accounts

        await asyncio.to_thread(prepare_accounts, self._settings)
        memory, model = self._given
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._counts.close)
            self.runtime = await stack.enter_async_context(self._run(memory, model))
            if self._page is not None:
                await stack.enter_async_context(self._open_page(self._page))
            yield

    def _run(self, memory: Memory | None, model: ChatModel | None) -> AbstractAsyncContextManager[Runtime]:
        from daram.service.accounts.auth import groups_of

        def watch(found: ChatModel) -> ChatModel:
            return watched(found, self._metrics)

        return running(self._settings, memory=memory, model=model, watch=watch, groups=groups_of)

    @asynccontextmanager
    async def _open_page(self, page: ChatPage) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def ended(session: str) -> None:
            loop.call_soon_threadsafe(page.left, session)

        self.runtime.on_title(page.titled)
        stop = self._logins.on_log_out(ended)
        try:
            async with page.open(self.runtime.memory, self.runtime.model, self.runtime.chatbot):
                yield
        finally:
            stop()


def counts(settings: Settings) -> Counts:
    """What counts the requests of users: all processes together where there is a Redis, else each for itself."""
    rate, most = settings.rate_limit, settings.stream_limit
    redis = make_redis(settings, _COUNTING)
    if redis is None or not (rate or most):
        return LocalCounts(rate=rate, most=most)
    from daram.service.shared_quota import SharedCounts

    return SharedCounts(redis, rate=rate, most=most)


def _is_here(scope: Scope) -> bool:
    """Whether somebody on this machine asks: what a proxy of this machine passes on comes from elsewhere."""
    passed_on = any(name in (b"x-forwarded-for", b"forwarded") for name, _ in scope["headers"])
    return is_local(scope) and not passed_on


def public_hosts(settings: Settings) -> tuple[str, ...]:
    """The names under which others than this machine may ask."""
    public = urlsplit(settings.public_url or "").hostname
    return (*((public,) if public else ()), *settings.allowed_hosts)
