"""LangChain's messages and Daram's: the text where it can be read and searched, tools as parts, the rest beside it."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from langchain_core import messages as lc

from daram.errors import InvalidInput
from daram.ids import message_id
from daram.model import Message, Part, Role
from daram.store.jsonpart import json_of, json_part
from daram.text.clean import clean_text

EXACT: Final = "langchain"
"""The type of the part that holds what text and tool parts do not say of a LangChain message."""

_ROLES: Final[dict[str, Role]] = {
    "human": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
    "function": "tool",
    "FunctionMessageChunk": "tool",
}
_GENERIC: Final[dict[str, Role]] = {"user": "user", "human": "user", "assistant": "assistant", "system": "system"}
# Also what may come to life from what LangGraph threads have stored (``daram.adapters.langgraph.messages``).
MESSAGE_TYPES: Final[dict[str, type[lc.BaseMessage]]] = {
    cls.model_fields["type"].default: cls
    for cls in (
        lc.HumanMessage,
        lc.HumanMessageChunk,
        lc.AIMessage,
        lc.AIMessageChunk,
        lc.SystemMessage,
        lc.SystemMessageChunk,
        lc.ToolMessage,
        lc.ToolMessageChunk,
        lc.FunctionMessage,
        lc.FunctionMessageChunk,
        lc.ChatMessage,
        lc.ChatMessageChunk,
    )
}
_BYTES: Final = "$bytes"
_DICT: Final = "$dict"
_SHOWN_CHARS: Final = 200_000


def to_message(item: lc.BaseMessage, *, id: str | None = None, exact: bool = False) -> Message:
    """A LangChain message as a message of Daram; ``exact``: with all that it takes to make it again.

    Raises ``InvalidInput`` (exact only) for what is not JSON, bytes aside.
    """
    text = clean_text(str(item.text)) if item.content else ""
    parts = [_exact(item, text)] if exact else _shown(item)
    usage = getattr(item, "usage_metadata", None) or None
    counts = {k: v for k in ("input_tokens", "output_tokens") if usage and isinstance(v := usage.get(k), int)}
    if isinstance(item, lc.AIMessage):
        parts += [
            _tool_part("tool_call", call_id=call.get("id") or "", name=call["name"], arguments=_json(call["args"]))
            for call in item.tool_calls
        ]
    if isinstance(item, lc.ToolMessage):
        parts.append(_tool_part("tool_result", call_id=item.tool_call_id, output=text))
    model = item.response_metadata.get("model_name")
    return Message(
        id=message_id() if id is None else id,
        role=_role(item),
        text=text,
        parts=tuple(parts),
        model=model if isinstance(model, str) and 0 < len(model) <= 256 and model.isprintable() else None,
        usage=counts or None,
    )


def from_message(message: Message) -> lc.BaseMessage:
    """The LangChain message: exactly what it was if LangChain wrote it, else what another door's message says."""
    for part in message.parts:
        if part.type == EXACT:
            return _again(json_of(part), message.text)
    if message.role == "user":
        return lc.HumanMessage(_content(message), id=message.id)
    if message.role == "system":
        return lc.SystemMessage(message.text, id=message.id)
    if message.role == "tool":
        results = [part.data for part in message.parts if part.type == "tool_result"]
        call = str(results[0].get("call_id", "")) if results else ""
        return lc.ToolMessage(message.text or _as_text(results), tool_call_id=call, id=message.id)
    calls, invalid = [], []
    for part in message.parts:
        if part.type != "tool_call":
            continue
        name, given = str(part.data.get("name", "")), str(part.data.get("arguments") or "{}")
        call_id = str(part.data.get("call_id", "")) or part.id
        try:
            arguments = json.loads(given)
            if not isinstance(arguments, dict):
                raise ValueError(given)
            calls.append(lc.ToolCall(name=name, args=arguments, id=call_id, type="tool_call"))
        except ValueError:
            invalid.append(
                lc.InvalidToolCall(
                    name=name, args=given, id=call_id, error="not a JSON object", type="invalid_tool_call"
                )
            )
    return lc.AIMessage(message.text, id=message.id, tool_calls=calls, invalid_tool_calls=invalid)


def _tool_part(kind: str, **said: str) -> Part:
    return Part(type=kind, data={name: clean_text(text) for name, text in said.items()})


def _role(item: lc.BaseMessage) -> Role:
    if isinstance(item, lc.ChatMessage):
        return _GENERIC.get(item.role, "user")
    return _ROLES.get(item.type, "user")


def _shown(item: lc.BaseMessage) -> list[Part]:
    if isinstance(item.content, str):
        return []
    blocks = [block for block in item.content if isinstance(block, dict)]
    parts = []
    for block in blocks:
        kind = str(block.get("type", ""))
        if "image" in kind:
            parts.append(_shown_part("image", block))
        elif kind in ("file", "input_file", "audio", "video", "document"):
            parts.append(_shown_part("file", block))
        elif kind in ("reasoning", "thinking"):
            parts.append(_shown_part("reasoning", block))
    return parts


def _shown_part(kind: str, block: dict[Any, Any]) -> Part:
    text = _json(block)
    if len(text) > _SHOWN_CHARS:  # a photo in base64: the message that it is in must not be missing for it
        return Part(type=kind, data={"omitted": len(text)})
    return Part(type=kind, data=json.loads(clean_text(text), parse_constant=str))


def _content(message: Message) -> Any:
    seen = [part.data for part in message.parts if part.type in ("image", "file") and part.data.get("type")]
    return [{"type": "text", "text": message.text}, *seen] if seen else message.text


def _exact(item: lc.BaseMessage, text: str) -> Part:
    if type(item) is not MESSAGE_TYPES.get(item.type):
        raise InvalidInput("message", f"is a {type(item).__name__}; LangChain's own message classes are kept")
    fields = {
        name: value
        for name, value in item.__dict__.items()
        if not (value is None or (value in ({}, []) and name in _EMPTY) or (name == "content" and value == text))
    }
    data: dict[str, Any] = {"fields": fields}
    if item.__pydantic_extra__:
        data["extra"] = item.__pydantic_extra__
    return json_part(EXACT, _escaped(data), "message", default=_default)


_EMPTY: Final = frozenset({"additional_kwargs", "response_metadata", "tool_calls", "invalid_tool_calls"})


def _again(data: dict[str, Any], text: str) -> lc.BaseMessage:
    fields = _revived(data["fields"])
    cls = MESSAGE_TYPES[fields["type"]]
    return cls(**{"content": text, **fields, **_revived(data.get("extra", {}))})


def _default(value: object) -> object:
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _escaped(value: Any) -> Any:
    """With what looks like our bytes in it, but is not, wrapped: anything may be said in a message."""
    if isinstance(value, dict):
        inner = {name: _escaped(item) for name, item in value.items()}
        return {_DICT: inner} if value.keys() & {_BYTES, _DICT} else inner
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value


def _revived(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_BYTES}:
            return base64.b64decode(value[_BYTES])
        inner = value[_DICT] if value.keys() == {_DICT} else value
        return {name: _revived(item) for name, item in inner.items()}
    if isinstance(value, list):
        return [_revived(item) for item in value]
    return value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _as_text(results: list[dict[str, Any]]) -> str:
    output = results[0].get("output", "") if results else ""
    return output if isinstance(output, str) else _json(output)
