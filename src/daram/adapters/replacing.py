"""How adapters put other messages in the place of the last ones: in one commit, and never over what others added."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from daram.errors import Conflict, InvalidInput, NotFound, OutcomeUnknown, StoreError
from daram.model import ROOT, Message, Record
from daram.store.base import Store, SupportsRecords, SupportsTransfer
from daram.store.paging import items, newest

log = logging.getLogger(__name__)

_TRIES: Final = 5
_AT_ONCE: Final = 10
_BATCH: Final = 100
_REPLACED: Final = "adapters.replaced"


@dataclass(frozen=True)
class End:
    """The last messages of a conversation as they were read, the oldest first.

    ``before``: the message in front of them (None: they are all); ``etag`` and ``last_seq``: the conversation's.
    """

    etag: str
    last_seq: int
    before: str | None
    messages: list[Message]

    def without(self, first: int) -> End:
        """The end behind the first few of these messages."""
        before = self.messages[first - 1].id if first else self.before
        return End(self.etag, self.last_seq, before, self.messages[first:])


async def read_end(store: Store, owner: str, id: str, count: int | None) -> End:
    """The last ``count`` messages (None: all)."""
    most = None if count is None else count + 1
    try:
        there = await store.get(owner, id)  # before the messages: whoever adds in between is noticed
        found = await newest(store, owner, id, most)
    except NotFound:
        return End("", 0, None, [])
    found.reverse()
    end = End(there.etag, there.last_seq, None, found)
    return end.without(1) if len(found) == most else end


async def replace_end(store: Store, owner: str, id: str, end: End, messages: Sequence[Message]) -> bool:
    """Put ``messages`` in the place of ``end``; False where that is not the end any more: nothing was changed then.

    Whoever reads, or comes after a crash, finds all of the old messages or all of the new ones. The old ones are
    deleted; what is on other branches only, and what is known of deleted messages, stays. Raises ``InvalidInput`` for
    more than 100 messages, and where there are no new or no old ones.
    """
    if not messages or not end.messages:
        raise InvalidInput("messages", "must not be empty: adding and clearing are other calls")
    if len(messages) > _BATCH:
        raise InvalidInput("messages", f"are {len(messages):,}, but at most {_BATCH} replace others at once")
    unknown = False
    for left in reversed(range(_TRIES)):
        try:
            await _put(store, owner, id, end, messages)
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


async def _put(store: Store, owner: str, id: str, end: End, messages: Sequence[Message]) -> None:
    """As another branch, which is the one in use with that very commit."""
    gone = [message.id for message in end.messages]
    record = None
    if isinstance(store, SupportsRecords) and isinstance(store, SupportsTransfer):
        # For whoever comes after a crash: what is replaced by then is to be deleted.
        await _finish(store, store, store, owner, id)
        note = json.dumps({"by": messages[0].id, "etag": end.etag, "last_seq": end.last_seq, "gone": gone}).encode()
        record = await store.put_record(owner, _REPLACED, f"{id}/{messages[0].id}", note)
    await store.append(owner, id, messages, parent=end.before or ROOT, expect=end.etag)
    if await _drop(store, owner, id, gone) and record is not None:
        await _forget(store, owner, record)


async def _finish(store: Store, records: SupportsRecords, logs: SupportsTransfer, owner: str, id: str) -> None:
    """Delete what earlier ones replaced and, killed or cut off, left stored."""
    async for record in items(lambda cursor: records.scan_records(owner, _REPLACED, f"{id}/", cursor=cursor)):
        if record.key.rpartition("/")[0] != id:
            continue  # of a conversation whose id begins like this one
        note = json.loads(record.value)
        # In this order: what is not there behind a change that it did not expect will never be.
        etag = (await store.get(owner, id)).etag
        first = await logs.log(owner, id, after=note["last_seq"], limit=1)
        if first and first[0].message.id == note["by"]:  # deleted since or not
            if not await _drop(store, owner, id, note["gone"]):
                continue
        elif etag == note["etag"]:
            continue  # somebody is about to
        await _forget(store, owner, record)


async def _forget(store: Store, owner: str, record: Record) -> None:
    if isinstance(store, SupportsRecords):
        with suppress(Conflict, StoreError):
            await store.delete_record(owner, _REPLACED, record.key, expect=record.etag)


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
