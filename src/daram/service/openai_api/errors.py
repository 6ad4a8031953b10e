"""Errors as OpenAI words them: every refusal of this API, whatever raised it, in one shape.

Whose words are shown: those about what the caller sent. What went wrong inside (paths, addresses, another server's
words) is for the log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from django.core.exceptions import DisallowedHost, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError

from daram import errors
from daram.service.accounts.auth import handle_refusals

_log = logging.getLogger(__name__)
_json = msgspec.json.Encoder()

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"
_LONGEST_PARAM: Final = 200
_LONGEST_TEXT: Final = 2000
_NO_RETRY: Final = {"x-should-retry": "false"}
"""For the official SDK, which repeats every 409 and 5xx otherwise."""


class Worded(errors.InvalidInput):
    """A refusal for which OpenAI has a code and words of its own; ``field`` is the parameter, None: none of them."""

    status: int = 400

    def __init__(self, field: str | None, words: str) -> None:
        super().__init__(field or "", words)


class Unsupported(Worded):
    """A parameter asks for what no model here gives."""

    code = "unsupported_parameter"

    def __init__(self, field: str) -> None:
        super().__init__(field, f"Unsupported parameter: '{field}' is not supported with this model.")


# By class, the first that fits: status, type, code, text (None: the error's own words). In the order of ``isinstance``.
_Row = tuple[type[errors.DaramError], int, str, str, str | None]
_TABLE: Final[tuple[_Row, ...]] = (
    (errors.MessageTooLong, 400, INVALID, "context_length_exceeded", None),
    (errors.InvalidInput, 400, INVALID, "invalid_value", None),
    (errors.Conflict, 409, INVALID, "conflict", None),
    (errors.ConversationBusy, 409, INVALID, "conversation_busy", None),
    (errors.LeaseLost, 409, INVALID, "conflict", "The answer was closed or deleted meanwhile; read it again."),
    (errors.NotAllowed, 403, INVALID, "not_allowed", None),
    (errors.UnsupportedDocument, 415, INVALID, "unsupported_file", None),
    (errors.DocumentTooLarge, 413, INVALID, "too_large", None),
    (errors.DocumentError, 422, INVALID, "invalid_file", None),
    (errors.MissingExtra, 501, SERVER, "unsupported", "This server cannot read documents: an extra is not installed."),
    (errors.Unsupported, 501, SERVER, "unsupported", "The store of this server cannot do that."),
    (errors.StoreFull, 503, SERVER, "store_full", "The server has no space left to store this; nothing was stored."),
    (errors.StoreReadOnly, 503, SERVER, "store_read_only", "The server's store cannot be written at the moment."),
    (
        errors.OutcomeUnknown,
        503,
        SERVER,
        "outcome_unknown",
        (
            "The store failed while it was writing: this may or may not have been stored. Read it again before you "
            "repeat it, or repeat it with the same Idempotency-Key."
        ),
    ),
    (errors.StoreBusy, 503, SERVER, "store_busy", "The store is busy; nothing was stored. Try again."),
    (errors.StoreError, 503, SERVER, "store_unavailable", "The server's store cannot be reached at the moment."),
    (
        errors.ModelUnavailable,
        503,
        SERVER,
        "model_unavailable",
        (
            "No language model is ready on this server; what was sent to a conversation is kept. Whoever runs it sees "
            "the reason with: daram doctor"
        ),
    ),
    (errors.ModelRefused, 502, SERVER, "model_refused", "The model's endpoint refused this server's request."),
    (errors.ModelRateLimited, 429, "rate_limit_error", "rate_limit_exceeded", "The model's endpoint asks to wait."),
    (errors.AnswerLate, 504, SERVER, "answer_failed", None),
    (errors.ModelTimeout, 504, SERVER, "model_timeout", "The model did not answer in time."),
    (errors.ContextOverflow, 400, INVALID, "context_length_exceeded", "This is too long for the model's context."),
    (
        errors.ModelError,
        502,
        SERVER,
        "model_error",
        "The model gave no usable answer; what was sent to a conversation is kept.",
    ),
    (errors.ChatbotClosed, 503, SERVER, "shutting_down", "The server is shutting down; try again."),
)

_UNKNOWN: Final[_Row] = (
    errors.DaramError,
    500,
    SERVER,
    "internal_error",
    "The server had an error while processing your request.",
)


def error_response(
    status: int,
    message: str,
    *,
    type: str = INVALID,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """A response whose body is ``{"error": {"message", "type", "param", "code"}}``."""
    return HttpResponse(
        _json.encode(error_body(message, type=type, param=param, code=code)),
        status=status,
        content_type="application/json",
        headers=dict(headers or {}),
    )


def error_body(
    message: str, *, type: str = INVALID, param: str | None = None, code: str | None = None
) -> dict[str, dict[str, str | None]]:
    """The body of a refusal. What the caller has named is told, but not at any length."""
    named = None if param is None else _short(param, _LONGEST_PARAM)
    return {"error": {"message": _short(message, _LONGEST_TEXT), "type": type, "param": named, "code": code}}


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def response_of(error: errors.DaramError) -> HttpResponse:
    """How an error of Daram is answered."""
    if isinstance(error, errors.NotFound):
        if isinstance(error, errors.Gone) and error.what != "conversation":
            words = f"The {error.what} {error.id!r} was deleted; its id cannot be used again."
            return error_response(409, words, code="gone", headers=_NO_RETRY)
        return error_response(404, f"{error.what.capitalize()} with id {error.id!r} not found.", code="not_found")
    if isinstance(error, Worded):
        return error_response(error.status, error.problem, param=error.field or None, code=error.code)
    _, status, kind, code, text = _row(error)
    if status >= 500:
        _log.error("%s: %s", error.__class__.__name__, error)
    param = error.field if isinstance(error, errors.InvalidInput) else None
    if isinstance(error, errors.TooLarge) and error.unit == "bytes":
        status, code = 413, "too_large"
    return error_response(
        status, str(error) if text is None else text, type=kind, param=param, code=code, headers=_retry(error, status)
    )


def is_final(error: errors.DaramError) -> bool:
    """Whether the official SDK takes this for the answer, and does not send the request once more."""
    if isinstance(error, errors.NotFound | Worded):
        return True
    status = _row(error)[1]
    return not (status in (408, 409, 429) or status >= 500) or "x-should-retry" in _retry(error, status)


def _row(error: errors.DaramError) -> _Row:
    return next((row for row in _TABLE if isinstance(error, row[0])), _UNKNOWN)


def _retry(error: errors.DaramError, status: int) -> dict[str, str]:
    after = getattr(error, "retry_after", None)
    # This process will not do it any more; the one that comes next in its place, or stands beside it, will.
    if isinstance(error, errors.ChatbotClosed) or (error.retryable and status != 502):
        return {"Retry-After": str(max(1, math.ceil(after or 1)))}
    return dict(_NO_RETRY) if status >= 500 or status == 409 else {}


def handle_errors(api: NinjaAPI) -> None:
    """Let the API answer everything that can be raised in it."""
    handle_refusals(api)

    @api.exception_handler(errors.DaramError)
    def _ours(_request: HttpRequest, error: errors.DaramError) -> HttpResponse:
        return response_of(error)

    @api.exception_handler(ValidationError)
    def _invalid(_request: HttpRequest, error: ValidationError) -> HttpResponse:
        return _validation(error.errors)

    @api.exception_handler(HttpError)
    def _http(_request: HttpRequest, error: HttpError) -> HttpResponse:
        text = error.message
        if error.status_code == 400:  # the only one that the framework raises by itself
            text = "We could not parse the JSON body of your request."
        return error_response(error.status_code, text)

    @api.exception_handler(Exception)
    def _any(_request: HttpRequest, error: Exception) -> HttpResponse:
        return response_to(error)


def response_to(error: BaseException) -> HttpResponse:
    """How anything that was raised outside of an operation is answered."""
    if isinstance(error, errors.DaramError):
        return response_of(error)
    if isinstance(error, Http404):
        return error_response(404, "There is nothing at this URL.", code="unknown_url")
    if isinstance(error, RequestDataTooBig):
        return error_response(413, "The body of the request is too large.", code="too_large")
    if isinstance(error, DisallowedHost):
        return error_response(400, "The Host header of the request is not allowed.")
    if isinstance(error, SuspiciousOperation):
        return error_response(400, "The request is malformed.")
    # The log has it all; the caller gets nothing of it.
    _log.error("an unexpected error", exc_info=error)
    return error_response(500, str(_UNKNOWN[4]), type=SERVER, code=_UNKNOWN[3])


def _validation(found: list[dict[str, Any]]) -> HttpResponse:
    """The first of what pydantic found, in OpenAI's words."""
    first = found[0] if found else {}
    place = [part for part in first.get("loc", ())[1:] if part != "payload"]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".") or None
    if first.get("type") == "extra_forbidden":
        return error_response(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if first.get("type") == "missing" and param:
        return error_response(
            400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if not param and first.get("type") in ("model_attributes_type", "model_type", "dict_type"):
        return error_response(400, "The body of the request must be a JSON object.", code="invalid_value")
    what = f"Invalid value for '{param}'" if param else "Invalid request"
    return error_response(400, f"{what}: {first.get('msg', 'not acceptable')}.", param=param, code="invalid_value")
