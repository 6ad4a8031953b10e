"""The recent messages that go to the model, in groups that must not be parted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from daram.model import Message
from daram.text.tokens import UNSENT

Group = tuple[Message, ...]
"""Messages that go to the model together or not at all: one message, or tool calls with all their results."""

_STEP: Final = 100
"""At most so many messages are taken for one step of calls."""


def groups(messages: Sequence[Message]) -> list[Group]:
    """The messages, oldest first, as groups.

    Left out: failed and empty answers; results whose call is not there; calls of which a result is missing (endpoints
    refuse a prompt with either), of which the words beside them stay. Answers that were cut or cancelled stay: the user
    saw them. Calls that stand one behind the other, each in a message of its own, are calls of one message.
    """
    found: list[Group] = []
    index = 0
    while index < len(messages):
        message = messages[index]
        index += 1
        if message.role == "tool" or _says_nothing(message):
            continue
        if not _open_calls(message):
            found.append((message,))
            continue
        joined, behind = _with_calls_beside(messages, index - 1)
        results, left, end = _results(messages, behind, _open_calls(joined))
        if left and behind > index:  # they were not one step; each is looked at by itself
            joined = message
            results, left, end = _results(messages, index, _open_calls(message))
        index = end
        if not left:
            found.append((joined, *results))
        elif message.text.strip():
            found.append((_without_calls(message),))
    return found


def _with_calls_beside(messages: Sequence[Message], start: int) -> tuple[Message, int]:
    """The calls at ``start`` and those that follow at once, as one message, and where they end.

    Some doors keep each call of one step as a message of its own; endpoints want the calls of a step in one message.
    """
    joined = messages[start]
    index = end = start + 1
    while index < min(len(messages), start + _STEP) and messages[index].role == "assistant":
        message = messages[index]
        index += 1
        if _open_calls(message) and message.status != "failed":
            said = [text for text in (joined.text, message.text) if text.strip()]
            joined = msgspec.structs.replace(joined, text="\n".join(said), parts=joined.parts + message.parts)
            end = index
        elif message.text.strip():  # words end a step, a thought between two calls does not
            break
    return joined, end


def _results(messages: Sequence[Message], index: int, waiting: list[str]) -> tuple[list[Message], list[str], int]:
    """The results from ``index`` on, the calls that none of them answers, and where they end."""
    results: list[Message] = []
    while index < len(messages) and messages[index].role == "tool":
        answered = _answered_by(messages[index], waiting)
        if answered:
            results.append(messages[index])
            waiting = [call for call in waiting if call not in answered]
        index += 1
    return results, waiting, index


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


def _says_nothing(message: Message) -> bool:
    """Whether a model would be told nothing by it: a search of files, say, whose findings stand in the answer to it."""
    if message.status == "failed":
        return True
    return not message.text.strip() and all(part.type in UNSENT for part in message.parts)


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
