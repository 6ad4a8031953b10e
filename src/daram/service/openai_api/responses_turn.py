"""A response is one turn of the chatbot: how a request becomes one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import NamedTuple

import msgspec

from daram import ids
from daram.chat.aside import aside
from daram.chat.choices import Choices
from daram.chat.events import TERMINAL, Event
from daram.chat.grounding import Grounding
from daram.chat.running import Running, failure
from daram.errors import InvalidInput, NotFound
from daram.knowledge.bindings import Binding
from daram.llm.base import ChatModel, Options
from daram.memory import Memory
from daram.model import Answer, Message
from daram.service.accounts.auth import Caller, Refused
from daram.service.openai_api.file_search import binding_of
from daram.service.openai_api.responses_past import MOST, branch_of, context_of, read, whole_past
from daram.service.openai_api.responses_request import (
    MOST_STORED,
    ResponseIn,
    choose_model,
    conversation_of,
    inputs,
    options_of,
    repeated,
)
from daram.service.openai_api.responses_view import (
    RESULTS,
    Place,
    View,
    new_place,
    question_id,
    response_id,
    view_of,
    with_request,
)
from daram.service.openai_api.tries import Try
from daram.service.runtime import Runtime


class Begun(NamedTuple):
    """A response that is being made: its events from the first on, and the turn that it is, if this call began it."""

    view: View
    place: Place
    events: AsyncGenerator[Event, None]
    running: Running | None


def check_room(runtime: Runtime, owner: str) -> None:
    """Raise ``Refused`` (429) where as many answers are being made for the owner as requests are allowed at once.

    An answer outlives its request: in the background, and where the client has left.
    """
    most = runtime.settings.stream_limit
    if most and (running := runtime.chatbot.running(owner)) >= most:
        text = f"{running} answers are being made for you, and no more are allowed at once. Wait until one ends."
        raise Refused(429, text, "rate_limit_exceeded")


async def begin(runtime: Runtime, caller: Caller, wanted: ResponseIn, tried: Try) -> Begun:
    """Begin the response, or join the one that is asked for once more. Its question is durable when this returns.

    Raises ``InvalidInput``, ``NotFound``, ``ConversationBusy`` and what ``Chatbot.start`` raises.
    """
    draw, owner = tried.draw, caller.owner
    named = conversation_of(wanted)
    model = choose_model(runtime.models, runtime.model, wanted.model)
    options = options_of(wanted, runtime.chatbot.options)
    documents = await binding_of(caller, wanted)
    if wanted.store is False:
        return await _aside(runtime, owner, wanted, named, model, options, documents)
    branch = await branch_of(runtime, owner, wanted)
    conversation, parent = branch or (draw("conv"), None)
    choices = Choices(
        model=model, system=wanted.instructions, options=options, titled=named is not None, documents=documents
    )
    first = draw("msg")
    if named is not None and await tried.is_past(named, question_id(first), first):
        draw = tried.begin_anew()
        first = draw("msg")
    if not draw.again:  # else the earlier try may be among those that run
        check_room(runtime, owner)
    # An earlier try may be making the first one: who asks with another id joins it, or makes a cut one anew beside it.
    answer = ids.message_id() if draw.again else first
    said = inputs(wanted.input, MOST_STORED)
    messages = read(said, draw, known=branch is not None)
    if wanted.truncation == "disabled":
        # Of a try that goes on the branch may have the input already: the turn itself looks whether all fits.
        past = (
            MOST
            if draw.again
            else await whole_past(
                runtime, owner, branch, messages, model, instructions=wanted.instructions, options=options
            )
        )
        choices = msgspec.structs.replace(choices, whole=past)
    if not messages:
        if draw.again:
            made = await _made(runtime, owner, Place(conversation, first), model.name, wanted.include)
            if made is not None:
                return made
        if branch is None:
            raise InvalidInput("input", "is missing")
        running = await tried.beside(_anew(runtime, owner, conversation, parent, answer, choices))
        return _begun(conversation, running, model.name, wanted.include)
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
    }
    running = await tried.beside(
        runtime.chatbot.start(
            owner,
            conversation,
            with_request(question, kept),
            before=messages,
            parent=parent,
            create=branch is None,
            answer_id=answer,
            choices=choices,
        )
    )
    return _begun(conversation, running, model.name, wanted.include)


def _begun(conversation: str, running: Running, model: str, include: Sequence[str] | None) -> Begun:
    place = Place(conversation, running.answer_id)
    view = view_of(place, running.question, model=model, created_at=None, include=include)
    return Begun(view, place, running.events(), running)


async def _made(runtime: Runtime, owner: str, place: Place, model: str, include: Sequence[str] | None) -> Begun | None:
    """The answer that an earlier try makes or has made; None where there is none, or one that was cut or failed."""
    try:
        found = await stored(runtime.memory, owner, place)
        if found is None or (isinstance(found, Message) and found.status not in ("complete", "cancelled")):
            return None
        asked = found.parent if isinstance(found, Message) else found.question
        question = await runtime.memory.message(owner, place.conversation, asked or "")
    except NotFound:
        return None
    view = view_of(place, question, model=model, created_at=None, include=include)
    return Begun(view, place, runtime.chatbot.resume(owner, *place), None)


async def stored(memory: Memory, owner: str, place: Place) -> Message | Answer | None:
    """The answer at that place: a message once it has ended, an answer row while it is being made."""
    for _ in range(2):  # between the two reads it may have ended
        with suppress(NotFound):
            message = await memory.message(owner, *place)
            return message if message.role == "assistant" else None
        for answer in await memory.answers(owner, place.conversation):
            if answer.id == place.answer:
                return answer
    return None


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


# --- what is stored nowhere -----------------------------------------------------------------------------------------


async def _aside(
    runtime: Runtime,
    owner: str,
    wanted: ResponseIn,
    named: str | None,
    model: ChatModel,
    options: Options,
    documents: Binding | None,
) -> Begun:
    if wanted.background:
        raise InvalidInput("background", "needs store=true: nobody could come back for the answer")
    grounding = None
    if documents is not None and runtime.documents is not None:
        grounding = Grounding(runtime.documents, model, documents)
    prompt = await context_of(runtime, owner, wanted, model, options, fitted=True, grounding=grounding)
    place = new_place()
    view = View(
        id=response_id(*place) or place.answer,
        model=model.name,
        created_at=int(time.time()),
        request=repeated(wanted),
        conversation=named,
        asked=prompt.asked,
        results=RESULTS in (wanted.include or ()),
    )
    events = aside(model, prompt.messages, options, place.answer, sources=prompt.sources)
    return Begun(view, place, events, None)


async def whole(events: AsyncGenerator[Event, None]) -> Message:
    """The answer at the end of events; raises what made it fail."""
    async with aclosing(events):
        async for event in events:
            if event.type in TERMINAL and event.message is not None:
                if (error := failure(event.message)) is not None:
                    raise type(error)(event.error or str(error))
                return event.message
    raise AssertionError("unreachable: events end with a terminal one, and that has the message")
