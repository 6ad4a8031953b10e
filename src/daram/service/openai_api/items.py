"""Messages <-> items: what is stored, in the shapes of OpenAI's Conversations and Responses API.

An item that a client puts in becomes one message with the item's id; nothing of it is lost on the way out. An answer
that Daram made is one message and may be several items: its reasoning, its words, its tool calls.

How an item lies in a message: its words are the ``text``; images and files, tool calls and results and reasoning are
the parts that every door knows. What those cannot say is kept in parts of this door's own, which others step over:

* ``span``: a piece of the text that is not simply all of it (``start``, ``end`` in characters, ``type``, ``more``);
* ``content``: a piece of content of a type unknown here, as it came;
* ``item``: what else the item had (``role``, ``status``, ``more``), or, of an unknown type, all of it (``whole``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from daram import ids
from daram.errors import InvalidInput
from daram.model import Message, Part, Role

Item = dict[str, Any]

_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",  # the newer word for it; kept in the ``item`` part
}
_STATUSES: Final = ("completed", "incomplete", "in_progress")
_PREFIXES: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
# Pieces of content that are words, and the field that holds them.
_WORDS: Final = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
_IMAGE: Final = {"image_url": "url", "file_id": "file_id", "detail": "detail"}
_FILE: Final = {"filename": "name", "file_url": "url", "file_id": "file_id", "file_data": "data"}
_ID: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_NO_ID: Final = "__fake_id__"
"""What the Agents SDK writes where a model gave no id: on every such item of a conversation."""
_DERIVED: Final = re.compile(r"(?:fc|fco|rs)_\d{1,6}_(.+)", re.DOTALL)


# --- ids ------------------------------------------------------------------------------------------------------------


def part_id(kind: str, message_id: str, index: int) -> str:
    """The id of the item that the part ``index`` of a message is: it names the message, so that it is found at once.

    ``kind``: ``function_call``, ``function_call_output`` or ``reasoning``.
    """
    return f"{_PREFIXES[kind]}_{index}_{message_id}"


def message_ids(item_id: str) -> list[str]:
    """The ids of the messages that an item may be in, the likelier first."""
    derived = _DERIVED.fullmatch(item_id)
    return [item_id] if derived is None else [item_id, derived[1]]


# --- items to messages ----------------------------------------------------------------------------------------------


def _drawn(prefix: str) -> str:
    return f"{prefix}_{ids.uuid7()}"


def message_of(value: object, field: str = "item", draw: Callable[[str], str] = _drawn) -> Message:
    """The message that keeps an item; ``draw`` gives it an id with a prefix, where it has none.

    Raises ``InvalidInput`` that names the field (``items[0].content[1].text``).
    """
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"must be an object, not {_type(value)}")
    # A null says no more than a field that is not there; the SDKs write many.
    item = {key: content for key, content in value.items() if content is not None}
    kind = item.pop("type", "message" if "role" in item else None)
    if not isinstance(kind, str) or not kind:
        raise InvalidInput(f"{field}.type", "is missing" if kind is None else "must be a string that is not empty")
    if kind == "item_reference":
        raise InvalidInput(f"{field}.type", "'item_reference' can only be used in the input of a response")
    id = item.pop("id", None)
    if id in (None, _NO_ID):
        id = draw(_PREFIXES.get(kind, "item"))
    elif not isinstance(id, str):
        raise InvalidInput(f"{field}.id", f"must be a string, not {_type(id)}")
    elif not _ID.fullmatch(id):  # it stands in paths of URLs
        raise InvalidInput(f"{field}.id", f"may have letters, digits, '_' and '-' only, not {id!r:.40}")
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(id, item, field)
    return Message(id=id, role="assistant", parts=(Part(type="item", data={"whole": {"type": kind, **item}}),))


def messages_of(values: Sequence[object], field: str = "items", draw: Callable[[str], str] = _drawn) -> list[Message]:
    """The messages that keep the items, in their order."""
    return [message_of(value, f"{field}[{i}]", draw) for i, value in enumerate(values)]


def _message(id: str, item: Item, field: str) -> Message:
    role = item.pop("role", None)
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidInput(f"{field}.role", f"must be one of {', '.join(_ROLES)}, not {role!r:.40}")
    content = item.pop("content", None)
    if isinstance(content, str):
        content = [{"type": _words_of(_ROLES[role]), "text": content}]
    elif not isinstance(content, list):
        raise InvalidInput(f"{field}.content", f"must be a string or an array, not {_type(content)}")
    text, parts = _content(content, _ROLES[role], f"{field}.content")
    status = _status(item, field)
    rest: Item = {"role": role} if _ROLES[role] != role else {}
    if not text and not parts:
        rest["empty"] = True  # a user's message must say something; this one says that it says nothing
    kept = _rest(item, rest, status)
    return Message(id=id, role=_ROLES[role], text=text, parts=(*kept, *parts), status=_stored(status))


def _content(content: Sequence[object], role: Role, field: str) -> tuple[str, list[Part]]:
    """The text of all pieces, and the parts that say how it and what is no text make the content."""
    texts: list[str] = []
    parts: list[Part] = []
    length = 0
    for i, piece in enumerate(content):
        where = f"{field}[{i}]"
        if not isinstance(piece, dict):
            raise InvalidInput(where, f"must be an object, not {_type(piece)}")
        kind = piece.get("type")
        if not isinstance(kind, str) or not kind:
            raise InvalidInput(f"{where}.type", "must be a string that is not empty")
        more = {key: value for key, value in piece.items() if key != "type" and value is not None}
        if kind in _WORDS:
            text = more.pop(_WORDS[kind], None)
            if not isinstance(text, str):
                raise InvalidInput(f"{where}.{_WORDS[kind]}", f"must be a string, not {_type(text)}")
            _check_lists(more, where)
            if kind == "output_text" and more.get("annotations") == []:
                del more["annotations"]  # it has them always
            start = length + 1 if texts else 0
            length = start + len(text)
            texts.append(text)
            parts.append(Part(type="span", data={"start": start, "end": length, "type": kind, "more": more}))
        elif kind in ("input_image", "input_file"):
            parts.append(_attachment(kind, more, where))
        else:
            parts.append(Part(type="content", data=piece))
    plain = {"start": 0, "end": length, "type": _words_of(role), "more": {}}
    if length and len(texts) == 1 and parts[0].type == "span" and parts[0].data == plain:
        del parts[0]  # the common case: all of the text, in front of everything
    return "\n".join(texts), parts


def _check_lists(piece: Item, field: str) -> None:
    for name in ("annotations", "logprobs"):
        found = piece.get(name, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise InvalidInput(f"{field}.{name}", "must be an array of objects")


def _attachment(kind: str, piece: Item, field: str) -> Part:
    names = _IMAGE if kind == "input_image" else _FILE
    data: Item = {}
    for name, ours in names.items():
        if (value := piece.pop(name, None)) is not None:
            if not isinstance(value, str):
                raise InvalidInput(f"{field}.{name}", f"must be a string, not {_type(value)}")
            data[ours] = value
    if not data.keys() & {"url", "file_id", "data"}:
        sources = [name for name in names if name not in ("detail", "filename")]
        raise InvalidInput(field, f"needs one of {', '.join(sources)}")
    if piece:
        data["more"] = piece
    return Part(type=kind.removeprefix("input_"), data=data)


def _function_call(id: str, item: Item, field: str) -> Message:
    data = {name: _string(item, name, field) for name in ("call_id", "name", "arguments")}
    status = _status(item, field)
    parts = (Part(type="tool_call", id=id, data=data), *_rest(item, {}, status))
    return Message(id=id, role="assistant", parts=parts, status=_stored(status))


def _function_call_output(id: str, item: Item, field: str) -> Message:
    call_id = _string(item, "call_id", field)
    output = item.pop("output", None)
    if isinstance(output, str):
        text = output
    elif isinstance(output, list) and all(isinstance(piece, dict) for piece in output):
        text = "\n".join(piece["text"] for piece in output if isinstance(piece.get("text"), str))
    else:
        raise InvalidInput(f"{field}.output", f"must be a string or an array of objects, not {_type(output)}")
    status = _status(item, field)
    result = Part(type="tool_result", id=id, data={"call_id": call_id, "output": output})
    return Message(id=id, role="tool", text=text, parts=(result, *_rest(item, {}, status)), status=_stored(status))


def _reasoning(id: str, item: Item, field: str) -> Message:
    said: list[str] = []
    for name in ("summary", "content"):
        pieces = item.get(name, [])
        if not isinstance(pieces, list) or not all(isinstance(piece, dict) for piece in pieces):
            raise InvalidInput(f"{field}.{name}", "must be an array of objects")
        said += [piece["text"] for piece in pieces if isinstance(piece.get("text"), str)]
    data = {"text": "\n".join(said), "item": item}
    return Message(id=id, role="assistant", parts=(Part(type="reasoning", id=id, data=data),))


_READERS: Final[dict[str, Callable[[str, Item, str], Message]]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
}


def _status(item: Item, field: str) -> str | None:
    status: object = item.pop("status", None)
    if status is not None and status not in _STATUSES:
        raise InvalidInput(f"{field}.status", f"must be one of {', '.join(_STATUSES)}, not {status!r:.40}")
    return str(status) if status is not None else None


def _stored(status: str | None) -> Any:
    return "complete" if status in (None, "completed") else "incomplete"


def _rest(item: Item, rest: Item, status: str | None) -> list[Part]:
    """The ``item`` part, where there is something to keep in it."""
    if status == "in_progress":
        rest["status"] = status
    if item:
        rest["more"] = item
    return [Part(type="item", data=rest)] if rest else []


def _string(item: Item, name: str, field: str) -> str:
    value = item.pop(name, None)
    if not isinstance(value, str):
        raise InvalidInput(
            f"{field}.{name}", "is missing" if value is None else f"must be a string, not {_type(value)}"
        )
    return value


def _type(value: object) -> str:
    """What a JSON value is, in the words of JSON."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "a boolean"
    for kinds, name in (((int, float), "a number"), (str, "a string"), (list, "an array"), (dict, "an object")):
        if isinstance(value, kinds):
            return name
    return type(value).__name__


def _words_of(role: Role) -> str:
    return "output_text" if role == "assistant" else "input_text"


# --- messages to items ----------------------------------------------------------------------------------------------


def items_of(message: Message) -> list[Item]:
    """The items that a message is, in their order: what a client put in as it was, shorthands written out."""
    rest = next((part.data for part in message.parts if part.type == "item"), {})
    if "whole" in rest:
        return [{"id": message.id, **rest["whole"]}]
    found = [item for i, part in enumerate(message.parts) if (item := _part_item(message, i, part, rest))]
    if message.role in ("user", "system") or (message.role == "tool" and not found):
        return [_message_item(message, rest)]
    if message.role == "assistant" and (not found or message.text):
        reasoning = [item for item in found if item["type"] == "reasoning"]
        others = [item for item in found if item["type"] != "reasoning"]
        return [*reasoning, _message_item(message, rest), *others]
    return found


def item_of(message: Message, item_id: str) -> Item | None:
    """The item of that id in a message, or None."""
    return next((item for item in items_of(message) if item["id"] == item_id), None)


def text_item(id: str, text: str, *, status: str = "completed", annotations: Sequence[Item] = ()) -> Item:
    """An answer's words as an item, for who makes them piece by piece."""
    content = [{"type": "output_text", "text": text, "annotations": [*annotations]}]
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def _part_item(message: Message, index: int, part: Part, rest: Item) -> Item | None:
    """The item that a part is by itself, or None."""
    data = part.data
    status = rest.get("status", _shown(message))
    if part.type == "tool_call":
        kind = "function_call"
        item = {
            "status": status,
            "call_id": data.get("call_id", ""),
            "name": data.get("name", ""),
            "arguments": data.get("arguments", "{}"),
        }
    elif part.type == "tool_result":
        kind = "function_call_output"
        item = {"status": status, "call_id": data.get("call_id", ""), "output": data.get("output", "")}
    elif part.type == "reasoning":
        kind = "reasoning"
        item = {"summary": []}
        item |= (
            data["item"] if "item" in data else {"content": [{"type": "reasoning_text", "text": data.get("text", "")}]}
        )
        return {"id": part.id or part_id(kind, message.id, index), "type": kind, **item}
    else:
        return None
    return {"id": part.id or part_id(kind, message.id, index), "type": kind, **item, **rest.get("more", {})}


def _message_item(message: Message, rest: Item) -> Item:
    item = {
        "id": message.id,
        "type": "message",
        "status": rest.get("status", _shown(message)),
        "role": rest.get("role", message.role),
        "content": [] if rest.get("empty") else _pieces(message),
    }
    return {**item, **rest.get("more", {})}


def _pieces(message: Message) -> list[Item]:
    pieces: list[Item] = []
    for part in message.parts:
        if part.type == "span":
            pieces.append(_span(message.text, part.data))
        elif part.type == "content":
            pieces.append(part.data)
        elif part.type in ("image", "file"):
            pieces.append(_attached(part))
    if not any(part.type == "span" for part in message.parts) and (message.text or not pieces):
        text: Item = {"type": _words_of(message.role), "text": message.text}
        if message.role == "assistant":
            text["annotations"] = [_annotation(part.data) for part in message.parts if part.type == "citation"]
        pieces.insert(0, text)
    return pieces


def _span(text: str, data: Item) -> Item:
    kind = data.get("type", "input_text")
    piece = {"type": kind, _WORDS.get(kind, "text"): text[data.get("start", 0) : data.get("end", len(text))]}
    return {**piece, **({"annotations": []} if kind == "output_text" else {}), **data.get("more", {})}


def _attached(part: Part) -> Item:
    data = part.data
    piece: Item = {"type": f"input_{part.type}"}
    if part.type == "image":
        piece["detail"] = data.get("detail", "auto")
    for name, ours in (_IMAGE if part.type == "image" else _FILE).items():
        if ours in data:
            piece[name] = data[ours]
    # The other doors keep bytes in base64 beside their type.
    if "data" in data and (part.type == "image" or "media_type" in data):
        kind = data.get("media_type", "image/png")
        piece["image_url" if part.type == "image" else "file_data"] = f"data:{kind};base64,{data['data']}"
    return {**piece, **data.get("more", {})}


def _annotation(data: Item) -> Item:
    if isinstance(data.get("type"), str):
        return data
    return {"type": "file_citation", "file_id": "", "filename": "", "index": 0} | data


def _shown(message: Message) -> str:
    return "completed" if message.status == "complete" else "incomplete"
