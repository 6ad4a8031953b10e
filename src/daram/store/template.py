"""What every engine shares: validation, cursors, one-time set-up, recovery. An engine fills in the underscored methods.

Those get clean values only: ``Ref`` instead of (owner, id), messages that may be stored, numbers in range.
"""

from __future__ import annotations

import asyncio
import builtins
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime

from daram import ids
from daram.codec import decode_cursor, list_cursor, messages_cursor
from daram.errors import ConversationBusy, InvalidInput, LeaseLost, NotFound, StoreClosed
from daram.model import ROOT, UNSET, Answer, Appended, Conversation, Hit, Message, Page, Part, Status, Turn, Unset
from daram.store import validate
from daram.store.base import Order, PartialText, Store
from daram.store.primitives import AnswerSpec, AppendSpec, Changes, Primitives, Ref
from daram.store.validate import Limits

# How long a closed answer may be taken for "in recovery" by the sweep that claimed it, in seconds.
RECOVERY_LEASE = 30.0


class Engine(Primitives, Store):
    """A Store by way of underscored methods."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._closed = False
        # One for each event loop that opens the store, while it does.
        self._ready: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._ready = weakref.WeakKeyDictionary()
        self._is_set_up = False

    # --- the public operations ---

    async def create(
        self,
        owner: str,
        *,
        id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
    ) -> Conversation:
        ref = self._ref(owner, ids.conversation_id() if id is None else id)
        own_title = self._title(title)
        own_metadata = validate.metadata(metadata, "metadata", self.limits)
        end = validate.moment(expires_at, "expires_at")
        await self._open()
        return await self._create(ref, own_title, own_metadata, end)

    async def get(self, owner: str, id: str) -> Conversation:
        ref = self._ref(owner, id)
        await self._open()
        return await self._get(ref)

    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Page[Conversation]:
        self._owner(owner)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        scope = ids.owner_key(owner)
        before: tuple[int, bytes] | None = None
        if cursor is not None:
            before = tuple(decode_cursor(cursor, "list", scope, int, bytes))
        await self._open()
        found = await self._list(owner, limit + 1, before)
        if len(found) <= limit:
            return Page(found)
        last = found[limit - 1]
        return Page(found[:limit], list_cursor(owner, last.updated_at, last.id))

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
        ref = self._ref(owner, id)
        changes = Changes(
            title=title if isinstance(title, Unset) else self._title(title),
            metadata=metadata if isinstance(metadata, Unset) else validate.metadata(metadata, "metadata", self.limits),
            pinned=pinned if isinstance(pinned, Unset) else validate.flag(pinned, "pinned"),
            archived=archived if isinstance(archived, Unset) else validate.flag(archived, "archived"),
            expires_at=expires_at if isinstance(expires_at, Unset) else validate.moment(expires_at, "expires_at"),
        )
        await self._open()
        if changes == Changes():
            return await self._get(ref)
        return await self._update(ref, changes)

    async def delete(self, owner: str, id: str) -> None:
        ref = self._ref(owner, id)
        await self._open()
        await self._delete(ref)

    async def delete_owner(self, owner: str) -> int:
        self._owner(owner)
        await self._open()
        return await self._delete_owner(owner)

    async def purge(self, *, limit: int = 1000) -> int:
        limit = validate.whole(limit, "limit", 1, 1_000_000)
        await self._open()
        return await self._purge(limit)

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
        ref = self._ref(owner, id)
        spec = self._append_spec(messages, parent, expect, create, window)
        await self._open()
        return await self._append(ref, spec)

    async def tail(self, owner: str, id: str, limit: int = 20) -> builtins.list[Message]:
        ref = self._ref(owner, id)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        await self._open()
        return await self._tail(ref, limit)

    async def messages(
        self, owner: str, id: str, *, limit: int = 100, cursor: str | None = None, order: Order = "asc"
    ) -> Page[Message]:
        ref = self._ref(owner, id)
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        if order not in ("asc", "desc"):
            raise InvalidInput("order", f'must be "asc" or "desc", not {order!r:.40}')
        after: tuple[int, int] | None = None
        if cursor is not None:
            after = tuple(decode_cursor(cursor, f"messages.{order}", ref.key, int, int))
        await self._open()
        found, leaf = await self._messages(ref, limit + 1, order, after)
        if len(found) <= limit:
            return Page(found)
        return Page(found[:limit], messages_cursor(owner, id, order, found[limit - 1].seq, leaf))

    async def message(self, owner: str, id: str, message_id: str) -> Message:
        ref = self._ref(owner, id)
        self._message_id(message_id)
        await self._open()
        return await self._message(ref, message_id)

    async def delete_message(self, owner: str, id: str, message_id: str) -> Conversation:
        ref = self._ref(owner, id)
        self._message_id(message_id)
        await self._open()
        return await self._delete_message(ref, message_id)

    async def branches(self, owner: str, id: str, message_id: str) -> builtins.list[Message]:
        ref = self._ref(owner, id)
        self._message_id(message_id)
        await self._open()
        return await self._branches(ref, message_id)

    async def use_branch(self, owner: str, id: str, message_id: str) -> Conversation:
        ref = self._ref(owner, id)
        self._message_id(message_id)
        await self._open()
        return await self._use_branch(ref, message_id)

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
        ref = self._ref(owner, id)
        spec = self._append_spec(messages, parent, expect, create, window, may_be_empty=True)
        answer = AnswerSpec(
            id=ids.message_id() if answer_id is None else self._message_id(answer_id, "answer_id"),
            lease=validate.seconds(lease, "lease"),
            model=None if model is None else validate.name(model, "model", 256),
        )
        if any(m.id == answer.id for m in spec.messages):
            raise InvalidInput("answer_id", f"{answer.id!r} is also the id of a message in the batch")
        await self._open()
        for _ in range(3):
            try:
                return await self._begin_turn(ref, spec, answer)
            except ConversationBusy as busy:
                if not busy.dead:
                    raise
            # Its maker is gone: close it, then take the turn. Somebody else may do the same at once, hence the loop.
            await self.recover(owner=owner, id=id, partial=partial)
        return await self._begin_turn(ref, spec, answer)

    async def checkpoint(
        self, owner: str, id: str, answer_id: str, token: str, text: str, *, lease: float = 30.0
    ) -> bool:
        ref = self._ref(owner, id)
        self._message_id(answer_id, "answer_id")
        validate.name(token, "token", 64)
        validate.text(text, "text", self.limits.message_bytes)
        lease = validate.seconds(lease, "lease")
        await self._open()
        return await self._checkpoint(ref, answer_id, token, text, lease)

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
        ref = self._ref(owner, id)
        validate.name(token, "token", 64)
        message = Message(
            id=answer_id,
            role="assistant",
            text=text,
            status=status,
            parts=validate.parts(parts, "parts"),
            model=model,
            tokens=tokens,
            usage=validate.counters(usage, "usage"),
            metadata=validate.metadata(metadata, "metadata", self.limits),
        )
        message = validate.message(message, "answer", self.limits)
        await self._open()
        return await self._finish_turn(ref, token, message)

    async def cancel_turn(self, owner: str, id: str, answer_id: str | None = None) -> int:
        ref = self._ref(owner, id)
        if answer_id is not None:
            self._message_id(answer_id, "answer_id")
        await self._open()
        return await self._cancel_turn(ref, answer_id)

    async def answers(self, owner: str, id: str) -> builtins.list[Answer]:
        ref = self._ref(owner, id)
        await self._open()
        return await self._answers(ref)

    async def recover(
        self,
        *,
        owner: str | None = None,
        id: str | None = None,
        limit: int = 100,
        partial: PartialText | None = None,
    ) -> builtins.list[Message]:
        if (owner is None) != (id is None):
            raise InvalidInput("owner, id", "give both or neither")
        ref = None if owner is None or id is None else self._ref(owner, id)
        limit = validate.whole(limit, "limit", 1, 10_000)
        await self._open()
        recovered = []
        for answer in await self._claim_dead(ref, limit, RECOVERY_LEASE):
            text = answer.text
            if partial is not None:
                more = await partial(answer)
                if more is not None and len(more) > len(text):
                    text = more
            try:
                done = await self.finish_turn(
                    answer.owner,
                    answer.conversation,
                    answer.id,
                    answer.token,
                    text=text,
                    status="incomplete",
                    model=answer.model,
                )
            except (LeaseLost, NotFound):
                continue  # deleted, or claimed by somebody slower than our lease: theirs now
            recovered.append(done.messages[0])
        return recovered

    async def search(
        self,
        owner: str,
        query: str,
        *,
        conversation: str | None = None,
        limit: int = 20,
        any_word: bool = False,
    ) -> builtins.list[Hit]:
        self._owner(owner)
        validate.text(query, "query", self.limits.query_chars, "characters")
        if not query.strip():
            raise InvalidInput("query", "must not be empty")
        limit = validate.whole(limit, "limit", 1, self.limits.page_items)
        ref = None if conversation is None else self._ref(owner, conversation, "conversation")
        any_word = validate.flag(any_word, "any_word")
        await self._open()
        return await self._search(owner, query, ref, limit, any_word)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._is_set_up:
            await self._tear_down()

    # --- helpers ---

    async def _open(self) -> None:
        if self._closed:
            raise StoreClosed("this store was closed; open it again with daram.open(…)")
        if self._is_set_up:
            return
        # A lock belongs to one loop. Two loops may set up at once: an engine for which that is not harmless, or that
        # stays with a loop, has an ``_open`` of its own.
        loop = asyncio.get_running_loop()
        try:
            async with self._ready.setdefault(loop, asyncio.Lock()):
                if not self._is_set_up:
                    await self._set_up()
                    self._is_set_up = True
        finally:
            self._ready.pop(loop, None)  # it may hold the loop

    def _owner(self, owner: str) -> str:
        return validate.name(owner, "owner", self.limits.owner_chars)

    def _ref(self, owner: str, id: str, field: str = "id") -> Ref:
        self._owner(owner)
        validate.name(id, field, self.limits.conversation_id_chars)
        return Ref(owner, id, ids.conversation_key(owner, id))

    def _message_id(self, value: str, field: str = "message_id") -> str:
        return validate.name(value, field, self.limits.message_id_chars)

    def _title(self, title: str | None) -> str | None:
        return None if title is None else validate.text(title, "title", self.limits.title_chars, "characters")

    def _append_spec(
        self,
        messages: Sequence[Message],
        parent: str | None,
        expect: int | str | None,
        create: bool,
        window: int,
        *,
        may_be_empty: bool = False,
    ) -> AppendSpec:
        return AppendSpec(
            messages=validate.batch(messages, self.limits, may_be_empty=may_be_empty),
            parent=parent if parent in (None, ROOT) else self._message_id(parent, "parent"),
            expect=validate.expectation(expect),
            create=validate.flag(create, "create"),
            window=validate.whole(window, "window", 0, self.limits.page_items),
        )
