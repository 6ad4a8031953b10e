"""Responses as the API shows them: their ids, and the object that an answer and the request for it make.

The id of a response holds the ids of its answer and of its conversation, so that it is found without a search:
``resp_`` + 32 digits of the conversation + 32 digits of the answer, or, where the conversation's id is not one that
Daram drew, ``resp_`` + the digits of the answer + ``_`` + the conversation's id in base64url. What a request asked for
(its instructions, tools, metadata) lies as a part of the question, in the same transaction, and is deleted with it.
"""

from __future__ import annotations

import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from daram import ids
from daram.chat.running import failure
from daram.model import Message, Part
from daram.service.openai_api.items import Item, items_of

REQUEST: Final = "request"
"""The type of the part of a question that keeps what was asked for."""
FILE_SEARCH: Final = "file_search"
"""The type of the tool that answers from vector stores."""
RESULTS: Final = "file_search_call.results"
"""What ``include`` asks for to be shown what a search of files found."""

_DIGITS: Final = re.compile(r"[0-9a-f]{32}")
_DRAWN: Final = re.compile(r"resp_([0-9a-f]{32})([0-9a-f]{32})")
_NAMED: Final = re.compile(r"resp_([0-9a-f]{32})_([A-Za-z0-9_-]{1,2048})")
_STATUS: Final = {"complete": "completed", "incomplete": "incomplete", "cancelled": "cancelled", "failed": "failed"}
_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ERROR_CODES: Final = {"model_rate_limited": "rate_limit_exceeded", "context_overflow": "invalid_prompt"}

DEFAULTS: Final[Mapping[str, Any]] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "auto",
    "user": None,
}
"""What a response says of its request where that said nothing."""


# --- ids ------------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a response is: its conversation and the id of its answer."""

    conversation: str
    answer: str


def response_id(conversation: str, answer: str) -> str | None:
    """The id of the response that an answer is; None for a message whose id no turn has drawn."""
    digits = answer.removeprefix("msg_")
    if not _DIGITS.fullmatch(digits):
        return None
    drawn = conversation.removeprefix("conv_")
    if drawn != conversation and _DIGITS.fullmatch(drawn):
        return f"resp_{drawn}{digits}"
    return f"resp_{digits}_{urlsafe_b64encode(conversation.encode()).decode().rstrip('=')}"


def place_of(id: str) -> Place | None:
    """Where the response of that id is; None where it cannot be the id of a response."""
    if found := _DRAWN.fullmatch(id):
        return Place(f"conv_{found[1]}", f"msg_{found[2]}")
    if found := _NAMED.fullmatch(id):
        try:
            conversation = urlsafe_b64decode(found[2] + "=" * (-len(found[2]) % 4)).decode()
        except ValueError:
            return None
        place = Place(conversation, f"msg_{found[1]}")
        return place if response_id(*place) == id else None  # one response has one id
    return None


def question_id(answer: str) -> str:
    """The id that the question of a new response gets: its answer's id with the last bit turned."""
    return f"msg_{int(answer.removeprefix('msg_'), 16) ^ 1:032x}"


# --- the object -----------------------------------------------------------------------------------------------------


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A response as far as it is known when it begins: what all its objects have in common.

    ``request``: the fields of the request that were given; ``created_at`` in seconds since 1970; ``conversation``: its
    conversation, if the request named it; ``asked``: the words of its question; ``results``: whether what a search of
    files found is to be shown.
    """

    id: str
    model: str
    created_at: int
    request: dict[str, Any]
    conversation: str | None = None
    asked: str = ""
    results: bool = False

    def search(self, answer: str, message: Message | None, *, status: str = "completed") -> Item | None:
        """The item that stands in front of an answer from documents; None of another one."""
        tools = self.request.get("tools", ())
        if not searches(self.request.get("tool_choice")) or not any(tool.get("type") == FILE_SEARCH for tool in tools):
            return None
        return search_item(answer, self.asked, message if self.results else None, status)

    def running(self, status: str = "in_progress") -> Item:
        """The object while the answer is being made."""
        return self._object(status)

    def ended(self, message: Message) -> Item:
        """The object of a stored answer."""
        shown = self._object(_STATUS[message.status])
        shown["model"] = message.model or self.model
        searched = self.search(message.id, message)
        shown["output"] = [*([] if searched is None else [searched]), *output_of(message)]
        shown["usage"] = _usage(message)
        if message.status == "complete":
            shown["completed_at"] = seconds(message.created_at)
        # Of an answer that a crash or the end of the server cut there are no details: OpenAI has no word for it.
        if message.status == "incomplete" and (reason := _REASONS.get(message.metadata.get("finish", ""))):
            shown["incomplete_details"] = {"reason": reason}
        if (error := failure(message)) is not None:
            shown["error"] = _error(message.metadata.get("error", error.code), str(error))
        return shown

    def broken(self, code: str, text: str, output: list[Item]) -> Item:
        """The object of an answer that could not be stored."""
        return self._object("failed") | {"error": _error(code, text), "output": output}

    def _object(self, status: str) -> Item:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [],
            "usage": None,
            "conversation": None if self.conversation is None else {"id": self.conversation},
            **DEFAULTS,
            **self.request,
        }


def view_of(
    place: Place,
    question: Message | None,
    *,
    model: str | None,
    created_at: datetime | None,
    include: Sequence[str] | None = None,
) -> View:
    """The view of a response that is stored or being made."""
    kept = request_of(question)
    return View(
        id=response_id(*place) or place.answer,
        model=kept.get("model") or model or "",
        created_at=seconds((question and question.created_at) or created_at),
        request=dict(kept.get("given", {})),
        conversation=place.conversation if kept.get("named", True) else None,
        asked="" if question is None else question.text,
        results=RESULTS in (include or ()),
    )


def searches(choice: str | Mapping[str, Any] | None) -> bool:
    """Whether the choice of a tool lets files be searched: not where there is to be no tool, or another one."""
    if not isinstance(choice, Mapping):
        return choice != "none"
    if choice.get("type") != "allowed_tools":
        return choice.get("type") == FILE_SEARCH
    allowed = choice.get("tools")
    return isinstance(allowed, list) and any(
        isinstance(tool, Mapping) and tool.get("type") == FILE_SEARCH for tool in allowed
    )


def request_of(question: Message | None) -> dict[str, Any]:
    """What is kept of the request beside its question: ``given`` (its fields), ``model``, ``named`` (whether it named
    its conversation), ``inputs`` (how many messages it brought). Empty for a turn of another door.
    """
    parts = () if question is None else question.parts
    return next((part.data for part in parts if part.type == REQUEST), {})


def output_of(message: Message) -> list[Item]:
    """The output items of an answer: its words first, as they are streamed first."""
    if not message.text and not message.parts and message.status != "complete":
        return []  # it ended before it had said anything
    found = items_of(message)
    words = [_with_logprobs(item) for item in found if item["type"] == "message"]
    return words + [item for item in found if item["type"] != "message"]


def search_item(answer: str, asked: str, message: Message | None, status: str) -> Item:
    """The item of the search for an answer. ``results``: what the answer, once there is one, cites."""
    cited = () if message is None else (part.data for part in message.parts if part.type == "citation")
    results = [
        {
            "file_id": data.get("document", ""),
            "filename": data.get("name", ""),
            "score": data.get("score", 0.0),
            "text": data.get("quote", ""),
            "attributes": data.get("attributes", {}),
        }
        for data in cited
    ]
    return {
        "id": "fs_" + answer.removeprefix("msg_"),
        "type": "file_search_call",
        "status": status,
        "queries": [asked],
        "results": None if message is None else results,
    }


def _with_logprobs(item: Item) -> Item:
    """In a response every text has them, be there any or not."""
    content = [{"logprobs": [], **piece} if piece["type"] == "output_text" else piece for piece in item["content"]]
    return {**item, "content": content}


def new_place(conversation: str | None = None) -> Place:
    """The place of a response that is to be made; without a conversation in one of its own."""
    return Place(conversation or ids.conversation_id(), ids.message_id())


def with_request(question: Message, data: dict[str, Any]) -> Message:
    """The question with what is to be kept of its request."""
    return msgspec.structs.replace(question, parts=(*question.parts, Part(type=REQUEST, data=data)))


def seconds(moment: datetime | None) -> int:
    """A moment as the API has it; now for None."""
    return int(time.time() if moment is None else moment.timestamp())


def usage_object(given: int, made: int) -> Item:
    """Tokens of the prompt and of the answer, as the API shows them."""
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + made,
    }


def _usage(message: Message) -> Item | None:
    usage = message.usage
    if usage is None:
        return None
    return usage_object(usage.get("input_tokens", 0), usage.get("output_tokens", 0))


def _error(code: str, text: str) -> Item:
    return {"code": _ERROR_CODES.get(code, "server_error"), "message": text}
