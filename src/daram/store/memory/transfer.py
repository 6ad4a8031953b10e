"""Reading and writing conversations as a whole, in the in-memory engine."""

from __future__ import annotations

import builtins
import json
from abc import abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from daram import ids
from daram.codec import from_micros
from daram.model import Conversation, LogEntry, OwnedRecord
from daram.store import conflicts
from daram.store.memory.thread import Thread, own
from daram.store.primitives import Ref
from daram.store.transfer import HIDDEN, Chunk, TransferEngine, load_was_lost

if TYPE_CHECKING:
    from daram.store.memory.engine import MemoryData

_HIDDEN = from_micros(HIDDEN)


class MemoryTransfer(TransferEngine):
    """The part of ``MemoryStore`` that moves conversations."""

    data: MemoryData

    @abstractmethod
    def _find(self, key: bytes) -> Thread | None: ...

    @abstractmethod
    def _thread(self, ref: Ref) -> Thread: ...

    @abstractmethod
    def _expired(self, end: datetime | None) -> bool: ...

    async def _scan(self, limit: int, after: bytes | None) -> tuple[builtins.list[Conversation], bytes | None]:
        keys = sorted(k for k in self.data.threads if (after is None or k > after) and self._find(k) is not None)
        page = [own(self.data.threads[key].value) for key in keys[:limit]]
        return page, keys[limit - 1] if len(keys) > limit else None

    async def _log(self, ref: Ref, after: int, limit: int) -> builtins.list[LogEntry]:
        thread = self._thread(ref)
        seqs = {m.id: m.seq for m in thread.messages.values()}
        found = []
        for m in list(thread.messages.values())[after : after + limit]:  # seq has no gaps
            question = thread.question_of.get(m.id)
            found.append(
                LogEntry(
                    message=own(m),
                    parent=0 if m.parent is None else seqs[m.parent],
                    question=None if question in (None, m.parent) else seqs[question],
                    deleted=m.id in thread.deleted,
                )
            )
        return found

    async def _leaves(self, ref: Ref) -> builtins.list[int]:
        thread = self._thread(ref)
        inner = {m.parent for m in thread.messages.values()}
        ends = [m for m in thread.messages.values() if m.id not in inner]
        return [m.seq for m in sorted(ends, key=lambda m: (thread.used[m.id], m.seq), reverse=True)]

    async def _load(self, ref: Ref, chunk: Chunk) -> Conversation:
        if chunk.first:
            seen = self._find(ref.key)
            have = None if seen is None else seen.value.etag
            if have != chunk.expect:
                raise conflicts.not_as_loaded(ref.id, have, chunk.expect)
            thread = Thread(chunk.conversation)
        else:
            stored = self.data.threads.get(ref.key)
            if (
                stored is None
                or (stored.value.etag, stored.value.expires_at) != (chunk.expect, _HIDDEN)
                or stored.value.last_seq != chunk.entries[0].message.seq - 1
            ):
                raise load_was_lost(ref.id)
            thread = stored
        names = list(thread.messages)
        taken = set(names)
        for entry in chunk.entries:
            if entry.message.id in taken:
                raise conflicts.id_is_taken(entry.message.id)
            taken.add(entry.message.id)
            names.append(entry.message.id)
        for entry in chunk.entries:
            m = entry.message
            parent = names[entry.parent - 1] if entry.parent else None
            thread.messages[m.id] = own(msgspec.structs.replace(m, parent=parent))
            thread.used[m.id] = 0
            if entry.deleted:
                thread.deleted.add(m.id)
            if entry.question is not None:
                thread.question_of[m.id] = names[entry.question - 1]
        for used, seq in enumerate(reversed(chunk.leaves), 1):
            thread.used[names[seq - 1]] = used
        thread.value = own(
            msgspec.structs.replace(
                chunk.conversation,
                etag=ids.etag(),
                last_seq=chunk.last,
                head=names[chunk.leaves[0] - 1] if chunk.leaves else None,
                expires_at=_HIDDEN if chunk.more else chunk.conversation.expires_at,
            )
        )
        self.data.threads[ref.key] = thread
        if not chunk.more:
            self.data.tombstones.pop(ref.key, None)
        return own(thread.value)

    async def _scan_all_records(
        self, limit: int, after: bytes | None
    ) -> tuple[builtins.list[OwnedRecord], bytes | None]:
        place = ("", "", "") if after is None else tuple(json.loads(after))
        names = sorted(n for n, r in self.data.records.items() if n > place and not self._expired(r.expires_at))
        page = [OwnedRecord(owner=name[0], record=self.data.records[name]) for name in names[:limit]]
        return page, json.dumps(names[limit - 1]).encode() if len(names) > limit else None
