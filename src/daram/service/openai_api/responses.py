"""``/v1/responses``: a thin face over the chatbot's turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from daram.codec import messages_cursor
from daram.errors import ChatbotClosed, InvalidInput, NotFound
from daram.model import Answer, Message, system
from daram.service import runtime
from daram.service.accounts.auth import caller_of, require
from daram.service.openai_api import responses_turn as turns
from daram.service.openai_api import schemas
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.items import Item, items_of
from daram.service.openai_api.pages import Order, list_object
from daram.service.openai_api.reply import about_request, reply
from daram.service.openai_api.responses_past import context_of
from daram.service.openai_api.responses_request import (
    DeletedResponse,
    Inputs,
    InputTokens,
    ResponseIn,
    ResponseOut,
    choose_model,
    options_of,
)
from daram.service.openai_api.responses_view import Place, View, place_of, question_id, request_of, view_of
from daram.service.openai_api.stream import frames, with_pings
from daram.service.openai_api.tries import Try
from daram.service.runtime import Runtime
from daram.text.tokens import TokenCounter

router = Router(tags=["responses"])
_READ: Final = require("read")
_WRITE: Final = require("write")
# How long a cancelled answer may take to be stored before the caller is told how things stand, in seconds.
_STOPPING: Final = 20.0

Limit = Annotated[int, Query(20, ge=1, le=100)]
Include = Annotated[list[str], Query([])]
IncludeListed = Annotated[list[str], Query([], alias="include[]")]  # as OpenAI's library for Python writes it
Number = Annotated[int | None, Query(None, ge=0, le=1 << 53)]


# --- create ---------------------------------------------------------------------------------------------------------


@router.post("/responses", auth=_WRITE, response={200: ResponseOut, **schemas.REFUSALS})
async def create_response(request: HttpRequest, payload: ResponseIn) -> HttpResponseBase:
    """Make an answer: whole, as a stream (``stream``), or while nobody waits (``background``)."""
    house, caller = runtime.current(), caller_of(request)
    keyed = "Idempotency-Key" in request.headers
    sdk = Try(Draw()) if keyed or payload.store is False else await Try.of(house.memory, caller, request)

    async def work(draw: Draw) -> HttpResponse:
        tried = Try(draw) if keyed else sdk
        with about_request("input"):
            return await _answer(payload, tried, await turns.begin(house, caller, payload, tried))

    # A repetition finds the stored answer: no copy of it is kept that would outlive its deletion.
    return await sdk.answering(once(house.memory, caller.owner, request, work, work))


async def _answer(wanted: ResponseIn, tried: Try, begun: turns.Begun) -> Any:
    """A stream, what there is of an answer in the background, or the whole answer."""
    if wanted.stream:
        return event_stream(frames(begun.events, begun.view, begun.place.answer), tried)
    if wanted.background:
        await begun.events.aclose()
        return reply(begun.view.running("queued"))
    return reply(begun.view.ended(await _message(begun)))


async def _message(begun: turns.Begun) -> Message:
    """The answer; raises what made it fail."""
    if begun.running is not None:
        await begun.events.aclose()
        return await begun.running.message()
    return await turns.whole(begun.events)


def event_stream(found: AsyncGenerator[bytes, None], tried: Try | None = None) -> StreamingHttpResponse:
    """The frames as a response that no proxy holds back; ``tried``: to be told when the client has taken them all."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    sent = with_pings(found)
    if tried is not None:
        sent = tried.delivering(sent)  # outermost: what is read ahead has not arrived
    return StreamingHttpResponse(sent, content_type="text/event-stream; charset=utf-8", headers=headers)


@router.post("/responses/input_tokens", auth=_READ, response={200: InputTokens, **schemas.REFUSALS})
async def count_input_tokens(request: HttpRequest, payload: Inputs) -> HttpResponse:
    """How many tokens the prompt would have: by the model's own count, or where only its endpoint knows, about."""
    house, caller = runtime.current(), caller_of(request)
    model = choose_model(house.models, house.model, payload.model)
    options = options_of(payload, house.chatbot.options)
    messages = (await context_of(house, caller.owner, payload, model, options, fitted=False)).messages

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


async def _find(owner: str, id: str, include: Sequence[str] = ()) -> _Found:
    """Raises ``NotFound``: for another's response in the same words as for none."""
    place = place_of(id)
    memory = runtime.current().memory
    with suppress(NotFound):
        stored = None if place is None else await turns.stored(memory, owner, place)
        if place is not None and stored is not None:
            questions = [question_id(place.answer), stored.parent if isinstance(stored, Message) else stored.question]
            for name in questions:
                with suppress(NotFound):
                    question = None if not name else await memory.message(owner, place.conversation, name)
                    if question is not None and question.role != "assistant":
                        return _Found(place, _view(place, question, stored, include), question, stored)
            return _Found(place, _view(place, None, stored, include), None, stored)
    raise NotFound("response", id)


def _view(place: Place, question: Message | None, stored: Message | Answer, include: Sequence[str]) -> View:
    return view_of(place, question, model=stored.model, created_at=stored.created_at, include=include)


@router.get("/responses/{response_id}", auth=_READ, response={200: ResponseOut, **schemas.REFUSALS})
async def retrieve_response(
    request: HttpRequest,
    response_id: str,
    stream: bool = False,
    starting_after: Number = None,
    include_obfuscation: bool | None = None,  # noqa: ARG001  # accepted; nothing here is obfuscated
    include: Include = [],  # noqa: B006
    include_listed: IncludeListed = [],  # noqa: B006
) -> HttpResponseBase:
    """The response as it is, or with ``stream`` its frames behind ``starting_after`` (or ``Last-Event-ID``)."""
    house, owner = runtime.current(), caller_of(request).owner
    found = await _find(owner, response_id, [*include, *include_listed])
    if not stream:
        return reply(found.shown())
    if house.draining:  # to be said before the stream begins: another process can serve it
        raise ChatbotClosed("the end of this process has begun")
    if starting_after is None and (last := request.headers.get("Last-Event-ID")):
        if not (last.isascii() and last.isdigit() and len(last) <= 16):
            raise InvalidInput("Last-Event-ID", "must be the number of an event")
        starting_after = int(last)
    events = house.chatbot.resume(owner, *found.place)
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
        with suppress(NotFound):
            if await _is_of_no_use(house, owner, conversation):
                await house.memory.delete(owner, conversation)
    return reply({"id": response_id, "object": "response", "deleted": True})


async def _is_of_no_use(house: Runtime, owner: str, conversation: str) -> bool:
    """Whether nothing is left in the conversation, on whatever branch, and nobody has named or marked it."""
    found = await house.memory.get(owner, conversation)
    if found.title or found.metadata or found.pinned or found.archived:
        return False
    last = 0
    while entries := await house.memory.log(owner, conversation, after=last):
        if not all(entry.deleted for entry in entries):
            return False
        last = entries[-1].message.seq
    return True


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
    question = found.question
    if question is None:
        return []
    messages, more = [question], request_of(question).get("inputs", 1) - 1
    if more:
        place = found.place.conversation
        cursor = messages_cursor(owner, place, "desc", question.seq, question.seq)
        page = await runtime.current().memory.messages(owner, place, limit=more, cursor=cursor, order="desc")
        for message in page.items:
            if message.id != messages[-1].parent:  # one between them was deleted: what is in front belongs elsewhere
                break
            messages.append(message)
    return messages[::-1]
