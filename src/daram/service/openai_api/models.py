"""The models that can be asked."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from ninja import Router

from daram.service import runtime
from daram.service.accounts.auth import require
from daram.service.openai_api import schemas
from daram.service.openai_api.errors import Worded
from daram.service.openai_api.reply import reply

router = Router(tags=["models"])
_READ: Final = require("read")


class UnknownModel(Worded):
    """A request names a model that is not there."""

    code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(
            "model", f"The requested model {name!r:.200} does not exist; GET /v1/models lists those that do."
        )


class ModelNotFound(UnknownModel):
    """There is no such model: as OpenAI says it of a URL, and of chat completions."""

    status = 404


@router.get("/models", auth=_READ, response={200: schemas.ModelList, **schemas.REFUSALS})
async def list_models(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # ninja gives it
    """All models."""
    return reply({"object": "list", "data": [_object(name) for name in runtime.current().models]})


@router.get("/models/{path:model}", auth=_READ, response={200: schemas.ModelOut, **schemas.REFUSALS})
async def retrieve_model(request: HttpRequest, model: str) -> HttpResponse:  # noqa: ARG001  # ninja gives it
    """One model."""
    if model not in runtime.current().models:
        raise ModelNotFound(model)
    return reply(_object(model))


def _object(name: str) -> dict[str, Any]:
    # When a model was made nobody tells us.
    return {"id": name, "object": "model", "created": 0, "owned_by": "daram"}
