"""``/v1/chat/completions``: passed through to the model, or with ``metadata.conversation`` a turn of that conversation.

Without a conversation nothing is stored, and a client that leaves stops the model. With one the messages of the request
are appended to it (the new ones only: the conversation knows the others) and answered as a turn.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja import Router, Schema
from pydantic import ConfigDict, Field

from daram.chat.aside import aside
from daram.chat.choices import Choices
from daram.chat.events import TERMINAL, Event
from daram.chat.running import failure
from daram.errors import InvalidInput
from daram.llm.base import Options
from daram.model import Message, Part, Role
from daram.service import runtime
from daram.service.accounts.auth import caller_of, require
from daram.service.openai_api import schemas
from daram.service.openai_api.errors import Unsupported
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.models import ModelNotFound, UnknownModel
from daram.service.openai_api.reply import about_request, reply
from daram.service.openai_api.responses import event_stream
from daram.service.openai_api.responses_request import Json, choose_model
from daram.service.openai_api.responses_turn import check_room, whole
from daram.service.openai_api.schemas import In, Metadata
from daram.service.openai_api.tries import Try

router = Router(tags=["chat completions"])
_WRITE: Final = require("write")
_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_FINISH: Final = {"length": "length", "content_filter": "content_filter"}
_MOST_MESSAGES: Final = 2000
# Handed on to the endpoint as they are.
_PASSED: Final = (
    "frequency_penalty",
    "logit_bias",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "tool_choice",
    "verbosity",
)


class CompletionIn(In):
    """A chat completion. ``metadata.conversation`` names the conversation that it is a turn of."""

    messages: Annotated[list[Json], Field(min_length=1, max_length=_MOST_MESSAGES)]
    model: str | None = None
    stream: bool | None = None
    stream_options: Json | None = None
    metadata: Metadata | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: str | list[str] | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    response_format: Json | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    store: bool | None = None
    user: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None


class CompletionOut(Schema):
    """A chat completion: see OpenAI's reference."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    model: str
    choices: list[Json]


@router.post("/chat/completions", auth=_WRITE, response={200: CompletionOut, **schemas.REFUSALS})
async def create_completion(request: HttpRequest, payload: CompletionIn) -> HttpResponseBase:
    """Answer the messages: whole or, with ``stream``, piece by piece."""
    house, caller = runtime.current(), caller_of(request)
    owner = caller.owner
    try:
        model = choose_model(house.models, house.model, payload.model)
    except UnknownModel:
        raise ModelNotFound(payload.model or "") from None
    options = _options(payload, house.chatbot.options)
    conversation = (payload.metadata or {}).get("conversation")

    keyed = "Idempotency-Key" in request.headers
    sdk = Try(Draw()) if keyed or conversation is None else await Try.of(house.memory, caller, request)

    async def work(draw: Draw) -> Any:
        tried = Try(draw) if keyed else sdk
        id, messages = _drawn(payload, tried.draw)
        if conversation is not None and messages and await tried.is_past(conversation, messages[-1].id):
            id, messages = _drawn(payload, tried.begin_anew())
        draw = tried.draw
        if conversation is None:
            events = aside(model, messages, options, draw("msg"))
        else:
            begun = _turn(owner, conversation, messages, Choices(model=model, options=options), again=draw.again)
            events = await tried.beside(begun)
        if payload.stream:
            usage = bool((payload.stream_options or {}).get("include_usage"))
            return event_stream(_chunks(events, id, model.name, usage), tried)
        return reply(_completion(await whole(events), id))

    # What a conversation says is not copied: a repetition finds it there, or finds it deleted.
    again = None if conversation is None else work
    return await sdk.answering(once(house.memory, owner, request, work, again))


def _drawn(payload: CompletionIn, draw: Draw) -> tuple[str, list[Message]]:
    """The completion's id and the messages of the request, with theirs."""
    id = draw("chatcmpl").replace("_", "-")
    return id, [_message(one, f"messages[{i}]", draw) for i, one in enumerate(payload.messages)]


async def _turn(
    owner: str, conversation: str, messages: Sequence[Message], choices: Choices, *, again: bool
) -> AsyncGenerator[Event, None]:
    """The events of a turn of the conversation: what stands behind the last answer in the request is new to it."""
    await runtime.current().memory.get(owner, conversation)
    if not again:  # else the earlier try may be among those that run
        check_room(runtime.current(), owner)
    new = list(messages)
    for place, message in reversed(list(enumerate(messages))):
        if message.role == "assistant":
            new = list(messages[place + 1 :])
            break
    rules = [message for message in messages if message.role == "system"]
    new = [message for message in new if message.role != "system"]
    if not new:
        raise InvalidInput("messages", "must end with a message of the user or the result of a tool")
    if rules:
        text = "\n\n".join(message.text for message in rules)
        choices = msgspec.structs.replace(choices, system=text)
    with about_request("messages"):
        running = await runtime.current().chatbot.start(
            owner, conversation, new[-1], before=new[:-1], create=False, choices=choices
        )
    return running.events()


# --- in -------------------------------------------------------------------------------------------------------------


def _options(wanted: CompletionIn, defaults: Options) -> Options:
    for name in ("logprobs", "top_logprobs"):
        if getattr(wanted, name):
            raise Unsupported(name)
    extra = {name: value for name in _PASSED if (value := getattr(wanted, name)) is not None}
    stop = (wanted.stop,) if isinstance(wanted.stop, str) else tuple(wanted.stop or ())
    changed: Json = {"extra": {**defaults.extra, **extra}, "tools": tuple(wanted.tools or ()), "stop": stop}
    if (most := wanted.max_completion_tokens or wanted.max_tokens) is not None:
        changed["max_tokens"] = most
    for name in ("temperature", "top_p"):
        if (value := getattr(wanted, name)) is not None:
            changed[name] = value
    return msgspec.structs.replace(defaults, **changed)


def _message(value: Json, field: str, draw: Draw) -> Message:
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidInput(f"{field}.role", f"must be one of {', '.join(_ROLES)}, not {role!r:.40}")
    text, parts = _content(value.get("content"), f"{field}.content")
    if role == "tool":
        call_id = value.get("tool_call_id")
        if not isinstance(call_id, str):
            raise InvalidInput(f"{field}.tool_call_id", "must be a string")
        parts = [Part(type="tool_result", data={"call_id": call_id, "output": text})]
    calls = value.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InvalidInput(f"{field}.tool_calls", "must be an array")
    parts += [_call(call, f"{field}.tool_calls[{i}]") for i, call in enumerate(calls)]
    if role == "user" and not text and not parts:
        raise InvalidInput(f"{field}.content", "must say something")
    return Message(id=draw("msg"), role=_ROLES[role], text=text, parts=tuple(parts))


def _content(content: object, field: str) -> tuple[str, list[Part]]:
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise InvalidInput(field, "must be a string or an array")
    texts: list[str] = []
    parts: list[Part] = []
    for i, piece in enumerate(content):
        where = f"{field}[{i}]"
        kind = piece.get("type") if isinstance(piece, dict) else None
        if kind in ("text", "refusal") and isinstance(piece.get(kind), str):
            texts.append(piece[kind])
        elif kind == "image_url" and isinstance(piece.get("image_url"), dict):
            parts.append(Part(type="image", data=piece["image_url"]))
        else:
            raise InvalidInput(f"{where}.type", "must be 'text' or 'image_url', with a field of that name")
    return "\n".join(texts), parts


def _call(call: object, field: str) -> Part:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise InvalidInput(field, "must have an 'id' and a 'function'")
    data = {"call_id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
    if not all(isinstance(value, str) for value in data.values()):
        raise InvalidInput(field, "'id', 'function.name' and 'function.arguments' must be strings")
    return Part(type="tool_call", data=data)


# --- out ------------------------------------------------------------------------------------------------------------


def _completion(message: Message, id: str) -> Json:
    said: Json = {"role": "assistant", "content": message.text or None, "refusal": None, "annotations": []}
    if calls := _calls(message):
        said["tool_calls"] = calls
    elif not message.text:
        said["content"] = ""
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": _finish(message)}
    named = {"id": id, "object": "chat.completion", "created": int(time.time()), "model": message.model}
    return {**named, "choices": [choice], "usage": _usage(message)}


async def _chunks(events: AsyncGenerator[Event, None], id: str, model: str, usage: bool) -> AsyncGenerator[bytes, None]:
    named: Json = {"id": id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}

    def chunk(delta: Json, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**named, "choices": [choice], **({"usage": None} if usage else {}), **more})

    told = ""
    async with aclosing(events):
        yield chunk({"role": "assistant", "content": ""})
        async for event in events:
            if event.type == "delta":
                told += event.text
                yield chunk({"content": event.text})
            elif event.type in TERMINAL:
                message = event.message
                if message is None or (error := failure(message)) is not None:
                    text = "the answer was lost" if message is None else str(error)
                    yield _data({"error": {"message": text, "type": "server_error", "param": None, "code": event.code}})
                    return
                if message.text.startswith(told) and len(message.text) > len(told):
                    yield chunk({"content": message.text[len(told) :]})
                if calls := _calls(message):
                    yield chunk({"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]})
                yield chunk({}, _finish(message))
                if usage:
                    yield _data({**named, "choices": [], "usage": _usage(message)})
                yield b"data: [DONE]\n\n"


def _data(value: Json) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _calls(message: Message) -> list[Json]:
    return [
        {
            "id": part.data.get("call_id", ""),
            "type": "function",
            "function": {"name": part.data.get("name", ""), "arguments": part.data.get("arguments", "{}")},
        }
        for part in message.parts
        if part.type == "tool_call"
    ]


def _finish(message: Message) -> str:
    if message.status != "complete":
        return _FINISH.get(message.metadata.get("finish", ""), "length")
    return "tool_calls" if any(part.type == "tool_call" for part in message.parts) else "stop"


def _usage(message: Message) -> Json:
    usage = message.usage or {}
    given, made = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
