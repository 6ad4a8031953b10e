"""How adapters put other messages in the place of the last ones: in one commit, and never over what others added."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from daram.errors import Conflict, InvalidInput, NotFound, OutcomeUnknown, StoreError, Unsupported
from daram.model import ROOT, LogEntry, Message
from daram.store.base import Store, SupportsRecords, SupportsTransfer

log = logging.getLogger(__name__)

_PAGE: Final = 200
_TRIES: Final = 5
_AT_ONCE: Final = 10
_BATCH: Final = 100
_WHOLE: Final = 1000  # what an engine takes in one call of ``load``
_REPLACED: Final = "adapters.replaced"


@dataclass(frozen=True)
class End:
    """The last messages of a conversation as they were read, the oldest first.

    ``before``: the message in front of them (None: they are all); ``etag``: the conversation's (None: there is none).
    """

    etag: str | None
    before: str | None
    messages: list[Message]

    def without(self, first: int) -> End:
        """The end behind the first few of these messages."""
        before = self.messages[first - 1].id if first else self.before
        return End(self.etag, before, self.messages[first:])


async def read_end(store: Store, owner: str, id: str, count: int | None) -> End:
    """The last ``count`` messages (None: all)."""
    found: list[Message] = []
    cursor = None
    try:
        etag = (await store.get(owner, id)).etag  # before the messages: whoever adds in between is noticed
        while True:
            room = _PAGE if count is None else min(_PAGE, count + 1 - len(found))
            page = await store.messages(owner, id, limit=room, cursor=cursor, order="desc")
            found += page.items
            cursor = page.next_cursor
            if cursor is None or (count is not None and len(found) > count):
                break
    except NotFound:
        return End(None, None, [])
    found.reverse()
    end = End(etag, None, found)
    return end if count is None or len(found) <= count else end.without(len(found) - count)


async def replace_end(store: Store, owner: str, id: str, end: End, messages: Sequence[Message]) -> bool:
    """Put ``messages`` in the place of ``end``; False where that is not the end any more: nothing was changed then.

    Whoever reads, or comes after a crash, finds all of the old messages or all of the new ones. The old ones are
    deleted. Raises ``InvalidInput`` for more than 100 messages (where they replace the whole conversation: 1,000).
    """
    if not messages:
        raise InvalidInput("messages", "must not be empty: clearing a conversation is another call")
    unknown = False
    for left in reversed(range(_TRIES)):
        try:
            if end.before is None and end.etag is not None:
                await _put_all(store, owner, id, end, messages)
            else:
                await _put_behind(store, owner, id, end, messages)
            return True
        except OutcomeUnknown:
            if not left:
                raise
            unknown = True
        except Conflict:
            pass
        except NotFound:
            return False
        if unknown and await _exists(store, owner, id, messages[0].id):
            await _drop(store, owner, id, [message.id for message in end.messages])
            return True
        # Something was changed, which need not be the end: a title, another branch.
        found = await read_end(store, owner, id, len(end.messages))
        if found.before != end.before or [m.id for m in found.messages] != [m.id for m in end.messages]:
            return False
        end = found
    return False


async def _put_all(store: Store, owner: str, id: str, end: End, messages: Sequence[Message]) -> None:
    if not isinstance(store, SupportsTransfer):
        await _put_behind(store, owner, id, end, messages)
        return
    if len(messages) > _WHOLE:
        raise InvalidInput("messages", f"are {len(messages):,}, but at most {_WHOLE:,} replace a conversation at once")
    found = await store.get(owner, id)
    now = max(datetime.now(UTC), found.updated_at)
    entries = [
        LogEntry(message=replace(message, seq=seq, created_at=message.created_at or now), parent=seq - 1)
        for seq, message in enumerate(messages, 1)
    ]
    changed = replace(found, version=found.version + 1, last_seq=len(entries), updated_at=now)
    try:
        await store.load(changed, entries, leaves=[len(entries)], expect=end.etag)
    except Unsupported:
        await _put_behind(store, owner, id, end, messages)


async def _put_behind(store: Store, owner: str, id: str, end: End, messages: Sequence[Message]) -> None:
    """As another branch, which is the one in use with that very commit."""
    if len(messages) > _BATCH:
        raise InvalidInput("messages", f"are {len(messages):,}, but at most {_BATCH} replace an end at once")
    gone = [message.id for message in end.messages]
    records = store if gone and isinstance(store, SupportsRecords) else None
    record = None
    if records is not None:
        # For whoever comes after a crash: what is replaced by then is to be deleted.
        await _finish(store, records, owner, id)
        note = json.dumps({"by": messages[0].id, "gone": gone}).encode()
        record = await records.put_record(owner, _REPLACED, id, note)
    new = end.etag is None  # then behind what somebody else may have begun meanwhile
    parent = None if new else end.before or ROOT
    await store.append(owner, id, messages, parent=parent, expect=end.etag, create=new)
    if await _drop(store, owner, id, gone) and records is not None and record is not None:
        with suppress(Conflict, StoreError):
            await records.delete_record(owner, _REPLACED, id, expect=record.etag)


async def _finish(store: Store, records: SupportsRecords, owner: str, id: str) -> None:
    record = await records.get_record(owner, _REPLACED, id)
    if record is None:
        return
    note = json.loads(record.value)
    if await _exists(store, owner, id, note["by"]):
        await _drop(store, owner, id, note["gone"])
    with suppress(Conflict):
        await records.delete_record(owner, _REPLACED, id, expect=record.etag)


async def _drop(store: Store, owner: str, id: str, gone: Sequence[str]) -> bool:
    """Delete what was replaced; returns whether all of it is gone. What replaced it is there whatever comes of this."""

    async def drop(message: str) -> None:
        with suppress(NotFound):
            await store.delete_message(owner, id, message)

    try:
        for start in range(0, len(gone), _AT_ONCE):
            await asyncio.gather(*(drop(message) for message in gone[start : start + _AT_ONCE]))
    except StoreError as error:
        log.warning("messages that were replaced are still stored; the next replacing deletes them: %s", error)
        return False
    return True


async def _exists(store: Store, owner: str, id: str, message: str) -> bool:
    try:
        await store.message(owner, id, message)
    except NotFound:
        return False
    return True
