"""A Store around a Store that keeps the ends of conversations in a cache, validated by the write (design section 5).

A turn must write the user's message before the model is asked. That write returns the etag that it found, so a cached
end of the conversation is right exactly when it has that etag and ends where the new messages begin. There is nothing
to invalidate, no lock, and no order of writes to get wrong: a stale entry costs one more read.

Only what a turn reads is cached. A pure read (a history page) would have to ask the engine for the etag first, which
costs as much as the read itself: it goes to the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b

from msgspec import structs

from daram import ids
from daram.cache.base import Cache
from daram.cache.breaker import Breaker, Budget
from daram.cache.entry import Entry, decode, encode, stamp
from daram.errors import ConfigError, Conflict, NotFound, OutcomeUnknown, StoreError
from daram.model import UNSET, Appended, Conversation, LogEntry, Message, Part, Status, Turn, Unset
from daram.store.base import PartialText, Store
from daram.store.paging import items
from daram.store.wrapper import StoreWrapper

MAX_ENTRY = 256 << 10
MAX_TAIL = 200
# Wider ones are the engine's matter, whatever it allows.
MAX_WINDOW = 1000
_PAGE = 100
# How many turns may be under way of which is remembered that the cache failed them.
_MAX_FORSAKEN = 1000


class CachedStore(StoreWrapper):
    """``inner`` with a cache in front of its tails. Closing it closes both.

    ``secret``: keeps out whoever else can write to the cache; ``max_entry``: the size of one value in bytes.
    """

    def __init__(
        self,
        inner: Store,
        cache: Cache,
        *,
        secret: bytes = b"",
        breaker: Breaker | None = None,
        max_entry: int = MAX_ENTRY,
    ) -> None:
        super().__init__(inner)
        try:
            blake2b(key=secret)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the key of the cache (cache_key) cannot be used: {error}") from None
        self.cache = cache
        self.breaker = breaker or Breaker()
        self.hits = 0
        self.misses = 0
        # The widest window that was asked for: more than that is never kept, since each change writes the whole entry.
        self._widest = 0
        # Turns (by the token of their answer) whose beginning the cache failed: their end does not wait for it again.
        self._forsaken: set[str] = set()
        self._secret = secret
        self._max_entry = max_entry

    # --- what a turn does ---

    async def append(
        self,
        owner: str,
        id: str,
        messages: Sequence[Message],
        *,
        parent: str | None = None,
        expect: int | str | None = None,
        create: bool = False,
        window: int = 0,
    ) -> Appended:
        look = await self._look(owner, id, messages, window)
        done = await self.inner.append(
            owner, id, messages, parent=parent, expect=expect, create=create, window=look.asked
        )
        return await self._settle(look, done, messages, parent, window)

    async def begin_turn(
        self,
        owner: str,
        id: str,
        messages: Sequence[Message],
        *,
        answer_id: str | None = None,
        parent: str | None = None,
        expect: int | str | None = None,
        create: bool = False,
        window: int = 0,
        model: str | None = None,
        lease: float = 30.0,
        partial: PartialText | None = None,
    ) -> Turn:
        look = await self._look(owner, id, messages, window)
        turn = await self.inner.begin_turn(
            owner,
            id,
            messages,
            answer_id=answer_id,
            parent=parent,
            expect=expect,
            create=create,
            window=look.asked,
            model=model,
            lease=lease,
            partial=partial,
        )
        appended = await self._settle(look, turn.appended, messages, parent, window)
        if look.budget.spent and turn.state == "started" and turn.answer is not None:
            if len(self._forsaken) >= _MAX_FORSAKEN:
                self._forsaken.clear()  # turns that never end here; what it costs the others is one more try
            self._forsaken.add(turn.answer.token)
        return Turn(state=turn.state, appended=appended, answer=turn.answer, message=turn.message)

    async def finish_turn(
        self,
        owner: str,
        id: str,
        answer_id: str,
        token: str,
        *,
        text: str,
        status: Status = "complete",
        parts: Sequence[Part] = (),
        model: str | None = None,
        tokens: int | None = None,
        usage: Mapping[str, int] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Appended:
        done = await self.inner.finish_turn(
            owner,
            id,
            answer_id,
            token,
            text=text,
            status=status,
            parts=parts,
            model=model,
            tokens=tokens,
            usage=usage,
            metadata=metadata,
        )
        if token in self._forsaken:
            self._forsaken.discard(token)
        else:
            await self._keep(await self._look(owner, id, done.messages, 0), done)
        return done

    # --- every other change drops the entry: it would fail the comparison anyway, and must not outlive a deletion ---

    async def create(
        self,
        owner: str,
        *,
        id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
    ) -> Conversation:
        made = await self.inner.create(owner, id=id, title=title, metadata=metadata, expires_at=expires_at)
        await self._drop(owner, made.id)
        return made

    async def update(
        self,
        owner: str,
        id: str,
        *,
        title: str | Unset | None = UNSET,
        metadata: Mapping[str, str] | Unset = UNSET,
        pinned: bool | Unset = UNSET,
        archived: bool | Unset = UNSET,
        expires_at: datetime | Unset | None = UNSET,
    ) -> Conversation:
        changed = await self.inner.update(
            owner, id, title=title, metadata=metadata, pinned=pinned, archived=archived, expires_at=expires_at
        )
        await self._drop(owner, id)
        return changed

    async def delete(self, owner: str, id: str) -> None:
        await self.inner.delete(owner, id)
        await self._drop(owner, id)

    async def delete_owner(self, owner: str) -> int:
        """As the engine does it. What is made while it runs is left to the TTL: it would fail the comparison."""
        listed = items(lambda cursor: self.inner.list(owner, limit=_PAGE, cursor=cursor))
        names = [conversation.id async for conversation in listed]
        done = await self.inner.delete_owner(owner)
        for id in names:
            await self._drop(owner, id)
        return done

    async def delete_message(self, owner: str, id: str, message_id: str) -> Conversation:
        changed = await self.inner.delete_message(owner, id, message_id)
        await self._drop(owner, id)
        return changed

    async def use_branch(self, owner: str, id: str, message_id: str) -> Conversation:
        changed = await self.inner.use_branch(owner, id, message_id)
        await self._drop(owner, id)
        return changed

    async def load(
        self,
        conversation: Conversation,
        entries: Sequence[LogEntry],
        *,
        leaves: Sequence[int] = (),
        expect: str | None = None,
        more: bool = False,
    ) -> Conversation:
        loaded = await self._transfer().load(conversation, entries, leaves=leaves, expect=expect, more=more)
        await self._drop(conversation.owner, conversation.id)
        return loaded

    async def describe(self) -> dict[str, str]:
        said = await self.inner.describe()
        about = await self.breaker.call(self.cache.describe, self.breaker.operation())
        said["cache"] = about or "configured, but it does not answer; turns go on without it"
        return said

    async def close(self) -> None:
        try:
            await self.inner.close()
        finally:
            await self.cache.close()

    # --- helpers ---

    async def _look(self, owner: str, id: str, messages: Sequence[Message], window: int) -> _Look:
        """What the cache has, and the window to ask the engine for: none where the entry is long enough."""
        look = _Look(owner, id, window, self.breaker.operation())
        if type(window) is not int or not 0 <= window <= MAX_WINDOW:
            return look  # as it should be asked for by nobody: the engine will say so
        self._widest = max(self._widest, min(window, MAX_TAIL))
        try:
            look.key = ids.conversation_key(owner, id)
            batch = len(messages)
        except (AttributeError, TypeError, UnicodeEncodeError):
            return look  # the engine will say what is wrong with them
        if not batch:
            return look
        key = look.key
        value = await self.breaker.call(lambda: self.cache.get(key), look.budget)
        entry = decode(value, key, self._secret, self._max_entry)
        if entry is None or entry.owner != owner:
            return look
        look.entry = entry
        if entry.complete or len(entry.tail) + batch >= window:
            look.asked = 0
        return look

    async def _settle(
        self, look: _Look, done: Appended, messages: Sequence[Message], parent: str | None, window: int
    ) -> Appended:
        """Complete what the engine answered by the entry, if the entry proves right, and bring the cache up to date."""
        if window and not look.asked:
            following = look.following(done)
            if following is not None:
                self.hits += 1
                tail = following.tail[-window:]
            else:
                self.misses += 1
                try:
                    # The same ids once more: the engine changes nothing and returns the tail that ends at them (P3).
                    # A conversation that was deleted and made again in between does not have that etag: nothing of
                    # the old one may come into it.
                    again = await self.inner.append(
                        look.owner, look.id, messages, parent=parent, expect=done.etag, window=window
                    )
                    tail = again.tail
                except (NotFound, Conflict):
                    tail = done.messages  # deleted since: there is no history left to show
                except StoreError as error:
                    # "Nothing was stored" would be wrong: the first write stands.
                    raise OutcomeUnknown(
                        f"the messages are stored, but what stands before them could not be read ({error}); "
                        "repeat the call with the same ids"
                    ) from error
                look.asked = window
            done = structs.replace(done, tail=tail)
        elif window:
            self.misses += 1
        await self._keep(look, done)
        return done

    async def _keep(self, look: _Look, done: Appended) -> None:
        """Bring the cache to the state that a write left."""
        key = look.key
        if key is None or not done.messages or done.etag == done.previous_etag:
            return
        entry = look.following(done)
        if look.asked and (entry is None or len(entry.tail) < len(done.tail)):
            complete = len(done.tail) < look.asked
            entry = Entry(look.owner, done.etag, done.messages[-1].id, complete, done.tail)
        if entry is None:
            await self._drop(look.owner, look.id, look.budget)
            return
        keep = self._widest or MAX_TAIL
        if len(entry.tail) > keep:
            entry = Entry(entry.owner, entry.etag, entry.head, False, entry.tail[-keep:])
        value = encode(entry, key, self._secret, self._max_entry)
        if value is None:
            await self._drop(look.owner, look.id, look.budget)
            return
        seen = stamp(done.previous_etag if look.entry is None else look.entry.etag)
        await self.breaker.call(lambda: self.cache.swap(key, seen, value), look.budget)

    async def _drop(self, owner: str, id: str, budget: Budget | None = None) -> None:
        key = ids.conversation_key(owner, id)
        await self.breaker.call(lambda: self.cache.drop(key), budget or self.breaker.operation())


class _Look:
    """One operation's look into the cache: whose, what it may cost, what was found and what to ask the engine for."""

    def __init__(self, owner: str, id: str, window: int, budget: Budget) -> None:
        self.owner = owner
        self.id = id
        self.asked = window
        self.budget = budget
        self.key: bytes | None = None
        self.entry: Entry | None = None

    def following(self, done: Appended) -> Entry | None:
        """The entry after the write, or None where there is none or it is not of the state that the write found."""
        if self.entry is None or done.etag == done.previous_etag:
            return None
        return self.entry.extended(done.previous_etag, done.parent, done.etag, done.messages)
