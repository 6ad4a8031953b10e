"""For views: what Daram refuses as JSON, and the events of an answer as a stream that a browser can resume."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from inspect import iscoroutinefunction
from typing import Any, Final, TypeVar

import msgspec
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from daram import errors
from daram.adapters.django.library import AsyncTitledTurn, SyncTitledTurn
from daram.chat.events import Event
from daram.chat.titled import Told

log = logging.getLogger(__name__)

View = TypeVar("View", bound=Callable[..., Any])

# By class, the first that fits.
_STATUS: Final[tuple[tuple[type[errors.DaramError], int], ...]] = (
    (errors.NotFound, 404),
    (errors.TooLarge, 413),
    (errors.InvalidInput, 400),
    (errors.Conflict, 409),
    (errors.ConversationBusy, 409),
    (errors.LeaseLost, 409),
    (errors.NotAllowed, 403),
    (errors.UnsupportedDocument, 415),
    (errors.DocumentTooLarge, 413),
    (errors.DocumentError, 422),
    (errors.MissingExtra, 501),
    (errors.Unsupported, 501),
    (errors.ModelRateLimited, 429),
    (errors.ModelUnavailable, 503),
    (errors.ModelTimeout, 504),
    (errors.ContextOverflow, 413),
    (errors.ModelError, 502),
    (errors.StoreError, 503),
    (errors.ChatbotClosed, 503),
)
_STREAM: Final = "text/event-stream"
_JSON: Final = {"ensure_ascii": False}
_ABOUT_INSIDE: Final = "the server cannot do that at the moment"


def json_errors(view: View) -> View:
    """A view, synchronous or not, whose refusals by Daram are JSON: ``{"error": {"code", "message"}}`` and a status.

    Another owner's conversation is 404, as one that is not there. What went wrong inside (paths, addresses) is in the
    log; the client reads the code.
    """
    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def answer_async(*args: Any, **kwargs: Any) -> Any:
            try:
                return await view(*args, **kwargs)
            except errors.DaramError as error:
                return _refusal(error)

        return answer_async  # type: ignore[return-value]  # it takes and gives what the view does

    @functools.wraps(view)
    def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return view(*args, **kwargs)
        except errors.DaramError as error:
            return _refusal(error)

    return answer  # type: ignore[return-value]  # it takes and gives what the view does


def _status(error: errors.DaramError) -> int:
    return next((number for kind, number in _STATUS if isinstance(error, kind)), 500)


def _refusal(error: errors.DaramError, **more: str) -> JsonResponse:
    status = _status(error)
    headers = {"Retry-After": "1"} if error.retryable and status in (409, 429, 503) else {}
    return JsonResponse({"error": _words(error, status), **more}, status=status, headers=headers)


def _words(error: errors.DaramError, status: int) -> dict[str, str]:
    if status < 500 or isinstance(error, errors.AnswerLate):
        return {"code": error.code, "message": str(error)}
    log.error("refused with %d: %s", status, error)
    return {"code": error.code, "message": _ABOUT_INSIDE}


def event_stream(events: Iterable[Event] | AsyncIterable[Event]) -> StreamingHttpResponse:
    """The events of an answer as server-sent events, each with its number as ``id``.

    ``running.events()``, or for a client that comes back (``Last-Event-ID``) ``chatbot.resume(…, after=number)``; of
    the asynchronous chatbot under ASGI, of the synchronous one under WSGI. A client that leaves does not stop it.
    """
    return _stream(_aframes(events) if isinstance(events, AsyncIterable) else _frames(events))


def _stream(frames: Iterable[bytes] | AsyncIterable[bytes], status: int = 200) -> StreamingHttpResponse:
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(frames, status=status, content_type=_STREAM, headers=headers)


def _frames(events: Iterable[Event]) -> Iterator[bytes]:
    try:
        for event in events:
            yield _frame(event)
    except errors.DaramError as error:
        yield _last(error)


async def _aframes(events: AsyncIterable[Event]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield _frame(event)
    except errors.DaramError as error:
        yield _last(error)


def _frame(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), msgspec.json.encode(event))


def _last(error: errors.DaramError) -> bytes:
    return b"event: error\ndata: %s\n\n" % msgspec.json.encode(_words(error, _status(error)))


# --- chats about titles ---------------------------------------------------------------------------------------------


def titled_reply(request: HttpRequest, turn: SyncTitledTurn, status: int = 200) -> HttpResponseBase:
    """The answer of a turn of ``get_titled_chats()``: ``{"id", "AI", "sources", "state"}``, or why there is none, with
    the chat's id, whose question is kept; with ``Accept: text/event-stream`` the events that ``TitledTurn.told`` tells.
    """
    if _wants_stream(request):
        return _stream(_titled_frames(turn), status)
    try:
        return JsonResponse(turn.reply(), status=status, json_dumps_params=_JSON)
    except errors.DaramError as error:
        return _refusal(error, id=turn.chat, state="failed")


async def atitled_reply(request: HttpRequest, turn: AsyncTitledTurn, status: int = 200) -> HttpResponseBase:
    """The same in asynchronous views, of ``aget_titled_chats()``."""
    if _wants_stream(request):
        return _stream(_atitled_frames(turn), status)
    try:
        return JsonResponse(await turn.reply(), status=status, json_dumps_params=_JSON)
    except errors.DaramError as error:
        return _refusal(error, id=turn.chat, state="failed")


def _wants_stream(request: HttpRequest) -> bool:
    return _STREAM in request.headers.get("Accept", "")


def _titled_frames(turn: SyncTitledTurn) -> Iterator[bytes]:
    for told in turn.told():
        yield _titled_frame(told)


async def _atitled_frames(turn: AsyncTitledTurn) -> AsyncIterator[bytes]:
    async with aclosing(turn.told()) as events:
        async for told in events:
            yield _titled_frame(told)


def _titled_frame(told: Told) -> bytes:
    data = told.data
    if told.name == "failed":
        data = {"error": {"code": told.code, "message": told.words}, **data}
    return b"event: %s\ndata: %s\n\n" % (told.name.encode(), msgspec.json.encode(data))
