"""Messages as the steps that Chainlit shows, and what of a step a message has no place for."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import msgspec
from chainlit.config import config
from chainlit.step import StepDict
from chainlit.types import ThreadDict

from daram.model import Conversation, Message, Role
from daram.text.clean import clean_text

TYPES = {"user": "user_message", "assistant": "assistant_message", "system": "system_message", "tool": "tool"}
ROLES: dict[str, Role] = {"user_message": "user", "assistant_message": "assistant", "system_message": "system"}
_EXTRAS = (
    "autoCollapse",
    "command",
    "createdAt",
    "defaultOpen",
    "end",
    "generation",
    "icon",
    "isError",
    "language",
    "metadata",
    "modes",
    "name",
    "parentId",
    "showInput",
    "start",
    "tags",
    "type",
    "waitForAnswer",
)


def key(*parts: str) -> str:
    """A record's key of several ids, none of which can reach into the next; long ones by their digest."""
    return "/".join(_part(part) for part in parts)


def _part(part: str) -> str:
    quoted = quote(part, safe="")
    return quoted if len(quoted) <= 160 else "~" + blake2b(part.encode(), digest_size=20).hexdigest()


def dump(value: Any) -> bytes:
    """JSON; what JSON cannot say becomes text, half an emoji U+FFFD."""
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(value), enc_hook=lambda other: clean_text(str(other)))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {_clean(name): _clean(inner) for name, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list | tuple) else value


def load(data: bytes) -> dict[str, Any]:
    """The inverse of ``dump`` for an object."""
    return msgspec.json.decode(data, type=dict[str, Any])


def moment(value: datetime | None) -> str | None:
    """A time as Chainlit writes it."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def extras(step: StepDict) -> dict[str, Any]:
    """What of a step belongs beside its message: all but ids, text and what is empty anyway."""
    return {name: value for name in _EXTRAS if (value := step.get(name)) not in (None, "", False, {}, [])}


def from_message(thread: str, message: Message, note: str = "", beside: dict[str, Any] | None = None) -> StepDict:
    """A message as a step; ``note`` (Markdown) below its text, ``beside`` is what was kept with it (``extras``)."""
    at = moment(message.created_at)
    status = {} if message.status == "complete" else {"status": message.status}
    step: dict[str, Any] = {
        "id": message.id,
        "threadId": thread,
        "parentId": None,
        "name": config.ui.name if message.role == "assistant" else message.role,
        "type": TYPES[message.role],
        "input": "",
        "output": message.text,
        "createdAt": at,
        "start": at,
        "end": at,
        "streaming": False,
        "isError": message.status == "failed",
        "metadata": {},
    } | (beside or {})
    step["metadata"] = {**step["metadata"], **status}
    if note:
        step["output"] = f"{step['output']}\n\n{note}" if step["output"] else note
    return step  # type: ignore[return-value]  # a TypedDict of the keys above, put together


def run_of(thread: str, answer_id: str, start: str | None = None, *, ended: bool = True) -> StepDict:
    """The run that an answer belongs to: Chainlit hangs its copy and feedback buttons on it."""
    return {
        "id": run_id(answer_id),
        "threadId": thread,
        "parentId": None,
        "name": "on_message",
        "type": "run",
        "input": "",
        "output": "",
        "createdAt": start,
        "start": start,
        "end": start if ended else None,
        "streaming": False,
        "isError": False,
        "metadata": {},
    }


def run_id(answer_id: str) -> str:
    """The id of an answer's run."""
    return f"run-{answer_id}"


def thread_of(conversation: Conversation, user: str, name: str | None) -> ThreadDict:
    """A conversation as Chainlit lists it for a user."""
    return {
        "id": conversation.id,
        # Chainlit sorts and groups its list by this: what changed last comes first, as in the store.
        "createdAt": moment(conversation.updated_at) or "",
        "name": name,
        "userId": user,
        "userIdentifier": user,
        "tags": None,
        "metadata": {},
        "steps": [],
        "elements": [],
    }


def title_of(text: str | None) -> str | None:
    """The first line of what began a thread, cut to 100 characters; None where nothing was said."""
    line = next((line.strip() for line in clean_text(text or "").splitlines() if line.strip()), None)
    return line if line is None or len(line) <= 100 else line[:99] + "…"


def has_words(title: str, query: str) -> bool:
    """Whether every word of the query is in the title, in any case and width."""
    folded = _fold(title)
    return all(word in folded for word in _fold(query).split())


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
