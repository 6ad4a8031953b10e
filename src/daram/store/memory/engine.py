"""The in-memory engine: the reference model that the others are compared with, and the store of short-lived programs.

Plain dictionaries. No underscored method awaits anything, so each is atomic on its event loop; use one store from one
event loop only (``daram.sync`` does). Nothing survives the process.
"""

from __future__ import annotations

import builtins
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice

import msgspec

from daram import ids
from daram.codec import to_micros
from daram.errors import Gone, LeaseLost, NotFound
from daram.model import Answer, Appended, Conversation, Hit, Message, Record, Turn, Unset
from daram.store import conflicts
from daram.store.base import Order
from daram.store.documents import Document
from daram.store.documents_engine import DocumentRef
from daram.store.memory.documents import MemoryDocuments, Revision
from daram.store.memory.thread import Row, Thread, own
from daram.store.memory.transfer import MemoryTransfer
from daram.store.primitives import TOMBSTONE_SECONDS, AnswerSpec, AppendSpec, Changes, Ref
from daram.store.validate import Limits
from daram.text.analyzer import index_terms, loose_terms, matches, parse_query

Clock = Callable[[], float]
"""Seconds since 1970."""

_TICK = timedelta(microseconds=1)


class MemoryData:
    """What is stored. Several ``MemoryStore`` on one ``MemoryData`` behave like several processes on one file."""

    def __init__(self) -> None:
        self.threads: dict[bytes, Thread] = {}
        self.tombstones: dict[bytes, datetime] = {}
        self.records: dict[tuple[str, str, str], Record] = {}
        self.documents: dict[DocumentRef, Document] = {}
        self.revisions: dict[tuple[DocumentRef, str], Revision] = {}
        self.last_moment = datetime.min.replace(tzinfo=UTC)


class MemoryStore(MemoryTransfer, MemoryDocuments):
    """A Store in this process's memory; ``data`` lets another one share it, ``clock`` is for tests."""

    def __init__(
        self, data: MemoryData | None = None, *, clock: Clock = time.time, limits: Limits | None = None
    ) -> None:
        super().__init__(limits=limits)
        self.data = data or MemoryData()
        self._clock = clock

    async def describe(self) -> dict[str, str]:
        await self._open()
        return {
            "engine": "memory",
            "location": "this process",
            "durability": "none: everything is lost when the process ends",
            "schema": "none",
            "documents": f"{len(self.data.documents):,}, found by words and vectors",
        }

    async def _set_up(self) -> None:
        """There is nothing to open."""

    async def _tear_down(self) -> None:
        self.data = MemoryData()  # let go; whoever shares the data keeps it

    # --- conversations ---

    async def _create(
        self, ref: Ref, title: str | None, metadata: dict[str, str], expires_at: datetime | None
    ) -> Conversation:
        if self._find(ref.key) is not None:
            raise conflicts.exists(ref.id)
        thread = self._new(ref, title, metadata, expires_at)
        self._keep(ref, thread)
        return own(thread.value)

    async def _get(self, ref: Ref) -> Conversation:
        return own(self._thread(ref).value)

    async def _list(self, owner: str, limit: int, before: tuple[int, bytes] | None) -> builtins.list[Conversation]:
        found = {
            (to_micros(thread.value.updated_at), key): thread.value
            for key, thread in self.data.threads.items()
            if thread.value.owner == owner and not self._expired(thread.value.expires_at)
        }
        positions = sorted((p for p in found if before is None or p < before), reverse=True)
        return [own(found[position]) for position in positions[:limit]]

    async def _update(self, ref: Ref, changes: Changes) -> Conversation:
        thread = self._thread(ref)
        given = {name: value for name, value in msgspec.structs.asdict(changes).items() if not isinstance(value, Unset)}
        return thread.change(**given)

    async def _delete(self, ref: Ref) -> None:
        self._thread(ref)
        self._bury(ref.key)

    async def _delete_owner(self, owner: str) -> int:
        keys = [key for key, thread in self.data.threads.items() if thread.value.owner == owner]
        for key in keys:
            self._bury(key)
        for name in [name for name in self.data.records if name[0] == owner]:
            del self.data.records[name]
        self._delete_documents([ref for ref in self.data.documents if ref.owner == owner])
        return len(keys)

    async def _purge(self, limit: int) -> int:
        ends = [(t.value.expires_at, key) for key, t in self.data.threads.items() if self._expired(t.value.expires_at)]
        for _, key in ends[:limit]:
            del self.data.threads[key]
        for key in [key for key in self.data.tombstones if not self._buried(key)]:
            del self.data.tombstones[key]
        for name in [name for name, record in self.data.records.items() if self._expired(record.expires_at)]:
            del self.data.records[name]
        self._purge_staged()
        return len(ends[:limit])

    # --- messages ---

    async def _append(self, ref: Ref, spec: AppendSpec) -> Appended:
        thread = self._thread_to_write(ref, spec.create)
        stored = thread.repeated(spec)
        if stored is not None:
            return thread.unchanged(stored, stored[0].parent, stored[-1].id, spec.window)
        parent = thread.place(spec)
        return self._add(ref, thread, spec.messages, parent, head=True, window=spec.window)

    async def _tail(self, ref: Ref, limit: int) -> builtins.list[Message]:
        thread = self._thread(ref)
        return thread.last(limit, thread.value.head)

    async def _messages(
        self, ref: Ref, limit: int, order: Order, after: tuple[int, int] | None
    ) -> tuple[builtins.list[Message], int]:
        thread = self._thread(ref)
        by_seq = {m.seq: m for m in thread.messages.values()}
        leaf = thread.value.head
        if after is None:
            path = list(thread.up(leaf))
        elif after[0] not in by_seq or after[1] not in by_seq:
            return [], after[1]  # of a conversation that was deleted and made again
        elif order == "desc":
            leaf = by_seq[after[1]].id
            path = list(thread.up(by_seq[after[0]].parent))
        else:
            if not thread.on_branch(by_seq[after[0]].id, leaf):
                leaf = by_seq[after[1]].id
            path = [m for m in thread.up(leaf) if m.seq > after[0]]  # along a branch seq only rises
        if order == "asc":
            path.reverse()
        found = [own(m) for m in islice(thread.living(path), limit)]
        return found, 0 if leaf is None else thread.messages[leaf].seq

    async def _message(self, ref: Ref, message_id: str) -> Message:
        return own(self._thread(ref).find(message_id))

    async def _delete_message(self, ref: Ref, message_id: str) -> Conversation:
        thread = self._thread(ref)
        old = thread.find(message_id)
        thread.deleted.add(message_id)
        thread.messages[message_id] = Message(
            id=old.id, role=old.role, seq=old.seq, parent=old.parent, created_at=old.created_at
        )
        return thread.change()

    async def _branches(self, ref: Ref, message_id: str) -> builtins.list[Message]:
        thread = self._thread(ref)
        siblings = thread.children(thread.find(message_id).parent)
        return [own(m) for m in thread.living(siblings)]

    async def _use_branch(self, ref: Ref, message_id: str) -> Conversation:
        thread = self._thread(ref)
        thread.find(message_id)
        leaf = thread.leaf_under(message_id)
        thread.use(leaf)
        return thread.change(head=leaf)

    # --- the answer row ---

    async def _begin_turn(self, ref: Ref, spec: AppendSpec, answer: AnswerSpec) -> Turn:
        thread = self._thread_to_write(ref, spec.create and bool(spec.messages))
        stored = thread.repeated(spec) if spec.messages else []
        if stored is None:  # a new batch
            parent = thread.place(spec)
            thread.refuse_while_busy(parent, self._now())
            thread.refuse_answer_id(answer.id)
            appended = self._add(ref, thread, spec.messages, parent, head=True, window=spec.window)
            question = spec.messages[-1].id
        elif stored:  # the same turn again
            question = stored[-1].id
            for row in thread.rows.values():
                if row.answer.question == question and not row.late(self._now()):
                    appended = thread.unchanged(stored, stored[0].parent, question, spec.window)
                    if row.answer.id == answer.id:
                        return Turn(state="started", appended=appended, answer=own(row.answer))
                    return Turn(state="running", appended=appended, answer=row.public())
            appended = thread.unchanged(stored, stored[0].parent, question, spec.window)
            if done := thread.answer_to(question):
                return Turn(state="finished", appended=appended, message=own(done))
        else:  # an empty batch
            place = thread.place(spec) or thread.value.head
            if place is None:
                raise NotFound("message", "(the conversation is empty)")
            if place in thread.deleted:
                raise Gone("message", place)
            question = place
            appended = thread.unchanged([], question, question, spec.window)
            mine = thread.rows.get(answer.id)
            if mine is not None and mine.answer.question == question and not mine.late(self._now()):
                return Turn(state="started", appended=appended, answer=own(mine.answer))
        if stored is not None:
            thread.refuse_while_busy(question, self._now())
            thread.refuse_answer_id(answer.id)
        now = self._now()
        row = Row(
            anew=bool(thread.children(question)),
            answer=Answer(
                id=answer.id,
                owner=ref.owner,
                conversation=ref.id,
                question=question,
                model=answer.model,
                token=secrets.token_hex(16),
                created_at=now,
                lease_until=now + timedelta(seconds=answer.lease),
            ),
        )
        thread.rows[answer.id] = row
        return Turn(state="started", appended=appended, answer=own(row.answer))

    async def _checkpoint(self, ref: Ref, answer_id: str, token: str, text: str, lease: float) -> bool:
        _, row = self._held(ref, answer_id, token)
        until = self._now() + timedelta(seconds=lease)
        row.answer = msgspec.structs.replace(row.answer, text=text, lease_until=until)
        return row.answer.cancel

    async def _finish_turn(self, ref: Ref, token: str, message: Message) -> Appended:
        thread = self._find(ref.key)
        if thread is not None and message.id in thread.messages and message.id not in thread.deleted:
            stored = thread.messages[message.id]
            if stored.same_content(message):
                return thread.unchanged([stored], stored.parent, stored.id, 0)
        thread, row = self._held(ref, message.id, token)
        question = row.answer.question
        in_use = thread.on_branch(question, thread.value.head)
        if row.anew:
            parent: str | None = question
        else:
            parent = thread.value.head if in_use else thread.leaf_under(question)
        del thread.rows[message.id]
        thread.question_of[message.id] = question
        return self._add(ref, thread, [message], parent, head=in_use, window=0)

    async def _cancel_turn(self, ref: Ref, answer_id: str | None) -> int:
        rows = [row for id, row in self._thread(ref).rows.items() if answer_id in (None, id)]
        for row in rows:
            row.answer = msgspec.structs.replace(row.answer, cancel=True)
        return len(rows)

    async def _answers(self, ref: Ref) -> builtins.list[Answer]:
        return [row.public() for row in self._thread(ref).rows.values()]

    async def _claim_dead(self, ref: Ref | None, limit: int, lease: float) -> builtins.list[Answer]:
        found = (self._find(key) for key in ([ref.key] if ref else self.data.threads))
        late = [row for thread in found if thread for row in thread.rows.values() if row.late(self._now())]
        late.sort(key=lambda row: row.answer.created_at if ref else row.answer.lease_until)
        until = self._now() + timedelta(seconds=lease)
        for row in late[:limit]:
            row.answer = msgspec.structs.replace(row.answer, token=secrets.token_hex(16), lease_until=until)
        return [own(row.answer) for row in late[:limit]]

    # --- search ---

    async def _search(
        self, owner: str, query: str, conversation: Ref | None, limit: int, any_word: bool
    ) -> builtins.list[Hit]:
        parsed = parse_query(query)
        threads = [
            thread
            for thread in (self._find(key) for key in ([conversation.key] if conversation else self.data.threads))
            if thread is not None and thread.value.owner == owner
        ]
        documents = [
            (thread, m, index_terms(m.text).split())
            for thread in threads
            for m in thread.living(thread.messages.values())
        ]
        for all_words in (False,) if any_word else (True, False):
            hits = []
            for thread, m, terms in documents:
                if matches(parsed, terms, all_words=all_words):
                    wanted = loose_terms(parsed)
                    count = sum(any(t.startswith(w) if prefix else t == w for w, prefix in wanted) for t in terms)
                    score = count / (len(terms) + 10)  # how much of the message is about it; 10 spares the shortest
                    hits.append(
                        Hit(message=own(m), conversation=thread.value.id, title=thread.value.title, score=score)
                    )
            if hits:
                return sorted(hits, key=lambda hit: -hit.score)[:limit]
        return []

    # --- records ---

    async def _get_record(self, owner: str, namespace: str, key: str) -> Record | None:
        record = self.data.records.get((owner, namespace, key))
        return None if record is None or self._expired(record.expires_at) else record

    async def _put_record(
        self,
        owner: str,
        namespace: str,
        key: str,
        value: bytes,
        expect: str | Unset | None,
        expires_at: datetime | None,
    ) -> Record:
        found = await self._get_record(owner, namespace, key)
        if not isinstance(expect, Unset) and expect != (found.etag if found else None):
            raise conflicts.record_not_as_expected(namespace, key)
        record = Record(namespace=namespace, key=key, value=value, etag=ids.etag(), expires_at=expires_at)
        self.data.records[owner, namespace, key] = record
        return record

    async def _delete_record(self, owner: str, namespace: str, key: str, expect: str | Unset) -> bool:
        found = await self._get_record(owner, namespace, key)
        if found is None:
            return False
        if not isinstance(expect, Unset) and expect != found.etag:
            raise conflicts.record_not_as_expected(namespace, key)
        del self.data.records[owner, namespace, key]
        return True

    async def _scan_records(
        self, owner: str, namespace: str, prefix: str, limit: int, after: str | None
    ) -> builtins.list[Record]:
        found = [
            record
            for (whose, where, key), record in sorted(self.data.records.items())
            if (whose, where) == (owner, namespace)
            and key.startswith(prefix)
            and (after is None or key > after)
            and not self._expired(record.expires_at)
        ]
        return found[:limit]

    # --- helpers ---

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _moment(self) -> datetime:
        """Now, but later than any moment given before: lists are sorted by it."""
        self.data.last_moment = max(self._now(), self.data.last_moment + _TICK)
        return self.data.last_moment

    def _expired(self, end: datetime | None) -> bool:
        return end is not None and end <= self._now()

    def _buried(self, key: bytes) -> bool:
        died = self.data.tombstones.get(key)
        return died is not None and self._now() - died < timedelta(seconds=TOMBSTONE_SECONDS)

    def _bury(self, key: bytes) -> None:
        del self.data.threads[key]
        self.data.tombstones[key] = self._now()

    def _find(self, key: bytes) -> Thread | None:
        thread = self.data.threads.get(key)
        return None if thread is None or self._expired(thread.value.expires_at) else thread

    def _thread(self, ref: Ref) -> Thread:
        thread = self._find(ref.key)
        if thread is None:
            raise NotFound("conversation", ref.id)
        return thread

    def _thread_to_write(self, ref: Ref, create: bool) -> Thread:
        """The conversation, or (``create``) a new one that is not kept yet: what fails leaves nothing behind."""
        thread = self._find(ref.key)
        if thread is not None:
            return thread
        if self._buried(ref.key):
            raise Gone("conversation", ref.id)
        if not create:
            raise NotFound("conversation", ref.id)
        return self._new(ref, None, {}, None)

    def _new(self, ref: Ref, title: str | None, metadata: dict[str, str], expires_at: datetime | None) -> Thread:
        now = self._moment()
        return Thread(
            Conversation(
                id=ref.id,
                owner=ref.owner,
                title=title,
                metadata=metadata,
                etag=ids.etag(),
                created_at=now,
                updated_at=now,
                expires_at=expires_at,
            )
        )

    def _keep(self, ref: Ref, thread: Thread) -> None:
        self.data.threads[ref.key] = thread
        self.data.tombstones.pop(ref.key, None)

    def _add(
        self, ref: Ref, thread: Thread, batch: builtins.list[Message], parent: str | None, *, head: bool, window: int
    ) -> Appended:
        appended = thread.add(batch, parent, self._moment(), head=head, window=window)
        self._keep(ref, thread)
        return appended

    def _held(self, ref: Ref, answer_id: str, token: str) -> tuple[Thread, Row]:
        """The answer row, if the token is the one that it was last given out with."""
        thread = self._find(ref.key)
        row = None if thread is None else thread.rows.get(answer_id)
        if thread is None or row is None or row.answer.token != token:
            raise LeaseLost(answer_id)
        return thread, row
