"""A response is one turn of the chatbot: how a request becomes one, and how a repeated request finds its own again."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from daram.chat.aside import aside
from daram.chat.choices import Choices
from daram.chat.events import TERMINAL, Event
from daram.chat.running import Running, failure
from daram.errors import ConversationBusy, DaramError, InvalidInput, NotFound
from daram.llm.base import ChatModel, Options
from daram.model import Message, system
from daram.service.openai_api.idempotency import Draw
from daram.service.openai_api.items import message_of
from daram.service.openai_api.responses_request import (
    CompactIn,
    Inputs,
    Json,
    ResponseIn,
    choose_model,
    conversation_of,
    inputs,
    options_of,
    repeated,
)
from daram.service.openai_api.responses_view import (
    Place,
    View,
    place_of,
    question_id,
    request_of,
    response_id,
    view_of,
    with_request,
)
from daram.service.openai_api.summaries import message_of_summary
from daram.service.runtime import Runtime

_NAMESPACE: Final = "responses.broken"
_KEPT: Final = timedelta(minutes=10)
_REMEMBERED: Final = 10_000
_LOOKED_THROUGH: Final = 20


class Begun(NamedTuple):
    """A response that is being made: its events from the first on, and whether anything of it is stored."""

    view: View
    place: Place
    events: AsyncGenerator[Event, None]
    running: Running | None
    digest: str


class Asked(NamedTuple):
    """A request, and whose: ``digest`` is of its body and API key; ``retry``: the SDK sends it once more; ``keyed``: it
    has an Idempotency-Key, and all ids are drawn as at the first time.
    """

    owner: str
    wanted: ResponseIn
    digest: str
    retry: bool = False
    keyed: bool = False


async def begin(runtime: Runtime, asked: Asked, draw: Draw) -> Begun:
    """Begin the response, or join the one that is asked for once more. Its question is durable when this returns.

    Raises ``InvalidInput``, ``NotFound``, ``ConversationBusy`` and what ``Chatbot.start`` raises.
    """
    wanted, owner = asked.wanted, asked.owner
    named = conversation_of(wanted)
    model = choose_model(runtime.models, runtime.model, wanted.model)
    options = options_of(wanted, runtime.chatbot.options)
    if wanted.store is False:
        return await _aside(runtime, asked, named, model, options)
    parent = None
    if wanted.previous_response_id is not None:
        place = await answered(runtime, owner, wanted.previous_response_id, "previous_response_id")
        conversation, parent = place.conversation, place.answer
    else:
        conversation = named or draw("conv")
    choices = Choices(model=model, system=wanted.instructions, options=options, titled=named is not None)
    if asked.retry and (again := await _join(runtime, asked, conversation, choices)) is not None:
        return again
    first = answer = draw("msg")
    if asked.keyed and await _is_stored(runtime, owner, conversation, first):
        answer = draw(
            "msg"
        )  # only where that one was cut or failed it is asked for: the answer is made anew, beside it
    said = inputs(wanted.input)
    messages = _read(said, draw, known=named is not None or parent is not None)
    if not messages:
        running = await _anew(runtime, owner, conversation, parent, answer, choices)
        return _begun(asked, conversation, running, model.name)
    question = messages.pop()
    if question.role == "assistant":
        raise InvalidInput("input", "must end with a message of the user or the output of a function")
    if said[-1].get("id") is None:
        question = msgspec.structs.replace(question, id=question_id(first))
    kept = {
        "given": repeated(wanted),
        "model": model.name,
        "named": named is not None,
        "inputs": len(messages) + 1,
        "digest": asked.digest,
    }
    running = await runtime.chatbot.start(
        owner,
        conversation,
        with_request(question, kept),
        before=messages,
        parent=parent,
        create=named is None and parent is None,
        answer_id=answer,
        choices=choices,
    )
    return _begun(asked, conversation, running, model.name)


def _begun(asked: Asked, conversation: str, running: Running, model: str) -> Begun:
    place = Place(conversation, running.answer_id)
    view = view_of(place, running.question, model=model, created_at=None)
    _recent.began(asked, conversation, running.question.id)
    return Begun(view, place, running.events(), running, asked.digest)


def _read(items: Sequence[Json], draw: Draw, *, known: bool) -> list[Message]:
    """The messages of the input. References to items are left out where the context has those items anyway."""
    if known:
        items = [item for item in items if item.get("type") != "item_reference"]
    return [_message(item, f"input[{i}]", draw) for i, item in enumerate(items)]


def _message(item: Json, field: str, draw: Draw) -> Message:
    if item.get("type") == "compaction":
        return message_of_summary(item, str(item.get("id") or draw("cmp")), field)
    return message_of(item, field, draw)


async def _is_stored(runtime: Runtime, owner: str, conversation: str, id: str) -> bool:
    try:
        await runtime.memory.message(owner, conversation, id)
    except NotFound:
        return False
    return True


async def _anew(
    runtime: Runtime, owner: str, conversation: str, parent: str | None, answer: str, choices: Choices
) -> Running:
    """A request without input: the last message of the user is answered (once more)."""
    if parent is not None:
        raise InvalidInput("input", "is missing: there is nothing to say after the previous response")
    try:
        return await runtime.chatbot.regenerate(owner, conversation, answer_id=answer, choices=choices)
    except NotFound:
        raise InvalidInput("input", "is missing, and the conversation has no message of the user") from None


async def answered(runtime: Runtime, owner: str, id: str, field: str) -> Place:
    """Where a response is that has come to its end; one that is being made is waited for.

    Raises ``InvalidInput`` where there is none, ``ConversationBusy`` where it takes too long.
    """
    place = place_of(id)
    if place is not None:
        with suppress(NotFound):
            await runtime.memory.message(owner, *place)
            return place
        try:
            async with asyncio.timeout(runtime.settings.wait):
                async for _ in runtime.chatbot.resume(owner, *place):
                    pass
            return place
        except NotFound:
            pass
        except TimeoutError:
            raise ConversationBusy(place.answer) from None
    raise PreviousNotFound(field, id)


class PreviousNotFound(InvalidInput):
    """A request names a response that is not there."""

    code = "previous_response_not_found"

    def __init__(self, field: str, id: str) -> None:
        super().__init__(field, f"there is no response with the id {id!r:.200}")


# --- what is stored nowhere -----------------------------------------------------------------------------------------


async def _aside(runtime: Runtime, asked: Asked, named: str | None, model: ChatModel, options: Options) -> Begun:
    wanted, owner = asked.wanted, asked.owner
    if wanted.background:
        raise InvalidInput("background", "needs store=true: nobody could come back for the answer")
    messages, place = await context_of(runtime, owner, wanted, named)
    view = View(
        id=response_id(*place) or place.answer,
        model=model.name,
        created_at=int(time.time()),
        request=repeated(wanted),
        conversation=named,
    )
    events = aside(model, messages, options, place.answer)
    return Begun(view, place, events, None, asked.digest)


async def context_of(runtime: Runtime, owner: str, wanted: Inputs, named: str | None) -> tuple[list[Message], Place]:
    """The whole prompt of a request that is not to be stored, and a place that nothing is at."""
    draw = Draw()
    limit = runtime.settings.window
    before = [] if named is None else await runtime.memory.tail(owner, named, limit)
    said = await past_of(runtime, owner, wanted, limit=limit, known=named is not None)
    if not said:
        raise InvalidInput("input", "is missing")
    rules = [system(wanted.instructions)] if wanted.instructions else []
    return [*rules, *before, *said], Place(draw("conv"), draw("msg"))


async def past_of(
    runtime: Runtime, owner: str, wanted: Inputs | CompactIn, *, limit: int, known: bool = False
) -> list[Message]:
    """The last messages of the branch that ends with the previous response, and the messages of the input."""
    found: list[Message] = []
    if wanted.previous_response_id is not None:
        place = await answered(runtime, owner, wanted.previous_response_id, "previous_response_id")
        id: str | None = place.answer
        while id is not None and len(found) < limit:
            try:
                found.append(await runtime.memory.message(owner, place.conversation, id))
            except NotFound:
                break
            id = found[-1].parent
    return [*reversed(found), *_read(inputs(wanted.input), Draw(), known=known or bool(found))]


async def whole(events: AsyncGenerator[Event, None]) -> Message:
    """The answer at the end of events; raises what made it fail."""
    async with aclosing(events):
        async for event in events:
            if event.type in TERMINAL and event.message is not None:
                if (error := failure(event.message)) is not None:
                    raise type(error)(event.error or str(error))
                return event.message
    raise AssertionError("unreachable: events end with a terminal one, and that has the message")


# --- the same request once more -------------------------------------------------------------------------------------


class _Recent:
    """The requests that this process was asked lately, and whether their answers reached their clients whole."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[str, str, bool]] = OrderedDict()

    def began(self, asked: Asked, conversation: str, question: str) -> None:
        self._put((asked.owner, asked.digest), (conversation, question, False))

    def delivered(self, owner: str, digest: str) -> None:
        key = (owner, digest)
        if key in self._known:
            self._put(key, (*self._known[key][:2], True))

    def find(self, asked: Asked) -> tuple[str, str, bool] | None:
        return self._known.get((asked.owner, asked.digest))

    def _put(self, key: tuple[str, str], value: tuple[str, str, bool]) -> None:
        self._known[key] = value
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


_recent = _Recent()


def delivered(owner: str, digest: str) -> None:
    """The client has the end of the answer: the same request again is a new turn."""
    _recent.delivered(owner, digest)


async def broke(runtime: Runtime, owner: str, begun: Begun) -> None:
    """The client was lost before it had the end: the same request again is this turn, in whatever process."""
    if begun.running is None:
        return
    value = msgspec.json.encode((begun.place.conversation, begun.running.question.id))
    with suppress(DaramError):  # without it the request that comes again is another turn
        await runtime.memory.put_record(owner, _NAMESPACE, begun.digest, value, expires_at=datetime.now(UTC) + _KEPT)


async def _join(runtime: Runtime, asked: Asked, conversation: str, choices: Choices) -> Begun | None:
    """The turn of the first try of this request, if that did not come to its client."""
    found = await _first_try(runtime, asked, conversation)
    if found is None:
        return None
    conversation, question = found
    try:
        stored = await runtime.memory.message(asked.owner, conversation, question)
        running = await runtime.chatbot.start(asked.owner, conversation, stored, create=False, choices=choices)
    except NotFound:
        return None
    return _begun(asked, conversation, running, choices.model.name if choices.model else "")


async def _first_try(runtime: Runtime, asked: Asked, conversation: str) -> tuple[str, str] | None:
    memory, owner = runtime.memory, asked.owner
    known = _recent.find(asked)
    if known is not None:
        return None if known[2] else known[:2]
    record = await memory.get_record(owner, _NAMESPACE, asked.digest)
    if record is not None:
        await memory.delete_record(owner, _NAMESPACE, asked.digest)
        where, question = msgspec.json.decode(record.value, type=tuple[str, str])
        return where, question
    # Another process makes it, or died over it.
    with suppress(NotFound):
        for answer in await memory.answers(owner, conversation):
            stored = await memory.message(owner, conversation, answer.question)
            if request_of(stored).get("digest") == asked.digest:
                return conversation, answer.question
        tail = await memory.tail(owner, conversation, _LOOKED_THROUGH)
        for message in reversed(tail):
            if request_of(message).get("digest") == asked.digest:
                answers = [other for other in tail if other.parent == message.id]
                ended = any(o.status in ("complete", "cancelled") or "finish" in o.metadata for o in answers)
                return None if ended else (conversation, message.id)
    return None
