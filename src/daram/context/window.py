"""The recent messages that go to the model, in groups that must not be parted."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from daram.model import Message

Group = tuple[Message, ...]
"""Messages that go to the model together or not at all: one message, or tool calls with all their results."""


def groups(messages: Sequence[Message]) -> list[Group]:
    """The messages, oldest first, as groups.

    Left out: failed and empty answers; results whose call is not there; calls of which a result is missing (endpoints
    refuse a prompt with either), of which the words beside them stay. Answers that were cut or cancelled stay: the user
    saw them. Calls that stand one behind the other, each in a message of its own, are calls of one message.
    """
    messages = _together(messages)
    found: list[Group] = []
    index = 0
    while index < len(messages):
        message = messages[index]
        index += 1
        if message.role == "tool" or _says_nothing(message):
            continue
        waiting = _open_calls(message)
        if not waiting:
            found.append((message,))
            continue
        results: list[Message] = []
        while index < len(messages) and messages[index].role == "tool":
            answered = _answered_by(messages[index], waiting)
            if answered:
                results.append(messages[index])
                waiting = waiting[:]
                for call in answered:
                    waiting.remove(call)
            index += 1
        if not waiting:
            found.append((message, *results))
        elif message.text.strip():
            found.append((_without_calls(message),))
    return found


def window(messages: Sequence[Message], limit: int) -> list[Message]:
    """At most the last ``limit`` messages (at least 1), in whole groups; oldest first.

    A last group of more than ``limit`` messages is given whole.
    """
    kept: list[Group] = []
    room = limit
    for group in reversed(groups(messages)):
        if kept and len(group) > room:
            break
        kept.append(group)
        room -= len(group)
    return [message for group in reversed(kept) for message in group]


def _together(messages: Sequence[Message]) -> list[Message]:
    """With the messages that are nothing but calls joined to the call before them."""
    found: list[Message] = []
    for message in messages:
        if found and _is_call(message) and not message.text and _is_call(found[-1]):
            found[-1] = msgspec.structs.replace(found[-1], parts=(*found[-1].parts, *message.parts))
        else:
            found.append(message)
    return found


def _is_call(message: Message) -> bool:
    return message.role == "assistant" and bool(_open_calls(message)) and message.status != "failed"


def _says_nothing(message: Message) -> bool:
    return message.status == "failed" or not (message.text.strip() or message.parts)


def _open_calls(message: Message) -> list[str]:
    """The calls of a message that it does not answer itself, by ``call_id``."""
    own = {_call_id(part.data) for part in message.parts if part.type == "tool_result"}
    calls = [_call_id(part.data) for part in message.parts if part.type == "tool_call"]
    return [call for call in dict.fromkeys(calls) if call not in own]


def _answered_by(message: Message, waiting: list[str]) -> list[str]:
    """The waiting calls that a tool message answers; one that names no call answers the first."""
    named = [_call_id(part.data) for part in message.parts if part.type == "tool_result"]
    if not named:
        return waiting[:1]
    return [call for call in waiting if call in named]


def _call_id(data: dict[str, object]) -> str:
    return str(data.get("call_id", ""))


def _without_calls(message: Message) -> Message:
    parts = tuple(part for part in message.parts if part.type not in ("tool_call", "tool_result"))
    return msgspec.structs.replace(message, parts=parts)
