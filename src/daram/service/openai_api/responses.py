"""``/v1/responses``: a thin face over the chatbot's turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from hashlib import sha256
from typing import Annotated, Any, Final

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from daram.errors import InvalidInput, NotFound
from daram.model import Answer, Message, system
from daram.service import runtime
from daram.service.accounts.auth import Caller, caller_of, require
from daram.service.openai_api import responses_turn as turns
from daram.service.openai_api import schemas
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.items import Item, items_of
from daram.service.openai_api.pages import Order, list_object
from daram.service.openai_api.reply import reply
from daram.service.openai_api.responses_request import (
    DeletedResponse,
    Inputs,
    InputTokens,
    ResponseIn,
    ResponseOut,
    choose_model,
    conversation_of,
    options_of,
)
from daram.service.openai_api.responses_view import Place, View, place_of, question_id, request_of, view_of
from daram.service.openai_api.stream import frames, with_pings
from daram.service.runtime import Runtime
from daram.text.tokens import TokenCounter

router = Router(tags=["responses"])
_READ: Final = require("read")
_WRITE: Final = require("write")
# How long a cancelled answer may take to be stored before the caller is told how things stand, in seconds.
_STOPPING: Final = 20.0

Limit = Annotated[int, Query(20, ge=1, le=100)]
Include = Annotated[list[str], Query([])]
Number = Annotated[int | None, Query(None, ge=0, le=1 << 53)]


# --- create ---------------------------------------------------------------------------------------------------------


@router.post("/responses", auth=_WRITE, response={200: ResponseOut, **schemas.REFUSALS})
async def create_response(request: HttpRequest, payload: ResponseIn) -> HttpResponseBase:
    """Make an answer: whole, as a stream (``stream``), or while nobody waits (``background``)."""
    house, caller = runtime.current(), caller_of(request)
    asked = turns.Asked(
        caller.owner,
        payload,
        _digest(request, caller),
        retry=request.headers.get("x-stainless-retry-count", "0") not in ("", "0"),
        keyed="Idempotency-Key" in request.headers,
    )
    begun: list[turns.Begun] = []

    async def work(draw: Draw) -> HttpResponse:
        begun.append(await turns.begin(house, asked, draw))
        return await _answer(house, caller.owner, payload, begun[0])

    try:
        # A repetition finds the stored answer: no copy of it is kept that would outlive its deletion.
        return await once(house.memory, caller.owner, request, work, work)
    except asyncio.CancelledError:  # the client left; the answer goes on
        if begun:
            await asyncio.shield(turns.broke(house, caller.owner, begun[0]))
        raise


async def _answer(house: Runtime, owner: str, wanted: ResponseIn, begun: turns.Begun) -> Any:
    """A stream, what there is of an answer in the background, or the whole answer."""
    if wanted.stream:
        return event_stream(_delivered(house, owner, begun))
    if wanted.background:
        turns.delivered(owner, begun.digest)
        await begun.events.aclose()
        return reply(begun.view.running("queued"))
    message = await _message(begun)
    turns.delivered(owner, begun.digest)
    return reply(begun.view.ended(message))


async def _message(begun: turns.Begun) -> Message:
    """The answer; raises what made it fail."""
    if begun.running is not None:
        await begun.events.aclose()
        return await begun.running.message()
    return await turns.whole(begun.events)


def event_stream(found: AsyncGenerator[bytes, None]) -> StreamingHttpResponse:
    """The frames as a response that no proxy holds back."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(with_pings(found), content_type="text/event-stream; charset=utf-8", headers=headers)


async def _delivered(house: Runtime, owner: str, begun: turns.Begun) -> AsyncGenerator[bytes, None]:
    """The frames; whether they all reached the client is kept for when it asks again."""
    arrived = False
    try:
        async with aclosing(frames(begun.events, begun.view, begun.place.answer)) as found:
            async for data in found:
                yield data
        arrived = True
    finally:
        if arrived:
            turns.delivered(owner, begun.digest)
        else:
            _in_the_background(turns.broke(house, owner, begun))


_tasks: set[asyncio.Task[None]] = set()


def _in_the_background(work: Any) -> None:
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _digest(request: HttpRequest, caller: Caller) -> str:
    return sha256(f"{caller.key_id} ".encode() + request.body).hexdigest()


@router.post("/responses/input_tokens", auth=_READ, response={200: InputTokens, **schemas.REFUSALS})
async def count_input_tokens(request: HttpRequest, payload: Inputs) -> HttpResponse:
    """How many tokens the prompt would have: by the model's own count, or where only its endpoint knows, about."""
    house, caller = runtime.current(), caller_of(request)
    model = choose_model(house.models, house.model, payload.model)
    options = options_of(payload, house.chatbot.options)
    messages, _ = await turns.context_of(house, caller.owner, payload, conversation_of(payload))

    def count() -> int:
        counter = TokenCounter(model.count_tokens)
        tools = [system(str(tool["function"])) for tool in options.tools]
        return counter.messages([*messages, *tools])

    return reply({"object": "response.input_tokens", "input_tokens": await asyncio.to_thread(count)})


# --- one response ---------------------------------------------------------------------------------------------------


class _Found:
    """A response that is there: ``message`` once it has ended, ``answer`` while it is being made."""

    def __init__(self, place: Place, view: View, question: Message | None, stored: Message | Answer) -> None:
        self.place = place
        self.view = view
        self.question = question
        self.message = stored if isinstance(stored, Message) else None

    def shown(self) -> Item:
        return self.view.running() if self.message is None else self.view.ended(self.message)


async def _find(owner: str, id: str) -> _Found:
    """Raises ``NotFound``: for another's response in the same words as for none."""
    place = place_of(id)
    memory = runtime.current().memory
    with suppress(NotFound):
        stored = None if place is None else await _stored(owner, place)
        if place is not None and stored is not None:
            questions = [question_id(place.answer), stored.parent if isinstance(stored, Message) else stored.question]
            for name in questions:
                with suppress(NotFound):
                    question = None if not name else await memory.message(owner, place.conversation, name)
                    if question is not None and question.role != "assistant":
                        return _Found(place, _view(place, question, stored), question, stored)
            return _Found(place, _view(place, None, stored), None, stored)
    raise NotFound("response", id)


async def _stored(owner: str, place: Place) -> Message | Answer | None:
    memory = runtime.current().memory
    for _ in range(2):  # between the two reads it may have ended
        with suppress(NotFound):
            message = await memory.message(owner, *place)
            return message if message.role == "assistant" else None
        for answer in await memory.answers(owner, place.conversation):
            if answer.id == place.answer:
                return answer
    return None


def _view(place: Place, question: Message | None, stored: Message | Answer) -> View:
    return view_of(place, question, model=stored.model, created_at=stored.created_at)


@router.get("/responses/{response_id}", auth=_READ, response={200: ResponseOut, **schemas.REFUSALS})
async def retrieve_response(
    request: HttpRequest,
    response_id: str,
    stream: bool = False,
    starting_after: Number = None,
    include_obfuscation: bool | None = None,  # noqa: ARG001  # accepted; nothing here is obfuscated
    include: Include = [],  # noqa: ARG001, B006  # accepted; all that there is is there
) -> HttpResponseBase:
    """The response as it is, or with ``stream`` its frames behind ``starting_after`` (or ``Last-Event-ID``)."""
    owner = caller_of(request).owner
    found = await _find(owner, response_id)
    if not stream:
        return reply(found.shown())
    if starting_after is None and (last := request.headers.get("Last-Event-ID")):
        if not (last.isascii() and last.isdigit() and len(last) <= 16):
            raise InvalidInput("Last-Event-ID", "must be the number of an event")
        starting_after = int(last)
    events = runtime.current().chatbot.resume(owner, *found.place)
    return event_stream(frames(events, found.view, found.place.answer, after=starting_after))


@router.delete("/responses/{response_id}", auth=_WRITE, response={200: DeletedResponse, **schemas.REFUSALS})
async def delete_response(request: HttpRequest, response_id: str) -> HttpResponse:
    """Delete the answer, and where no conversation was named, what it answers."""
    house, owner = runtime.current(), caller_of(request).owner
    found = await _find(owner, response_id)
    conversation = found.place.conversation
    if found.message is None:
        await _stop(house, owner, found)
    await house.memory.delete_message(owner, conversation, found.place.answer)
    if found.question is not None and not request_of(found.question).get("named", True):
        for message in await _inputs(owner, found):
            with suppress(NotFound):
                await house.memory.delete_message(owner, conversation, message.id)
        if not await house.memory.tail(owner, conversation, 1):
            with suppress(NotFound):
                await house.memory.delete(owner, conversation)
    return reply({"id": response_id, "object": "response", "deleted": True})


@router.post("/responses/{response_id}/cancel", auth=_WRITE, response={200: ResponseOut, **schemas.REFUSALS})
async def cancel_response(request: HttpRequest, response_id: str) -> HttpResponse:
    """Stop the answer, in whatever process it is made; what it said is kept. One that has ended stays as it is."""
    house, caller = runtime.current(), caller_of(request)

    async def work(_draw: Draw) -> HttpResponse:
        found = await _find(caller.owner, response_id)
        if found.message is None:
            await _stop(house, caller.owner, found)
            found = await _find(caller.owner, response_id)
        return reply(found.shown())

    return await once(house.memory, caller.owner, request, work, work)


async def _stop(house: Runtime, owner: str, found: _Found) -> None:
    """Cancel the answer and wait a while until it is stored."""
    await house.chatbot.cancel(owner, *found.place)
    with suppress(TimeoutError, NotFound):
        async with asyncio.timeout(_STOPPING), aclosing(house.chatbot.resume(owner, *found.place)) as events:
            async for _ in events:
                pass


# --- what it was asked ----------------------------------------------------------------------------------------------


@router.get("/responses/{response_id}/input_items", auth=_READ, response={200: schemas.ItemList, **schemas.REFUSALS})
async def list_input_items(
    request: HttpRequest,
    response_id: str,
    limit: Limit = 20,
    order: Order = "desc",
    after: str | None = None,
    include: Include = [],  # noqa: ARG001, B006
) -> HttpResponse:
    """The items that came with the request."""
    owner = caller_of(request).owner
    found = await _find(owner, response_id)
    items = [item for message in await _inputs(owner, found) for item in items_of(message)]
    if order == "desc":
        items.reverse()
    if after is not None:
        behind = next((i + 1 for i, item in enumerate(items) if item["id"] == after), None)
        if behind is None:
            raise NotFound("item", after)
        items = items[behind:]
    return reply(list_object(items[:limit], has_more=len(items) > limit))


async def _inputs(owner: str, found: _Found) -> list[Message]:
    """The messages of the request: its question and what came in front of it, which follow one another."""
    messages: list[Message] = []
    message, count = found.question, request_of(found.question).get("inputs", 1)
    while message is not None:
        messages.insert(0, message)
        if len(messages) >= count or not message.parent:
            break
        try:
            message = await runtime.current().memory.message(owner, found.place.conversation, message.parent)
        except NotFound:
            break
    return messages
