"""What a request for a response asks for: its fields, and what they become for the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from ninja import Schema
from ninja.errors import ValidationError
from pydantic import ConfigDict, Field

from daram.errors import InvalidInput
from daram.llm.base import ChatModel, Options
from daram.service.openai_api.errors import Unsupported
from daram.service.openai_api.models import UnknownModel
from daram.service.openai_api.responses_view import FILE_SEARCH
from daram.service.openai_api.schemas import AnyItem, In, ItemOut, Metadata
from daram.store import validate
from daram.store.validate import Limits

Json = dict[str, Any]

_LOGPROBS: Final = "message.output_text.logprobs"
MOST_STORED: Final = 90
"""Input items of a request that is stored: what a batch of the store holds, and some."""
_MOST_INPUTS: Final = 2000


class Inputs(In):
    """What makes a prompt: of a new response, or to be counted."""

    input: str | list[AnyItem] | None = None
    model: str | None = None
    conversation: str | Json | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    text: Json | None = None
    reasoning: Json | None = None
    truncation: Literal["auto", "disabled"] | None = None


class ResponseIn(Inputs):
    """A new response. What only OpenAI's own servers do (hosted tools, prompts, moderation) is refused."""

    metadata: Metadata | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: Json | None = None
    background: bool | None = None
    include: list[str] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Json | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None


class CompactIn(In):
    """What is to be made shorter."""

    input: str | list[AnyItem] | None = None
    model: str | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Json | None = None
    service_tier: str | None = None


class ResponseOut(Schema):
    """A response: see OpenAI's reference for all of its fields."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "cancelled", "failed"]
    model: str
    output: list[ItemOut]


class DeletedResponse(Schema):
    """What is said of a deleted response."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class CompactOut(Schema):
    """A past that was made shorter: to be given as input of the next response."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[ItemOut]
    usage: Json


class InputTokens(Schema):
    """The size of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


# What a response repeats of its request.
_REPEATED: Final = (
    "background",
    "frequency_penalty",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)


def repeated(wanted: ResponseIn) -> Json:
    """The fields that a response repeats of its request, as far as they were given. Raises ``InvalidInput``."""
    validate.metadata(wanted.metadata, "metadata", Limits())
    found = {name: value for name in _REPEATED if (value := getattr(wanted, name)) is not None}
    if "tools" in found:
        found["tools"] = [_repeated_tool(tool) for tool in found["tools"]]
    if "text" in found:
        found["text"] = {"format": {"type": "text"}, **found["text"]}
    if "reasoning" in found:
        found["reasoning"] = {"effort": None, "summary": None, **found["reasoning"]}
    return found


def _repeated_tool(tool: Json) -> Json:
    if tool.get("type") == FILE_SEARCH:
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}


def inputs(value: str | list[Json] | None, most: int = _MOST_INPUTS) -> list[Json]:
    """The input as items, at most so many. Raises ``InvalidInput``."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if len(value) > most:
        whole = "" if most == _MOST_INPUTS else f" at once where they are stored; with store=false {_MOST_INPUTS:,}"
        raise InvalidInput("input", f"{len(value):,} items, but at most {most:,} are allowed{whole}")
    return value


def conversation_of(wanted: Inputs) -> str | None:
    """The conversation that the request names. Raises ``InvalidInput``."""
    named = wanted.conversation
    if isinstance(named, Mapping):
        named = named.get("id")
        if not isinstance(named, str):
            raise InvalidInput("conversation.id", "must be a string")
    if named is not None and wanted.previous_response_id is not None:
        raise InvalidInput(
            "previous_response_id",
            "'conversation' and 'previous_response_id' exclude each other: a response that is in a conversation "
            "leads on to the next one by itself",
        )
    return named


def choose_model(models: Mapping[str, ChatModel], default: ChatModel, name: str | None) -> ChatModel:
    """The model of that name; the default one without a name, or where no model is set up: that says so itself.

    Raises ``UnknownModel``.
    """
    if name is None or not models:
        return default
    if name not in models:
        raise UnknownModel(name)
    return models[name]


# --- for the model --------------------------------------------------------------------------------------------------


def options_of(wanted: Inputs, defaults: Options) -> Options:
    """How to generate, as chat completions have it. Raises ``InvalidInput`` for what a model cannot be asked."""
    extra: Json = dict(defaults.extra)
    tools = tuple(
        _tool(tool, f"tools[{i}]") for i, tool in enumerate(wanted.tools or ()) if tool.get("type") != FILE_SEARCH
    )
    if tools:
        if wanted.tool_choice is not None:
            extra["tool_choice"] = _tool_choice(wanted.tool_choice)
        if wanted.parallel_tool_calls is not None:
            extra["parallel_tool_calls"] = wanted.parallel_tool_calls
    elif wanted.tool_choice not in (None, "auto", "none") and not wanted.tools:
        raise InvalidInput("tool_choice", "was given without tools")
    extra |= _text(wanted.text or {})
    if (effort := (wanted.reasoning or {}).get("effort")) is not None:
        extra["reasoning_effort"] = effort
    changed: Json = {"tools": tools, "extra": extra}
    if isinstance(wanted, ResponseIn):
        if wanted.top_logprobs:
            raise Unsupported("top_logprobs")
        if _LOGPROBS in (wanted.include or ()):
            raise Unsupported("include")
        for name, ours in (("max_output_tokens", "max_tokens"), ("temperature", "temperature"), ("top_p", "top_p")):
            if (value := getattr(wanted, name)) is not None:
                changed[ours] = value
        for name in ("frequency_penalty", "presence_penalty"):
            if (value := getattr(wanted, name)) is not None:
                extra[name] = value
    return msgspec.structs.replace(defaults, **changed)


def _tool(tool: Json, field: str) -> Json:
    kind = tool.get("type")
    if kind != "function":
        text = f"{kind!r:.100} is not available here; tools of the types 'function' and '{FILE_SEARCH}' are"
        raise InvalidInput(f"{field}.type", text)
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise InvalidInput(f"{field}.name", "must be a string that is not empty")
    wanted = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in wanted if tool.get(key) is not None}}


def _tool_choice(choice: str | Json) -> str | Json:
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise InvalidInput("tool_choice", "must be 'auto', 'none', 'required' or an object")
        return choice
    if choice.get("type") == FILE_SEARCH:  # documents are always searched
        return "auto"
    if choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    if choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
        allowed = [tool for tool in choice["tools"] if isinstance(tool, dict) and tool.get("type") != FILE_SEARCH]
        if not allowed:  # of functions none
            return "none"
        named = [{"type": "function", "function": {"name": tool.get("name")}} for tool in allowed]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode", "auto"), "tools": named}}
    raise InvalidInput("tool_choice", "must name a function: {'type': 'function', 'name': …}")


def _text(text: Json) -> Json:
    """``text.format`` and ``text.verbosity``."""
    found: Json = {}
    if unknown := text.keys() - {"format", "verbosity"}:
        raise unknown_parameter(f"text.{min(unknown)}")
    if text.get("verbosity") is not None:
        found["verbosity"] = text["verbosity"]
    wanted = text.get("format") or {"type": "text"}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        found["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        if not isinstance(wanted.get("name"), str) or not isinstance(wanted.get("schema"), dict):
            raise InvalidInput("text.format", "needs a 'name' and a 'schema'")
        keys = ("name", "description", "schema", "strict")
        schema = {key: wanted[key] for key in keys if wanted.get(key) is not None}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif kind != "text":
        raise InvalidInput("text.format.type", "must be one of 'text', 'json_schema', 'json_object'")
    return found


def unknown_parameter(name: str) -> ValidationError:
    """The refusal of a parameter that nobody knows."""
    return ValidationError([{"type": "extra_forbidden", "loc": ("body", *name.split(".")), "msg": ""}])
