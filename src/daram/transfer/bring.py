"""One conversation, from wherever it is, into a store: compared first, written in chunks, read back and compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Final, Literal, Protocol

import msgspec

from daram.errors import Conflict, NotFound, StoreCorrupt
from daram.memory import Memory
from daram.model import Conversation, LogEntry

CHUNK: Final = 100
"""Messages per call of ``load`` and ``log``."""

_TRIES: Final = 5
_encoder = msgspec.msgpack.Encoder(order="deterministic")

Outcome = Literal["new", "replaced", "equal", "kept", "gone", "changing"]
"""``new`` and ``replaced``: written (in the place of an older state); ``equal``: it was there already; ``kept``: what
is there has something that this has not, and was left alone; ``gone``: deleted at the source; ``changing``: it was
written to at the source faster than it could be read."""


class Changed(Exception):
    """The source is not what it was when the conversation was begun."""


class Source(Protocol):
    """A conversation to be brought; its entries can be read more than once."""

    conversation: Conversation
    leaves: list[int]

    def entries(self) -> AsyncIterator[list[LogEntry]]:
        """The log in chunks, from the beginning. Raises ``Changed``."""
        ...

    async def check(self) -> None:
        """Raise ``Changed`` where it was written to since it was opened, ``NotFound`` where it was deleted."""
        ...


class InStore:
    """A conversation in a store."""

    def __init__(self, store: Memory, conversation: Conversation, leaves: list[int]) -> None:
        self.store = store
        self.conversation = conversation
        self.leaves = leaves

    @classmethod
    async def open(cls, store: Memory, owner: str, id: str) -> InStore:
        """As it is now. Raises ``NotFound``, and ``Changed`` where it does not hold still."""
        for _ in range(_TRIES):
            conversation = await store.get(owner, id)
            leaves = await store.leaves(owner, id)
            if (await store.get(owner, id)).etag == conversation.etag:
                return cls(store, conversation, leaves)
        raise Changed

    async def entries(self) -> AsyncIterator[list[LogEntry]]:
        owner, id, last = self.conversation.owner, self.conversation.id, self.conversation.last_seq
        after = 0
        while after < last:
            page = await self.store.log(owner, id, after=after, limit=min(CHUNK, last - after))
            if not page:
                raise Changed  # deleted and made again, shorter
            yield page
            after = page[-1].message.seq

    async def check(self) -> None:
        now = await self.store.get(self.conversation.owner, self.conversation.id)
        if now.etag != self.conversation.etag:
            raise Changed


class Digest:
    """A digest of everything that a move keeps."""

    def __init__(self, conversation: Conversation, leaves: list[int]) -> None:
        self._hash = blake2b(_encoder.encode((_state(conversation), leaves)), digest_size=16, person=b"daram.move")

    def add(self, entries: list[LogEntry]) -> None:
        """Take more of the log."""
        for entry in entries:
            self._hash.update(_encoder.encode(_comparable(entry)))

    def hex(self) -> str:
        """32 hexadecimal digits."""
        return self._hash.hexdigest()


def _comparable(entry: LogEntry) -> LogEntry:
    """Without the name of the parent, whose number says it."""
    return msgspec.structs.replace(entry, message=msgspec.structs.replace(entry.message, parent=None))


async def digest_of(source: Source) -> str:
    """Reads the conversation to its end."""
    digest = Digest(source.conversation, source.leaves)
    async for chunk in source.entries():
        digest.add(chunk)
    return digest.hex()


def same_state(a: Conversation, b: Conversation) -> bool:
    """Whether two conversations are of the same state by their own fields; every change of one raises its version."""
    return _state(a) == _state(b)


def _state(value: Conversation) -> Conversation:
    """Without what a load draws anew, and the head, which the leaves say."""
    return msgspec.structs.replace(value, etag="", head=None)


async def bring(source: Source, target: Memory, *, replace: bool = False) -> Outcome:
    """Bring a conversation into ``target``, whose state it takes over exactly, but for a new etag.

    What is there is replaced where it is an earlier state of the same conversation; else it is left alone, unless
    ``replace``. Raises what the stores raise, ``Changed`` where the source does not hold still, and ``StoreCorrupt``
    where what was written is read back as something else.
    """
    owner, id = source.conversation.owner, source.conversation.id
    for _ in range(_TRIES):
        try:
            there: Conversation | None = await target.get(owner, id)
        except NotFound:
            there = None
        if there is not None:
            try:
                relation = await _relation(source, await InStore.open(target, owner, id))
            except (NotFound, Changed):
                await source.check()  # raises where it was the source that did not hold still
                continue
            if relation == "equal":
                return "equal"
            if relation == "other" and not replace:
                return "kept"
        try:
            digest, done = await _write(source, target, None if there is None else there.etag)
        except Conflict:
            continue  # somebody wrote to it meanwhile: look again
        await _verify(target, done, digest)
        return "new" if there is None else "replaced"
    return "kept"


async def _write(source: Source, target: Memory, expect: str | None) -> tuple[str, Conversation]:
    digest = Digest(source.conversation, source.leaves)
    held: list[LogEntry] = []
    async for chunk in source.entries():
        if held:
            expect = (await target.load(source.conversation, held, expect=expect, more=True)).etag
        digest.add(chunk)
        held = chunk
    await source.check()  # before the last chunk makes it visible
    done = await target.load(source.conversation, held, leaves=source.leaves, expect=expect)
    return digest.hex(), done


async def _verify(target: Memory, done: Conversation, digest: str) -> None:
    try:
        there = await InStore.open(target, done.owner, done.id)
        if there.conversation.etag != done.etag:
            return  # in use already
        found = await digest_of(there)
        await there.check()
    except (NotFound, Changed):
        return
    if found != digest:
        raise StoreCorrupt(
            f"conversation {done.id!r} was read back as something else than was written; run daram check"
        )


async def _relation(source: Source, there: InStore) -> Literal["equal", "older", "other"]:
    """What the target has, seen from the source."""
    mine, theirs = source.conversation, there.conversation
    same = same_state(mine, theirs) and source.leaves == there.leaves
    older = mine.created_at == theirs.created_at and theirs.version <= mine.version and theirs.last_seq <= mine.last_seq
    if not same and not older:
        return "other"
    ours = _singly(source)
    async for chunk in there.entries():
        for entry in chunk:
            mate = await anext(ours)
            if _comparable(mate) == _comparable(entry):
                continue
            same = False
            if not (mate.deleted and mate.message.id == entry.message.id):
                return "other"
    await there.check()
    return "equal" if same else "older" if older else "other"


async def _singly(source: Source) -> AsyncIterator[LogEntry]:
    async for chunk in source.entries():
        for entry in chunk:
            yield entry
