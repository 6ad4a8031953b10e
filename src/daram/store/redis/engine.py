"""Redis or Valkey as the engine: every change of a conversation is one script in one slot.

How durable an acknowledged write is, is the server's promise: ``appendonly yes`` with ``appendfsync always`` keeps it
through a crash of the server, other settings lose what ``describe`` says.
"""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

from daram import ids
from daram.codec import encode_strings, to_micros
from daram.model import Answer, Appended, Conversation, Message, Turn, Unset
from daram.store.base import Order
from daram.store.primitives import AnswerSpec, AppendSpec, Changes, Ref
from daram.store.process import identity, is_dead
from daram.store.redis import values
from daram.store.redis.core import MICROS
from daram.store.redis.transfer import RedisTransfer
from daram.store.validate import Limits


class RedisStore(RedisTransfer):
    """Conversations on a server, a cluster or behind Sentinel (``redis://``, ``rediss://``, ``unix://``,
    ``redis+cluster://``, ``rediss+cluster://``, ``redis+sentinel://host:port,host:port/service``).

    ``wait``: how many replicas must have a write before it is acknowledged (``WAIT``; not on a cluster);
    ``timeout``: seconds for one command; ``clock_offset``: moves all clocks, in microseconds (tests).
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        wait: int = 0,
        clock_offset: Callable[[], int] | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(url, timeout=timeout, wait=wait, clock_offset=clock_offset, limits=limits)

    # --- conversations ---

    async def _create(
        self, ref: Ref, title: str | None, metadata: dict[str, str], expires_at: datetime | None
    ) -> Conversation:
        now = self._now()
        end = await self._expiry(ref, expires_at)
        args = (ref.owner, ref.id, _title(title), encode_strings(metadata) or b"", end, ids.etag(), now)
        return values.to_conversation(await self._change("create", ref, now, *args, create=True))

    async def _expiry(self, ref: Ref, expires_at: datetime | None) -> str:
        """How scripts take it; on a cluster the sweeps are told before."""
        end = "" if expires_at is None else str(to_micros(expires_at))
        if end and self.server.is_cluster:
            await self._watch("expiry", ref, int(end))
        return end

    async def _get(self, ref: Ref) -> Conversation:
        return values.to_conversation(await self._read("get", ref, ref.id))

    async def _update(self, ref: Ref, changes: Changes) -> Conversation:
        args: builtins.list[str | bytes] = []
        if not isinstance(changes.title, Unset):
            args += ["title", _title(changes.title)]
        if not isinstance(changes.metadata, Unset):
            args += ["metadata", encode_strings(changes.metadata) or b""]
        if not isinstance(changes.pinned, Unset):
            args += ["pinned", str(int(changes.pinned))]
        if not isinstance(changes.archived, Unset):
            args += ["archived", str(int(changes.archived))]
        if not isinstance(changes.expires_at, Unset):
            args += ["expires", await self._expiry(ref, changes.expires_at)]
        return values.to_conversation(await self._run("update", ref, ref.id, ids.etag(), *args))

    # --- messages ---

    async def _append(self, ref: Ref, spec: AppendSpec) -> Appended:
        now = self._now()
        args = [*_append_args(ref, spec, now), *values.batch_args(spec.messages)]
        reply = await self._change("append", ref, now, *args, create=spec.create, expect=spec.expect)
        await self._settle(ref, now, int(reply[6]))
        return values.to_appended(ref, reply, spec.messages, now, spec.window)

    async def _tail(self, ref: Ref, limit: int) -> builtins.list[Message]:
        return values.to_tail(await self._read("tail", ref, ref.id, limit), limit)

    async def _messages(
        self, ref: Ref, limit: int, order: Order, after: tuple[int, int] | None
    ) -> tuple[builtins.list[Message], int]:
        found, leaf = await self._read("messages", ref, ref.id, limit, order, *(after or (0, 0)))
        if order == "desc":
            return values.to_tail(found, limit)[::-1], int(leaf)
        return values.to_messages(found), int(leaf)

    async def _message(self, ref: Ref, message_id: str) -> Message:
        return values.to_messages(await self._read("message", ref, ref.id, message_id, "0"))[0]

    async def _delete_message(self, ref: Ref, message_id: str) -> Conversation:
        return values.to_conversation(await self._run("delete_message", ref, ref.id, message_id, ids.etag()))

    async def _branches(self, ref: Ref, message_id: str) -> builtins.list[Message]:
        return values.to_messages(await self._read("message", ref, ref.id, message_id, "1"))

    async def _use_branch(self, ref: Ref, message_id: str) -> Conversation:
        return values.to_conversation(await self._run("use_branch", ref, ref.id, message_id, ids.etag()))

    # --- turns ---

    async def _begin_turn(self, ref: Ref, spec: AppendSpec, answer: AnswerSpec) -> Turn:
        now = self._now()
        lease = int(answer.lease * MICROS)
        append = _append_args(ref, spec, now)
        mine = [answer.id, lease, answer.model or "", secrets.token_hex(16), identity()]
        batch = values.batch_args(spec.messages)
        # Only this machine can tell that a process of it is gone: if so, the script is told and decides again.
        dead: builtins.list[Any] = []
        while True:
            args = [*append, *mine, len(dead), *dead, *batch]
            state, done, rest = await self._change(
                "begin", ref, now, *args, create=spec.create and bool(spec.messages), lease=lease, expect=spec.expect
            )
            if state == b"finished" or rest[5].decode() == mine[4] or dead or not is_dead(rest[5].decode()):
                break
            dead = [rest[5]]
        await self._settle(ref, now, int(done[6]))
        appended = values.to_appended(ref, done, spec.messages, now, spec.window)
        if state == b"finished":
            return Turn(state="finished", appended=appended, message=values.to_messages(rest)[0])
        found = values.to_answer(ref, rest)
        return Turn(state="started" if state == b"started" else "running", appended=appended, answer=found)

    async def _checkpoint(self, ref: Ref, answer_id: str, token: str, text: str, lease: float) -> bool:
        reply = await self._run("checkpoint", ref, answer_id, token, int(lease * MICROS), text)
        return bool(reply[0] == b"1")

    async def _finish_turn(self, ref: Ref, token: str, message: Message) -> Appended:
        now = self._now()
        reply = await self._change("finish", ref, now, token, ids.etag(), now, *values.batch_args([message]))
        await self._settle(ref, now, int(reply[6]))
        return values.to_appended(ref, reply, [message], now, 0)

    async def _cancel_turn(self, ref: Ref, answer_id: str | None) -> int:
        return int((await self._run("cancel", ref, ref.id, answer_id or ""))[0])

    async def _answers(self, ref: Ref) -> builtins.list[Answer]:
        return [values.to_answer(ref, row) for row in (await self._read("answers", ref, ref.id, "0"))[1:]]


def _title(title: str | None) -> str:
    return "" if title is None else f"+{title}"


def _append_args(ref: Ref, spec: AppendSpec, now: int) -> builtins.list[Any]:
    parent = "-" if spec.parent is None else f"+{spec.parent}"
    expect = "-" if spec.expect is None else f"{'v' if isinstance(spec.expect, int) else 'e'}{spec.expect}"
    return [ref.owner, ref.id, "1" if spec.create else "0", parent, expect, spec.window, ids.etag(), ids.etag(), now]
