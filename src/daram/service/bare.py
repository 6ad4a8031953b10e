"""Django for the API, without middleware: it has no cookies, so there is no session to open and no forged form to fear.

Django's middleware would cost each request a dozen hops between threads.
"""

from __future__ import annotations

from typing import Any, cast

from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.exception import convert_exception_to_response

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
    """Serves ``daram.service.api_urls``."""

    request_class = _ApiRequest

    def load_middleware(self, is_async: bool = False) -> None:
        """There is none."""
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        self._middleware_chain = convert_exception_to_response(self._get_response_async)
