"""Django for the API, without middleware: it has no cookies, so there is no session to open and no forged form to fear.

Django's middleware would cost each request a dozen hops between threads, and its own handler a thread for as long as
the answer is streamed: the signals that begin and end a request are heard by code that waits. What they do (close the
database's connections of that thread) is done here where connections are used: ``accounts.auth.in_accounts``.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.core.handlers.exception import convert_exception_to_response
from django.urls import set_script_prefix

__all__ = ["ApiHandler"]


class _ApiRequest(ASGIRequest):
    """A request whose body was bounded before it came here (``daram.service.limits``)."""

    urlconf = "daram.service.api_urls"

    @property
    def body(self) -> bytes:
        """The whole body, without Django's own bound, which is meant for forms."""
        if not hasattr(self, "_body"):
            self._body = self.read()
        return cast("bytes", self._body)


class ApiHandler(ASGIHandler):
    """Serves ``daram.service.api_urls``, each request in the task that brings it."""

    request_class = _ApiRequest

    def load_middleware(self, is_async: bool = False) -> None:
        """There is none."""
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        self._middleware_chain = convert_exception_to_response(self._get_response_async)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request; who leaves is answered no more."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        answering = asyncio.current_task()
        assert answering is not None
        left = False

        async def leave() -> None:
            nonlocal left
            await receive()  # behind the body there is only that the client has left
            left = True
            answering.cancel()

        leaving = asyncio.create_task(leave())
        try:
            await self._answer(scope, body, send)
        except asyncio.CancelledError:
            if not left or answering.uncancel() > 0:
                raise
        finally:
            leaving.cancel()
            body.close()

    async def _answer(self, scope: Any, body: Any, send: Any) -> None:
        set_script_prefix(get_script_prefix(scope))
        request, response = self.create_request(scope, body)
        if request is not None:
            response = await self.run_get_response(request)
        try:
            await self.send_response(response, send)
        finally:
            response.close()
