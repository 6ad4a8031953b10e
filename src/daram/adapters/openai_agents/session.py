"""The session: what the SDK's loop and its compaction ask of it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from agents.memory import SessionSettings
from agents.memory import session as sessions
from agents.memory.session import SessionABC
from agents.memory.session_settings import coerce_session_settings, resolve_session_limit

from daram import sync
from daram.adapters.appending import append_all, clear, outcome
from daram.adapters.openai_agents.items import (
    Item,
    first_turn,
    flat,
    is_shown,
    items_of,
    may_be_parted,
    to_message,
    without_last,
    without_orphans,
)
from daram.adapters.replacing import End, read_end, replace_end
from daram.errors import Conflict, InvalidInput, NotFound, Unsupported
from daram.model import Message
from daram.store.base import Store
from daram.store.paging import newest

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

__all__ = ["DaramSession"]

log = logging.getLogger(__name__)

_PAGE: Final = 200
_ANSWER: Final = 100
"""How many items in front of a window are looked at for the reasoning that its first ones came of."""

_SNAPSHOT: Final[Any] = getattr(sessions, "_CompactionSnapshot", None)
"""How the SDK puts what its runs compact into the session; none before 0.23."""

_FIELDS: Final = ("items", "complete", "replace_suffix")

_shown: ContextVar[list[tuple[object, End]]] = ContextVar("shown")
"""What a compaction that is going on was shown, of which session; empty once it was used (by a task of the SDK's)."""


class DaramSession(SessionABC):
    """A session that is the conversation ``conversation_id`` of ``owner`` in ``memory``.

    Items come back as they were; what other doors said comes as messages and function calls. What is added is kept in
    one piece (more than 100 items: each hundred), beside what another run adds at the same time, and is durable on
    return, also where the caller is cancelled meanwhile. What ``get_items(limit)`` gives never begins with an output
    whose call, or a call whose reasoning, is in front of it. It can be what an ``OpenAIResponsesCompactionSession``
    wraps, which replaces what it was shown, nothing else, and in one piece (releases of the SDK before 0.24 clear the
    session and add to it again). By hand this raises ``Conflict`` where others were faster, ``InvalidInput`` for more
    than 100 items, ``Unsupported`` where a session around it reads for the compaction.

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
        front, items = await self._read(limit, 1)
        if may_be_parted(front, items):
            front, items = await self._read(limit, _ANSWER)
        if front:
            items = without_orphans(front, items)
        return cast("list[TResponseInputItem]", items)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items behind what is there."""
        messages = [to_message(cast("Item", item)) for item in items]
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
            end = end.without(first_turn(end.messages))
        _shown.set([(self, end)])
        return cast("list[TResponseInputItem]", flat(end.messages)), end.before is None

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
            begins += [at, *(None for _ in items_of(message)[1:])][: len(items_of(message))]

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            first = begins[start] if 0 < start < len(begins) else 0 if start == 0 else None
            if first is None:
                return False
            try:
                return await self._replace(end.without(first), output)
            except InvalidInput as error:
                log.warning("session %s is not compacted: %s", self.session_id, error)
                return False

        return _SNAPSHOT(flat(end.messages), end.before is None, replace_suffix)

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
        made = [to_message(cast("Item", item)) for item in items]

        async def work() -> bool:
            if await self._answers():
                return False  # it belongs behind its question
            return await replace_end(self._store, self._owner, self.session_id, end, made)

        return await outcome(work())

    async def _end(self, count: int | None) -> End:
        """The last messages, behind those that hold what no item shows: that is in no summary, so it stays."""
        end = await read_end(self._store, self._owner, self.session_id, count)
        return end.without(max((n for n, message in enumerate(end.messages, 1) if not is_shown(message)), default=0))

    # --- reading ---

    async def _read(self, limit: int | None, beyond: int) -> tuple[list[Item], list[Item]]:
        """At least so many of the items in front of the last ``limit`` (None: all), and these."""
        found: list[Item] = []

        def take(message: Message) -> int:
            said = items_of(message)
            found.extend(reversed(said))
            return len(said)

        try:
            await newest(self._store, self._owner, self.session_id, None if limit is None else limit + beyond, take)
        except NotFound:
            pass
        found.reverse()
        cut = 0 if limit is None else max(len(found) - limit, 0)
        return found[:cut], found[cut:]

    async def _pop(self) -> Item | None:
        while True:
            last, behind = await self._last()
            if last is None:
                return None
            items = items_of(last)
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
            if await replace_end(self._store, self._owner, self.session_id, end, [without_last(last)]):
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
                if items_of(message):
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
