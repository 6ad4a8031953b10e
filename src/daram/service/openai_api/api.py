"""``/v1``: the API as a whole, in the shapes of OpenAI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import msgspec
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.parser import Parser as NinjaParser

from daram.errors import InvalidInput
from daram.service.openai_api import (
    chat_completions,
    conversations,
    files,
    models,
    responses,
    responses_compact,
    vector_batches,
    vector_stores,
)
from daram.service.openai_api.docs import Plain
from daram.service.openai_api.errors import error_response, handle_errors, response_to
from daram.service.slashes import shown
from daram.service.uploads import is_upload, parts_of

View = Callable[..., Awaitable[HttpResponseBase]]


class Parser(NinjaParser):
    """JSON as the standard has it: no NaN, no half characters."""

    def parse_body(self, request: HttpRequest) -> Any:
        return msgspec.json.decode(request.body)


class OpenAIApi(NinjaAPI):
    """What ninja refuses by itself is put into OpenAI's shape. ``by_session``: a login opens it instead of a key."""

    by_session = False

    @property
    def urls(self) -> tuple[list[URLResolver | URLPattern], str, str]:
        patterns, app, namespace = super().urls
        for pattern in patterns:
            if isinstance(pattern, URLPattern) and pattern.name not in ("openapi-json", "openapi-view", "api-root"):
                pattern.callback = _shaped(pattern.callback, self.by_session)
        return patterns, app, namespace


def _shaped(view: View, by_session: bool) -> View:
    @csrf_exempt  # whoever comes by a session is asked for the token by ``accounts.auth``, in the API's own shape
    async def shaped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response: HttpResponseBase
        request.by_session = by_session
        try:
            if is_upload(request.scope):
                await parts_of(request)
                body = b""
            else:
                body = request.body
        except (RequestDataTooBig, SuspiciousOperation, InvalidInput) as error:
            return response_to(error)
        if body and request.content_type != "application/json":
            text = "The body of a request must be JSON, with the header Content-Type: application/json."
            response = error_response(415, text)
        else:
            response = await view(
                request, *args, **{name: shown(request.scope, value) for name, value in kwargs.items()}
            )
        if response.status_code == 405:
            text = f"{request.method} is not allowed at this URL."
            response = error_response(405, text, headers={"Allow": response.headers.get("Allow", "")})
        return response

    done: View = shaped
    return done


api = OpenAIApi(
    title="Daram",
    version=version("daram"),
    description="OpenAI's Conversations and Responses API over durable conversations.",
    urls_namespace="openai",
    parser=Parser(),
    docs=Plain(),
)
handle_errors(api)
for part in (
    conversations,
    responses_compact,
    responses,
    chat_completions,
    files,
    vector_stores,
    vector_batches,
    models,
):
    api.add_router("", part.router)
