"""What lies under ``/v1``, and how it says no where no operation does: as OpenAI does."""

from __future__ import annotations

from collections.abc import Callable

from django.http import JsonResponse
from django.urls import URLPattern, URLResolver, path

from daram.service.openai_api.api import api

urlpatterns: list[URLPattern | URLResolver] = [path("v1/", api.urls)]


def _error(status: int, message: str, kind: str, code: str | None) -> JsonResponse:
    return JsonResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status=status)


def _refuse(status: int, message: str, code: str | None = None) -> Callable[..., JsonResponse]:
    def handler(*_: object, **__: object) -> JsonResponse:
        return _error(status, message, "invalid_request_error" if status < 500 else "server_error", code)

    return handler


handler400 = _refuse(400, "The request could not be understood.")
handler403 = _refuse(403, "This is not allowed.")
handler404 = _refuse(404, "There is nothing at this URL.", "unknown_url")
handler500 = _refuse(500, "The server had an error while processing your request.")
