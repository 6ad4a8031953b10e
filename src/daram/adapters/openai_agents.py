"""Sessions of the OpenAI Agents SDK on a Daram store: a session is a conversation, an item is a message.

::

    session = DaramSession(memory, "alice", "holiday")
    result = await Runner.run(agent, "Where did I want to go?", session=session)
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec.structs import replace

from daram.adapters.versions import require
from daram.errors import Conflict, InvalidInput, NotFound, Unsupported

require("the adapter for the OpenAI Agents SDK", "agents", "openai-agents", "agents", oldest="0.20", below="1")

from agents.memory import SessionSettings
from agents.memory import session as sessions
from agents.memory.session import SessionABC
from agents.memory.session_settings import coerce_session_settings, resolve_session_limit

from daram import sync
from daram.adapters.appending import append_all, clear, outcome
from daram.adapters.replacing import End, read_end, replace_end
from daram.ids import message_id
from daram.model import Message, Part, Role
from daram.store.base import Store
from daram.store.jsonpart import json_of, json_part
from daram.text.clean import clean_text

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

__all__ = ["DaramSession"]

log = logging.getLogger(__name__)

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

_SNAPSHOT: Final[Any] = getattr(sessions, "_CompactionSnapshot", None)
"""How the SDK puts what its runs compact into the session; none before 0.23."""

_FIELDS: Final = ("items", "complete", "replace_suffix")

_shown: ContextVar[list[tuple[object, End]]] = ContextVar("shown")
"""What a compaction that is going on was shown, of which session; empty once it was used (by a task of the SDK's)."""


class DaramSession(SessionABC):
    """A session that is the conversation ``conversation_id`` of ``owner`` in ``memory``.

    Items come back as they were; what other doors said comes as messages and function calls. Each batch is kept in one
    piece, beside what another run adds at the same time, and is durable on return, also where the caller is cancelled
    meanwhile. What ``get_items(limit)`` gives never begins with an output whose call, or a call whose reasoning, is in
    front of it. It can be what an ``OpenAIResponsesCompactionSession`` wraps, which replaces what it was shown, nothing
    else, and in one piece (releases of the SDK before 0.24 clear the session and add to it again). By hand this raises
    ``Conflict`` where others were faster, ``InvalidInput`` for more than 100 items, ``Unsupported`` where a session
    around it reads for the compaction.

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
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self._store: Store = memory.inner if isinstance(memory, sync.Memory) else memory
        self._owner = owner
        self.session_id = conversation_id
        self.session_settings = None if session_settings is None else coerce_session_settings(session_settings)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The last ``limit`` items (None: as the settings say, else all), the oldest first."""
        limit = resolve_session_limit(limit, self.session_settings)
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
        """Remove the last item and return it; None where there is none. Two callers never get the same one.

        What is no item stays. Of a message that is several items the others stay, which raises ``Conflict`` while an
        answer is being made, and ``Unsupported`` where a message that is no item is behind it.
        """
        return cast("TResponseInputItem | None", await outcome(self._pop()))

    async def clear_session(self) -> None:
        """Remove all items; the conversation goes on, empty."""
        await clear(self._store, self._owner, self.session_id)

    # --- what the SDK's compaction looks for ---

    async def _read_compaction_items(self, limit: int | None) -> tuple[list[TResponseInputItem], bool]:
        """What may be compacted, and whether that is all: of a window its whole turns."""
        if type(self) is not DaramSession:  # whose items may be others outside
            items = await self.get_items(limit)
            return items, limit is not None and len(items) < limit
        limit = resolve_session_limit(limit, self.session_settings)
        end = await self._end(None if limit is None else max(limit, 0))
        if end.before is not None:
            end = end.without(_first_turn(end.messages))
        _shown.set([(self, end)])
        return cast("list[TResponseInputItem]", _flat(end.messages)), end.before is None

    async def _get_compaction_snapshot(self, limit: int, **_: object) -> Any:
        """The last items with a way to replace some of them, as ``SQLiteSession`` gives them."""
        # A release in which this is another thing gets none: it compacts where it is shown everything.
        if type(self) is not DaramSession or _SNAPSHOT is None:
            return None
        if tuple(field.name for field in dataclasses.fields(_SNAPSHOT)) != _FIELDS:
            return None
        end = await self._end(limit)
        begins: list[int | None] = []  # for each item, the message that begins with it
        for at, message in enumerate(end.messages):
            begins += [at, *(None for _ in _items(message)[1:])][: len(_items(message))]

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            first = begins[start] if 0 < start < len(begins) else 0 if start == 0 else None
            if first is None:
                return False
            try:
                return await self._replace(end.without(first), output)
            except InvalidInput as error:
                log.warning("session %s is not compacted: %s", self.session_id, error)
                return False

        return _SNAPSHOT(_flat(end.messages), end.before is None, replace_suffix)

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Put these items in the place of those that the compaction was shown, or raise ``Conflict``."""
        if type(self) is not DaramSession:
            return False
        shown = _shown.get([])
        if not shown or shown[0][0] is not self:
            raise Unsupported(
                f"session {self.session_id!r} was read by a session around it, so what a compaction by hand was shown "
                "is not known; nothing was replaced: let its runs compact it"
            )
        _, end = shown.pop()
        if not end.messages:
            raise Conflict(
                f"session {self.session_id!r} has nothing to compact, or its limit shows no whole turn, so that its "
                "summary would be there beside what it sums up; nothing was changed: give it a larger limit, or none"
            )
        if not await self._replace(end, items):
            # False would have the SDK clear the session.
            raise Conflict(
                f"session {self.session_id!r} was changed while it was compacted, or an answer is being made in it; "
                "nothing was replaced: compact it once more"
            )
        return True

    async def _replace(self, end: End, items: Sequence[TResponseInputItem]) -> bool:
        made = [_to_message(cast("Item", item)) for item in items]

        async def work() -> bool:
            if await self._answers():
                return False  # it belongs behind its question
            return await replace_end(self._store, self._owner, self.session_id, end, made)

        return await outcome(work())

    async def _end(self, count: int | None) -> End:
        """The last messages, behind those that hold what no item shows: that is in no summary, so it stays."""
        end = await read_end(self._store, self._owner, self.session_id, count)
        return end.without(max((n for n, message in enumerate(end.messages, 1) if not _is_shown(message)), default=0))

    # --- reading ---

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
            last, behind = await self._last()
            if last is None:
                return None
            items = _items(last)
            if len(items) == 1:
                try:
                    await self._store.delete_message(self._owner, self.session_id, last.id)
                except NotFound:  # another run was faster
                    continue
                return items[0]
            # Of another door, whose messages may say several things: the others stay.
            if behind:
                raise Unsupported(
                    f"the last item of session {self.session_id!r} is one of several of message {last.id!r}, and a "
                    "message that is no item is behind it; delete that one first"
                )
            end = await read_end(self._store, self._owner, self.session_id, 1)
            if [message.id for message in end.messages] != [last.id]:
                continue
            if await self._answers():
                raise Conflict(f"an answer is being made in session {self.session_id!r}; nothing was popped")
            if await replace_end(self._store, self._owner, self.session_id, end, [_without_last(last)]):
                return items[-1]

    async def _last(self) -> tuple[Message | None, bool]:
        """The last message that is an item, and whether others are behind it."""
        cursor, behind = None, False
        while True:
            try:
                page = await self._store.messages(
                    self._owner, self.session_id, limit=_PAGE if behind else 1, cursor=cursor, order="desc"
                )
            except NotFound:
                return None, behind
            for message in page.items:
                if _items(message):
                    return message, behind
                behind = True
            cursor = page.next_cursor
            if cursor is None:
                return None, behind

    async def _answers(self) -> bool:
        try:
            return bool(await self._store.answers(self._owner, self.session_id))
        except NotFound:
            return False


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


def _is_shown(message: Message) -> bool:
    """Whether the items of a message say what it says. One that says nothing is shown by none."""
    if any(part.type in (EXACT, WITHOUT_TEXT) for part in message.parts):
        return True
    if not _items(message):
        return not message.text and not message.parts
    said = ("tool_result",) if message.role == "tool" else ("tool_call", "citation", "reasoning")
    return all(part.type in said for part in message.parts)


def _without_last(message: Message) -> Message:
    """The same, but for its last call or output, as a new message."""
    kind = "tool_result" if message.role == "tool" else "tool_call"
    last = max(n for n, part in enumerate(message.parts) if part.type == kind)
    parts = message.parts[:last] + message.parts[last + 1 :]
    return replace(message, id=message_id(), parts=parts, seq=0, parent=None)


def _flat(messages: Sequence[Message]) -> list[Item]:
    return [item for message in messages for item in _items(message)]


def _first_turn(messages: Sequence[Message]) -> int:
    """The first message of a user behind which no output has its call in front."""
    for at, message in enumerate(messages):
        if message.role == "user" and _is_whole(_flat(messages[at:])):
            return at
    return len(messages)


def _is_whole(items: Sequence[Item]) -> bool:
    called = {item["call_id"] for item in items if _is_call(item)}
    return all(item.get("call_id") in called for item in items if str(item.get("type") or "").endswith(_OUTPUT))


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
