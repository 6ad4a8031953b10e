"""``Idempotency-Key``: a request that is repeated with the same key is done once, and answered the same.

What is kept for a key, for 24 hours, is a record of its owner in the store: so it works over processes and restarts.
It holds a digest of the request, keyed with the secret of the service, a seed, and in the end that it was done. All
ids that the request draws come from the seed: a request whose process died in the middle, or of which the store does
not know whether it was written, is done again with the same ids, and what is stored already is not stored again.

The answer itself is kept only where it cannot be made again (``once`` without ``again``), of what is stored nowhere
else, and only as long as repetitions come: a copy of what a conversation says would outlive its deletion. The record
does outlive it, on purpose: a late repetition must not bring back what was deleted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, sha256
from typing import Final

import msgspec
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac

from daram import ids
from daram.errors import Conflict, DaramError, InvalidInput
from daram.memory import Memory
from daram.model import Record
from daram.service.openai_api.errors import error_response

NAMESPACE: Final = "idempotency"
KEPT: Final = timedelta(hours=24)
ANSWER_KEPT: Final = timedelta(minutes=10)
"""How long the answer of a request is kept that stores nothing; after that its key is as good as new."""
LEASE: Final = timedelta(seconds=60)
"""After how long without an outcome a request counts as dead, and its repetition does it again."""
WAIT: Final = 20.0
"""How long a repetition waits for the first one, in seconds."""
_LARGEST: Final = 1 << 20
"""An answer of more bytes is not kept: it is made again, from what is stored."""
_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)


class Draw:
    """Draws ids; from the same seed always the same ones, in the same order.

    ``again``: an earlier try drew from this seed, and may be at work still.
    """

    def __init__(self, seed: str | None = None, *, again: bool = False) -> None:
        self.again = again
        self._seed = seed
        self._drawn = 0

    def __call__(self, prefix: str) -> str:
        """A new id: the prefix and a UUIDv7."""
        if self._seed is None:
            return f"{prefix}_{ids.uuid7()}"
        self._drawn += 1
        noise = blake2b(f"{self._seed}/{self._drawn}".encode(), digest_size=8, person=b"daram.idem").hexdigest()
        # The time of the first try, then the variant of RFC 9562 and what tells the ids apart.
        return f"{prefix}_{self._seed[:16]}8{noise[1:]}"


Work = Callable[[Draw], Awaitable[HttpResponse]]


class _Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    request: bytes
    seed: str
    until: float
    status: int = 0
    body: bytes | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


async def once(memory: Memory, owner: str, request: HttpRequest, work: Work, again: Work | None = None) -> HttpResponse:
    """The answer of ``work``; where it was done already for this key and request, that of ``again``.

    ``again`` reads what ``work`` made, by the same ids, and raises ``NotFound`` where it was deleted meanwhile; without
    it the first answer is kept and given. A client that leaves does not stop the work. A refusal is not kept: the same
    request may be tried again. Raises ``InvalidInput`` for a key that is none.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return await _to_its_end(work(Draw()))
    if not _KEY.fullmatch(key):
        raise InvalidInput("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
    return await _to_its_end(_once(memory, owner, sha256(key.encode()).hexdigest(), _digest(request), work, again))


async def _once(memory: Memory, owner: str, key: str, request: bytes, work: Work, again: Work | None) -> HttpResponse:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT
    pause = 0.05
    while True:
        claim = await _claim(memory, owner, key, request)
        if isinstance(claim, HttpResponse):
            return claim
        if isinstance(claim, _Kept):
            response = _kept_answer(claim) if again is None else await again(Draw(claim.seed, again=True))
            response.headers["Idempotent-Replayed"] = "true"
            return response
        if claim is not None:
            record, draw = claim
            return await _work(memory, owner, record, draw, work, keep=again is None)
        if loop.time() >= deadline:
            return error_response(
                409,
                "A request with this Idempotency-Key is still being worked on; try again.",
                code="idempotency_key_in_use",
                headers={"Retry-After": "1"},
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, 1.0)


async def _claim(
    memory: Memory, owner: str, key: str, request: bytes
) -> tuple[Record, Draw] | _Kept | HttpResponse | None:
    """The record, which is now ours to work for, and its ids; or what is kept of work that was done; or a refusal; or
    None: somebody else works for it.
    """
    now = datetime.now(UTC)
    found = await memory.get_record(owner, NAMESPACE, key)
    if found is None:
        kept = _Kept(request=request, seed=ids.uuid7(), until=(now + LEASE).timestamp())
    else:
        kept = _decode(found.value)
        if kept.request != request:
            return error_response(
                422,
                "This Idempotency-Key was used with another request; draw a new key for each request.",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            )
        if kept.status:
            return kept
        if kept.until > now.timestamp():
            return None
        kept = msgspec.structs.replace(kept, until=(now + LEASE).timestamp())
    with suppress(Conflict):
        record = await memory.put_record(
            owner,
            NAMESPACE,
            key,
            _encode(kept),
            expect=None if found is None else found.etag,
            expires_at=now + KEPT,
        )
        return record, Draw(kept.seed, again=found is not None)
    return None


def _kept_answer(kept: _Kept) -> HttpResponse:
    return HttpResponse(kept.body or b"", status=kept.status, content_type="application/json")


async def _work(memory: Memory, owner: str, record: Record, draw: Draw, work: Work, *, keep: bool) -> HttpResponse:
    kept = _decode(record.value)
    try:
        response = await work(draw)
    except BaseException as error:
        await _release(memory, owner, record, kept)
        raise error
    if response.status_code >= 400 or response.streaming or (keep and len(response.content) > _LARGEST):
        await _release(memory, owner, record, kept)
        return response
    done = msgspec.structs.replace(kept, status=response.status_code, body=response.content if keep else None)
    # Whatever is wrong here, the work is done; a repetition does it again with the same ids.
    until = datetime.now(UTC) + (ANSWER_KEPT if keep else KEPT)
    with suppress(DaramError):
        await memory.put_record(owner, NAMESPACE, record.key, _encode(done), expect=record.etag, expires_at=until)
    return response


async def _release(memory: Memory, owner: str, record: Record, kept: _Kept) -> None:
    """Let a repetition do it again at once. The seed stays: part of the work may have been stored."""
    with suppress(DaramError):
        await memory.put_record(
            owner,
            NAMESPACE,
            record.key,
            _encode(msgspec.structs.replace(kept, until=0.0)),
            expect=record.etag,
            expires_at=datetime.now(UTC) + KEPT,
        )


def _digest(request: HttpRequest) -> bytes:
    path = request.get_full_path()
    told = f"{request.method} {len(path)} {path} ".encode() + request.body
    return bytes(salted_hmac(NAMESPACE, told, algorithm="sha256").digest())


_tasks: set[asyncio.Task[HttpResponse]] = set()


async def _to_its_end(work: Awaitable[HttpResponse]) -> HttpResponse:
    """Await the work; where the client leaves meanwhile, it goes on without it."""
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_forget)
    return await asyncio.shield(task)


def _forget(task: asyncio.Task[HttpResponse]) -> None:
    _tasks.discard(task)
    if not task.cancelled():
        task.exception()  # whoever waited for it has it
