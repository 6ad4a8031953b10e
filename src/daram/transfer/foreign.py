"""Histories that other programs kept: read from where they are, appended with ids that are the same the next time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from daram.errors import InvalidInput, NotFound
from daram.memory import Memory
from daram.model import Message, Part, Role
from daram.store.validate import Limits, message

_BATCH: Final = 100
_ROLES: Final[dict[str, Role]] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}
_PARTS: Final = {"image_url": "image", "image": "image", "input_image": "image"}


@dataclass
class History:
    """A conversation as another program kept it. ``problems``: what of it cannot be taken over."""

    session: str
    messages: list[Message] = field(default_factory=list)
    title: str | None = None
    owner: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


Histories = AsyncIterator[History]


@dataclass
class Added:
    """What an import found and added; ``new``: messages that were not there yet."""

    conversations: int = 0
    messages: int = 0
    new: int = 0
    problems: list[str] = field(default_factory=list)


async def add(store: Memory, histories: Histories, *, owner: str, session_is_owner: bool = False) -> Added:
    """Append what is not there yet. What was deleted in Daram since stays deleted.

    ``session_is_owner``: each session becomes the owner of its conversation.
    """
    added = Added()
    async for history in histories:
        whose = history.session if session_is_owner else history.owner or owner
        added.problems += [f"{history.session}: {problem}" for problem in history.problems]
        try:
            added.new += await _add_one(store, whose, history)
        except (InvalidInput, NotFound) as error:  # a name that cannot be one; a conversation that was deleted lately
            added.problems.append(f"{history.session}: {error}")
            continue
        added.conversations += 1
        added.messages += len(history.messages)
    return added


async def _add_one(store: Memory, owner: str, history: History) -> int:
    id = history.session
    known: set[str] = set()
    try:
        await store.get(owner, id)
        after = 0
        while page := await store.log(owner, id, after=after, limit=1000):
            known |= {entry.message.id for entry in page}
            after = page[-1].message.seq
    except NotFound:
        pass
    new = [m for m in history.messages if m.id not in known]
    for start in range(0, len(new), _BATCH):
        await store.append(owner, id, new[start : start + _BATCH], create=True)
    if new and not known and (history.title or history.metadata):
        await store.update(owner, id, title=history.title, metadata=history.metadata)
    return len(new)


class Naming:
    """Ids for messages that have none: the same for the same message at the same place, whatever came after it."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._seen: Counter[bytes] = Counter()

    def name(self, content: object) -> str:
        """``lc_`` and a digest of session, content, and how often it came before."""
        raw = json.dumps([self._session, content], sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
        digest = blake2b(raw, digest_size=12).digest()
        self._seen[digest] += 1
        return f"lc_{digest.hex()}_{self._seen[digest]}"


def collect(history: History, made: Message) -> None:
    """Add a message if it may be stored, else note why not."""
    try:
        history.messages.append(message(made, made.id, Limits()))
    except InvalidInput as error:
        history.problems.append(str(error))


def from_langchain(value: Any, id: str, created_at: datetime | None = None) -> Message:
    """A message of LangChain in its JSON form ``{"type": …, "data": {…}}``. Raises ``InvalidInput``."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
        raise InvalidInput(id, 'is not a message of LangChain: {"type": …, "data": {…}}')
    data: dict[str, Any] = value["data"]
    kind = str(value.get("type")).removesuffix("MessageChunk").lower()
    said = str(data.get("role", "")) if kind == "chat" else kind
    role = _ROLES.get(said.lower(), "user" if kind == "chat" else None)
    if role is None:
        raise InvalidInput(id, f"is of the type {kind!r}, which says nothing that could be kept")
    text, parts = _content(data.get("content"))
    parts += _calls(data)
    metadata = {}
    if said.lower() not in _ROLES:
        metadata["role"] = said
    for name, key in (("name", "name"), ("langchain_id", "id")):
        if isinstance(data.get(key), str) and data[key]:
            metadata[name] = data[key]
    if role == "tool":
        call = data.get("tool_call_id") or data.get("name")
        parts.append(Part(type="tool_result", data={"call_id": call, "output": text}))
        if data.get("status") not in (None, "success"):
            metadata["status"] = str(data["status"])
    rest = {k: v for k, v in (data.get("additional_kwargs") or {}).items() if k != "tool_calls" and v}
    if rest:
        parts.append(Part(type="additional_kwargs", data=rest))
    about = data.get("response_metadata") or {}
    model = about.get("model_name") or about.get("model")
    return Message(
        id=id,
        role=role,
        text=text,
        parts=tuple(parts),
        model=model if isinstance(model, str) else None,
        usage=_usage(data.get("usage_metadata")),
        metadata=metadata,
        created_at=created_at,
    )


def _content(content: Any) -> tuple[str, list[Part]]:
    if isinstance(content, str) or content is None:
        return content or "", []
    texts: list[str] = []
    parts: list[Part] = []
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict) and block.get("type") == "text":
            texts.append(str(block.get("text", "")))
        else:
            data = block if isinstance(block, dict) else {"value": block}
            kind = str(data.get("type", "block"))
            if kind not in ("tool_use", "tool_call"):  # these are in tool_calls too
                parts.append(Part(type=_PARTS.get(kind, kind), data=data))
    return "\n".join(texts), parts


def _calls(data: dict[str, Any]) -> list[Part]:
    """Tool calls: LangChain's own, those that could not be parsed, or (langchain-redis keeps only these) OpenAI's."""
    found = [
        {"call_id": call.get("id"), "name": call.get("name"), "arguments": _arguments(call.get("args"))}
        for call in [*(data.get("tool_calls") or []), *(data.get("invalid_tool_calls") or [])]
    ]
    if not found:
        for call in (data.get("additional_kwargs") or {}).get("tool_calls") or []:
            function = call.get("function") or {}
            arguments = _arguments(function.get("arguments"))
            found.append({"call_id": call.get("id"), "name": function.get("name"), "arguments": arguments})
    return [Part(type="tool_call", data=call) for call in found]


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps({} if value is None else value, ensure_ascii=False)


def _usage(value: Any) -> dict[str, int] | None:
    if not isinstance(value, dict):
        return None
    counts = {k: v for k, v in value.items() if k in ("input_tokens", "output_tokens") and isinstance(v, int)}
    return counts or None
