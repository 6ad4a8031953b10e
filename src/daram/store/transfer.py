"""What engines that can be moved share: validation and paging of ``SupportsTransfer``. An engine fills in five methods.

They get clean values only, as those of ``daram.store.template`` do.
"""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import Sequence

import msgspec

from daram.codec import decode_cursor, encode_cursor
from daram.errors import Conflict, InvalidInput
from daram.model import Conversation, LogEntry, Message, OwnedRecord, Page
from daram.store import validate
from daram.store.primitives import Ref
from daram.store.records import RecordsEngine
from daram.store.validate import Limits

LOG_BYTES = 8 << 20
"""An engine ends a page of a log early where its texts and bodies are larger than this."""

HIDDEN = 1
"""``expires_at`` (µs since 1970) of a conversation that is being loaded: it has expired, so nobody sees it, and the
purge removes it where the load was given up."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A validated ``load``: ``first`` of its conversation, ``more`` to come. ``last``: the ``seq`` it ends at."""

    conversation: Conversation
    entries: list[LogEntry]
    leaves: list[int]
    expect: str | None
    more: bool
    first: bool

    @property
    def branches(self) -> bool:
        """Whether a message in it follows another than the one before it."""
        return any(entry.parent != entry.message.seq - 1 for entry in self.entries)

    @property
    def last(self) -> int:
        """The ``seq`` that it ends at."""
        return self.entries[-1].message.seq if self.entries else self.conversation.last_seq


class TransferEngine(RecordsEngine):
    """An ``Engine`` that ``SupportsRecords`` and ``SupportsTransfer``."""

    # --- what an engine fills in ---

    @abstractmethod
    async def _scan(self, limit: int, after: bytes | None) -> tuple[builtins.list[Conversation], bytes | None]:
        """About ``limit`` conversations behind the position ``after``, and the next position (None: that was all)."""

    @abstractmethod
    async def _log(self, ref: Ref, after: int, limit: int) -> builtins.list[LogEntry]:
        """As ``log``; of a deleted message only what names it (the rest is left out by the caller)."""

    @abstractmethod
    async def _leaves(self, ref: Ref) -> builtins.list[int]: ...

    @abstractmethod
    async def _load(self, ref: Ref, chunk: Chunk) -> Conversation:
        """In one transaction; see ``HIDDEN``. The tombstone of a deleted conversation goes with the last chunk."""

    @abstractmethod
    async def _scan_all_records(
        self, limit: int, after: bytes | None
    ) -> tuple[builtins.list[OwnedRecord], bytes | None]:
        """As ``_scan``."""

    # --- the public operations ---

    async def scan(self, *, limit: int = 100, cursor: str | None = None) -> Page[Conversation]:
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        after = None if cursor is None else bytes(decode_cursor(cursor, "scan", b"", bytes)[0])
        await self._open()
        found, position = await self._scan(limit, after)
        return Page(found, None if position is None else encode_cursor("scan", b"", position))

    async def log(self, owner: str, id: str, *, after: int = 0, limit: int = 100) -> builtins.list[LogEntry]:
        ref = self._ref(owner, id)
        after = validate.whole(after, "after", 0, 1 << 53)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        await self._open()
        return [_bare(entry) if entry.deleted else entry for entry in await self._log(ref, after, limit)]

    async def leaves(self, owner: str, id: str) -> builtins.list[int]:
        ref = self._ref(owner, id)
        await self._open()
        return await self._leaves(ref)

    async def load(
        self,
        conversation: Conversation,
        entries: Sequence[LogEntry],
        *,
        leaves: Sequence[int] = (),
        expect: str | None = None,
        more: bool = False,
    ) -> Conversation:
        ref = self._ref(conversation.owner, conversation.id)
        clean = checked_entries(entries, self.limits)
        first = not clean or clean[0].message.seq == 1
        if expect is not None:
            validate.name(expect, "expect", 64)
        chunk = Chunk(
            conversation=checked_conversation(conversation, self.limits),
            entries=clean,
            leaves=[validate.whole(seq, f"leaves[{i}]", 1, 1 << 53) for i, seq in enumerate(leaves)],
            expect=expect,
            more=validate.flag(more, "more"),
            first=first,
        )
        if not chunk.more:
            _check_whole(chunk)
        await self._open()
        return await self._load(ref, chunk)

    async def scan_all_records(self, *, limit: int = 100, cursor: str | None = None) -> Page[OwnedRecord]:
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        after = None if cursor is None else bytes(decode_cursor(cursor, "all records", b"", bytes)[0])
        await self._open()
        found, position = await self._scan_all_records(limit, after)
        return Page(found, None if position is None else encode_cursor("all records", b"", position))


def load_was_lost(id: str) -> Conflict:
    """A later chunk that does not follow what is stored."""
    return Conflict(
        f"conversation {id!r} is not as the chunk before left it: it was purged, or somebody else loads it too; "
        "begin again with its first message"
    )


def _bare(entry: LogEntry) -> LogEntry:
    m = entry.message
    message = Message(id=m.id, role=m.role, seq=m.seq, parent=m.parent, created_at=m.created_at)
    return LogEntry(message=message, parent=entry.parent, question=entry.question, deleted=True)


def checked_conversation(value: Conversation, limits: Limits) -> Conversation:
    """A conversation whose own fields may be stored; raises ``InvalidInput``."""
    created, updated = (validate.moment(getattr(value, name), name) for name in ("created_at", "updated_at"))
    if created is None or updated is None:
        raise InvalidInput("created_at, updated_at", "must be given")
    return msgspec.structs.replace(
        value,
        title=None if value.title is None else validate.text(value.title, "title", limits.title_chars, "characters"),
        metadata=validate.metadata(value.metadata, "metadata", limits),
        pinned=validate.flag(value.pinned, "pinned"),
        archived=validate.flag(value.archived, "archived"),
        version=validate.whole(value.version, "version", 0, 1 << 53),
        last_seq=validate.whole(value.last_seq, "last_seq", 0, 1 << 53),
        created_at=created,
        updated_at=updated,
        expires_at=validate.moment(value.expires_at, "expires_at"),
    )


def checked_entry(entry: LogEntry, field: str, limits: Limits) -> LogEntry:
    """An entry that may be stored; raises ``InvalidInput`` that names what is wrong with it."""
    given = entry.message
    seq = validate.whole(given.seq, f"{field}seq", 1, 1 << 53)
    if given.created_at is None:
        raise InvalidInput(f"{field}created_at", "must be given")
    validate.whole(entry.parent, f"{field}parent", 0, seq - 1)
    if entry.question is not None:
        validate.whole(entry.question, f"{field}question", 1, seq - 1)
    validate.flag(entry.deleted, f"{field}deleted")
    if entry.deleted:
        entry = _bare(entry)
        # A user's message must say something, but a tombstone cannot.
        probe = msgspec.structs.replace(entry.message, text="-")
    else:
        probe = given
    clean = validate.message(probe, field.rstrip(".") or "message", limits)
    message = msgspec.structs.replace(clean, seq=seq, text=entry.message.text)
    return msgspec.structs.replace(entry, message=message)


def checked_entries(entries: Sequence[LogEntry], limits: Limits) -> list[LogEntry]:
    """A run of entries without a gap; at most a page of them."""
    if len(entries) > limits.page_items:
        raise InvalidInput("entries", f"are {len(entries):,}, but at most {limits.page_items:,} are allowed at once")
    clean: list[LogEntry] = []
    for i, entry in enumerate(entries):
        clean.append(checked_entry(entry, f"entries[{i}].", limits))
        if i and clean[i].message.seq != clean[i - 1].message.seq + 1:
            raise InvalidInput(f"entries[{i}].seq", f"is {clean[i].message.seq}, behind {clean[i - 1].message.seq}")
    return clean


def _check_whole(chunk: Chunk) -> None:
    """What must hold of a conversation once its last chunk is there."""
    conversation = chunk.conversation
    if chunk.last != conversation.last_seq:
        raise InvalidInput("last_seq", f"is {conversation.last_seq}, but the last message has {chunk.last}")
    if chunk.first and not chunk.entries and conversation.last_seq:
        raise InvalidInput("entries", f"are missing: the conversation has {conversation.last_seq} messages")
    leaves = chunk.leaves
    if bool(leaves) != bool(conversation.last_seq) or len(set(leaves)) != len(leaves):
        raise InvalidInput("leaves", "must name the end of each branch once, and none only where there is no message")
    if any(seq > conversation.last_seq for seq in leaves):
        raise InvalidInput("leaves", f"name a message above the last one, {conversation.last_seq}")
    if conversation.version < len(leaves):
        raise InvalidInput("version", f"is {conversation.version}, less than the {len(leaves)} changes that it took")
