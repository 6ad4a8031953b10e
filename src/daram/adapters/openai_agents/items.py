"""Items of the SDK as messages of the house, and back; what may be shown of them without the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from daram.errors import InvalidInput
from daram.ids import message_id
from daram.model import Message, Part, Role
from daram.store.jsonpart import json_of, json_part
from daram.text.clean import clean_text

Item = dict[str, Any]

EXACT: Final = "openai_item"
"""The type of the part that holds an item as the SDK gave it."""

WITHOUT_TEXT: Final = "openai_item_without_text"
"""The same, but for the text of its one piece of content, which is that of the message."""

_OUTPUT: Final = "_output"
_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}


def to_message(item: Item) -> Message:
    """An item as the message that holds it. Raises ``InvalidInput``."""
    if not isinstance(item, dict):
        raise InvalidInput("items", f"must be dicts, not {type(item).__name__}")
    said, role = item.get("content"), _ROLES.get(str(item.get("role")), "user")
    if isinstance(said, str) and said and item == {"role": role, "content": _text(said)}:
        return Message(id=message_id(), role=role, text=said)  # of which ``_items`` makes the same again
    kind = str(item.get("type") or "message")
    shown: list[Part] = []
    if kind == "message" or "role" in item:
        text = _text(said)
    elif kind == "function_call":
        role, text = "assistant", ""
        call = {name: clean_text(str(item.get(name) or "")) for name in ("call_id", "name", "arguments")}
        shown.append(Part(type="tool_call", data=call))
    elif kind.endswith(_OUTPUT):
        role, text = "tool", _text(item.get("output"))
        call_id = clean_text(str(item.get("call_id") or ""))
        shown.append(Part(type="tool_result", data={"call_id": call_id, "output": text}))
    else:
        role, text = "assistant", ""
    return Message(id=message_id(), role=role, text=text, parts=(_exact(item, text), *shown))


def _exact(item: Item, text: str) -> Part:
    match item.get("content"):
        case [{"text": str(said)} as piece] if said and said == text:
            return json_part(WITHOUT_TEXT, {**item, "content": [{**piece, "text": ""}]}, "items")
    return json_part(EXACT, item, "items")


def _text(content: object) -> str:
    if isinstance(content, str):
        text = content
    elif isinstance(content, list):
        pieces = [piece.get("text") or piece.get("refusal") for piece in content if isinstance(piece, dict)]
        text = "".join(piece for piece in pieces if isinstance(piece, str))
    else:
        text = "" if content is None else json.dumps(content, ensure_ascii=False, default=str)
    return clean_text(text)


def items_of(message: Message) -> list[Item]:
    """The items that a message is, of this door or of another."""
    for part in message.parts:
        if part.type == EXACT:
            return [json_of(part)]
        if part.type == WITHOUT_TEXT:
            item = json_of(part)
            (piece,) = item["content"]
            return [{**item, "content": [{**piece, "text": message.text}]}]
    if message.role == "tool":
        results = [part.data for part in message.parts if part.type == "tool_result"]
        return [
            {
                "type": "function_call_output",
                "call_id": str(result.get("call_id", "")),
                "output": result.get("output") if isinstance(result.get("output"), str) else message.text,
            }
            for result in results
        ]
    items: list[Item] = []
    if message.text:
        items.append({"role": message.role, "content": message.text})
    items += [
        {
            "type": "function_call",
            **{name: str(part.data.get(name) or "") for name in ("call_id", "name", "arguments")},
        }
        for part in message.parts
        if part.type == "tool_call"
    ]
    return items


def is_shown(message: Message) -> bool:
    """Whether the items of a message say what it says. One that says nothing is shown by none."""
    if any(part.type in (EXACT, WITHOUT_TEXT) for part in message.parts):
        return True
    if not items_of(message):
        return not message.text and not message.parts
    said = ("tool_result",) if message.role == "tool" else ("tool_call", "citation", "reasoning")
    return all(part.type in said for part in message.parts)


def without_last(message: Message) -> Message:
    """The same, but for its last call or output, as a new message."""
    kind = "tool_result" if message.role == "tool" else "tool_call"
    last = max(n for n, part in enumerate(message.parts) if part.type == kind)
    parts = message.parts[:last] + message.parts[last + 1 :]
    return replace(message, id=message_id(), parts=parts, seq=0, parent=None)


def flat(messages: Sequence[Message]) -> list[Item]:
    """The items of these messages."""
    return [item for message in messages for item in items_of(message)]


def first_turn(messages: Sequence[Message]) -> int:
    """The first message of a user behind which no output has its call in front."""
    for at, message in enumerate(messages):
        if message.role == "user" and _is_whole(flat(messages[at:])):
            return at
    return len(messages)


def _is_whole(items: Sequence[Item]) -> bool:
    called = {item["call_id"] for item in items if _is_call(item)}
    return all(item.get("call_id") in called for item in items if str(item.get("type") or "").endswith(_OUTPUT))


def may_be_parted(front: Sequence[Item], items: Sequence[Item]) -> bool:
    """Whether one answer of the model may be parted where ``front`` ends."""
    return bool(front) and _is_made(front[-1]) and _is_made(items[0])


def without_orphans(front: Sequence[Item], items: Sequence[Item]) -> list[Item]:
    """What can be shown of items behind others, of which ``front`` are the last."""
    rest = list(items)
    for item in reversed(front):
        if item.get("type") == "reasoning":
            # What came of that reasoning is refused without it.
            while rest and _is_made(rest[0]):
                rest.pop(0)
        elif _is_made(item):
            continue
        break
    called: set[object] = set()
    found: list[Item] = []
    for item in rest:
        if _is_call(item):
            called.add(item["call_id"])
        if not str(item.get("type") or "").endswith(_OUTPUT) or item.get("call_id") in called:
            found.append(item)
    return found


def _is_call(item: Item) -> bool:
    return "call_id" in item and not str(item.get("type") or "").endswith(_OUTPUT)


def _is_made(item: Item) -> bool:
    """Whether it came of a reasoning, if there was one: what the model said or called, at the endpoint too."""
    return item.get("role") == "assistant" or _is_call(item) or str(item.get("type") or "").endswith("_call")
