"""``/api``: what a page of this server asks, for whoever is logged in with a session.

The operations are those of ``/v1``, the same functions with another door in front: a session instead of a key, and for
everything that changes something the token against forged requests, which ``GET /api/me`` gives.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final, Literal

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from ninja import Router, Schema
from ninja.openapi.schema import OpenAPISchema

from daram.service.accounts.auth import require
from daram.service.configure import configured
from daram.service.observe.request import noted
from daram.service.openai_api import conversations, models, responses, schemas
from daram.service.openai_api.api import OpenAIApi, Parser
from daram.service.openai_api.docs import Plain
from daram.service.openai_api.errors import error_response, handle_errors
from daram.service.openai_api.reply import reply

_READ: Final = require("read")
router = Router(tags=["me"])


class Limits(Schema):
    """What the caller may ask in a minute (``None``: any number), and how much of that is left; at once."""

    requests: int | None
    remaining: int | None
    running: int | None


class Me(Schema):
    """Who is logged in. ``csrf_token``: for the header ``X-CSRFToken`` of everything but GET."""

    object: Literal["user"]
    username: str
    email: str
    is_staff: bool
    csrf_token: str
    limits: Limits


@router.get("/me", auth=_READ, response={200: Me, **schemas.REFUSALS})
async def me(request: HttpRequest) -> HttpResponse:
    """Who is logged in, and how many requests they have left."""
    user, settings, note = await request.auser(), configured(), noted.get()
    left = None if note is None else note.headers.get("x-ratelimit-remaining-requests")
    return reply(
        {
            "object": "user",
            "username": user.get_username(),
            "email": user.email or "",
            "is_staff": user.is_staff,
            "csrf_token": get_token(request),
            "limits": {
                "requests": settings.rate_limit or None,
                "remaining": None if left is None else int(left),
                "running": settings.stream_limit or None,
            },
        }
    )


class NativeApi(OpenAIApi):
    """The caller is who is logged in, never who has a key."""

    by_session = True

    def get_openapi_schema(self, **given: Any) -> OpenAPISchema:
        """As it is, but that a session opens it."""
        document = super().get_openapi_schema(**given)
        cookie = {"type": "apiKey", "in": "cookie", "name": "session", "description": "The login of this server."}
        document["components"]["securitySchemes"] = {"Session": cookie}
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["security"] = [{"Session": []}]
        return document


def not_there(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # Django gives it
    """What is said where no operation is."""
    return error_response(404, "There is nothing at this URL.", code="unknown_url")


api = NativeApi(
    title="Daram, for its pages",
    version=version("daram"),
    description="The operations of /v1 on conversations and responses, for whoever is logged in. What changes "
    "something needs the header X-CSRFToken, with the token that /api/me gives.",
    urls_namespace="native",
    parser=Parser(),
    docs=Plain(),
)
handle_errors(api)
for part in (router, conversations.router, responses.router, models.router):
    api.add_router("", part)
