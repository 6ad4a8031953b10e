"""Sessions of the OpenAI Agents SDK on a Daram store: a session is a conversation, an item is a message.

::

    session = DaramSession(memory, "alice", "holiday")
    result = await Runner.run(agent, "Where did I want to go?", session=session)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from daram.adapters.versions import require
from daram.errors import InvalidInput, NotFound

require("the adapter for the OpenAI Agents SDK", "agents", "openai-agents", "agents", oldest="0.20", below="1")

from agents.memory import SessionSettings
from agents.memory.session import SessionABC

from daram import sync
from daram.adapters.appending import append_all, clear, outcome
from daram.ids import message_id
from daram.model import Message, Part, Role
from daram.store.base import Store
from daram.store.jsonpart import json_of, json_part
from daram.text.clean import clean_text

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

__all__ = ["DaramSession"]

Item = dict[str, Any]

EXACT: Final = "openai_item"
"""The type of the part that holds an item as the SDK gave it."""

WITHOUT_TEXT: Final = "openai_item_without_text"
"""The same, but for the text of its one piece of content, which is that of the message."""

_PAGE: Final = 200
_OUTPUT: Final = "_output"
_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}


class DaramSession(SessionABC):
    """A session that is the conversation ``conversation_id`` of ``owner`` in ``memory``.

    Items come back as they were; what other doors said comes as messages and function calls. Each batch is kept in one
    piece, beside what another run adds at the same time, and is durable on return, also where the caller is cancelled
    meanwhile. What ``get_items(limit)`` gives never begins with an output whose call, or a call whose reasoning, is in
    front of it. It can be what an ``OpenAIResponsesCompactionSession`` wraps.

    ``limit`` of ``session_settings``: how many items a run reads when it does not say; a session with a limit costs the
    same at any length. Raises ``InvalidInput`` for an item that is not JSON, ``Gone`` for 24 hours after another door
    deleted the conversation.
    """

    def __init__(
        self,
        memory: Store | sync.Memory,
        owner: str,
        conversation_id: str,
        *,
        session_settings: SessionSettings | None = None,
    ) -> None:
        self._store: Store = memory.inner if isinstance(memory, sync.Memory) else memory
        self._owner = owner
        self.session_id = conversation_id
        self.session_settings = session_settings

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The last ``limit`` items (None: as the settings say, else all), the oldest first."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None and limit <= 0:
            return []
        items, more = await self._read(limit)
        if more:
            items = _without_orphans(items)
        return cast("list[TResponseInputItem]", items)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items behind what is there."""
        messages = [_to_message(cast("Item", item)) for item in items]
        await append_all(self._store, self._owner, self.session_id, messages)

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the last item and return it; None where there is none. Two callers never get the same one."""
        return cast("TResponseInputItem | None", await outcome(self._pop()))

    async def clear_session(self) -> None:
        """Remove all items; the conversation goes on, empty."""
        await clear(self._store, self._owner, self.session_id)

    async def _read(self, limit: int | None) -> tuple[list[Item], bool]:
        """The items, and in front of them one more where there are more (then True)."""
        found: list[Item] = []
        cursor = None
        while True:
            room = _PAGE if limit is None else min(_PAGE, limit + 1 - len(found))
            try:
                page = await self._store.messages(self._owner, self.session_id, limit=room, cursor=cursor, order="desc")
            except NotFound:
                break
            for message in page.items:
                found += reversed(_items(message))
            cursor = page.next_cursor
            if cursor is None or (limit is not None and len(found) > limit):
                break
        found.reverse()
        if limit is not None and len(found) > limit:
            return found[len(found) - limit - 1 :], True
        return found, False

    async def _pop(self) -> Item | None:
        while True:
            try:
                tail = await self._store.tail(self._owner, self.session_id, 1)
                if not tail:
                    return None
                await self._store.delete_message(self._owner, self.session_id, tail[-1].id)
            except NotFound:
                # Another run was faster, or the conversation is not there, which the next look tells.
                try:
                    await self._store.get(self._owner, self.session_id)
                except NotFound:
                    return None
                continue
            items = _items(tail[-1])
            if len(items) > 1:  # of another door, whose messages may say several things
                said = [_to_message(item) for item in items[:-1]]
                await append_all(self._store, self._owner, self.session_id, said)
            if items:
                return items[-1]


def _to_message(item: Item) -> Message:
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


def _items(message: Message) -> list[Item]:
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


def _without_orphans(items: Sequence[Item]) -> list[Item]:
    """What can be shown of items whose first one is cut off."""
    first, rest = items[0], list(items[1:])
    if first.get("type") == "reasoning":
        # What came of that reasoning is refused without it.
        while rest and (_is_call(rest[0]) or rest[0].get("role") == "assistant"):
            rest.pop(0)
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
