"""An event log in Redis or Valkey Streams (extra ``daram[redis]``): every process can follow every answer.

Each process keeps the events of its own answers in its memory too: who follows an answer in the process that makes it
waits for no network. Redis may be slow, go away or forget: answers go on, what it has missed is told to it later, and
who follows from elsewhere meanwhile gets the stored answer at the end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final
from zlib import crc32

import msgspec

from daram.chat.events import TERMINAL, Event, MemoryEventLog
from daram.errors import ChatbotClosed, ConfigError, Conflict, MissingExtra, StoreUnavailable

log = logging.getLogger(__name__)

_SCRIPT: Final = files("daram.chat").joinpath("publish_events.lua").read_text("utf-8")
_SHA: Final = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()  # Redis names scripts by it
# One connection each reads for all followers of the answers in it; in a cluster it is a slot of its own.
_SHARDS: Final = 8
_CONNECTIONS: Final = 16
_TIMEOUT: Final = 2.0
# How long a reader waits for news: a new follower is heard by then at the latest. Seconds.
_BLOCK: Final = 0.2
_PAGE: Final = 1000
# After how much silence a follower asks whether the log is still there, in seconds.
_SILENCE: Final = 5.0
# How long Redis is left alone after it failed, in seconds.
_PAUSE: Final = 1.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


class _Follower:
    """Somebody who waits for the events of an answer behind ``seen``."""

    def __init__(self, answer_id: str, seen: int) -> None:
        self.answer_id = answer_id
        self.seen = seen
        self.events: deque[Event] = deque()
        self.error: Exception | None = None
        self.news = asyncio.Event()

    def take(self, event: Event) -> None:
        if event.seq > self.seen:
            self.seen = event.seq
            self.events.append(event)
            self.news.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.news.set()


class RedisEventLog:
    """``url``: ``redis://…``, ``rediss://…`` or ``redis+cluster://…``. Raises ``ConfigError``, ``MissingExtra``.

    ``keep``: seconds that the log of a finished answer is kept, ``patience`` that of one of which nothing is heard;
    ``limit``: the most events of one answer: the log of a longer one is given up.
    """

    def __init__(
        self,
        url: str,
        *,
        keep: float = 600.0,
        patience: float = 3600.0,
        limit: int = 100_000,
        prefix: str = "daram:events:",
    ) -> None:
        try:
            from redis import exceptions
        except ImportError as error:
            raise MissingExtra("an event log in Redis", "redis") from error
        self._url = url
        self._said: Any = exceptions
        self._keep_ms = max(1, int(keep * 1000))
        self._patience_ms = max(1, int(patience * 1000))
        self._limit = limit
        self._prefix = prefix
        self._here = MemoryEventLog(keep=keep)
        self._told: dict[str, int] = {}  # of answers that are made here: how much of it Redis has
        self._followers: dict[int, set[_Follower]] = {}
        self._readers: dict[int, asyncio.Task[None]] = {}
        self._down_until = 0.0
        self._closed = False
        self._initialized = False
        self._first = asyncio.Lock()
        self._slots = asyncio.Semaphore(_CONNECTIONS)  # the driver's client of a cluster does not wait for its own
        self._client = connect(url, _CONNECTIONS)
        self._reading = connect(url, _SHARDS + 2)

    # --- publish ---

    async def publish(self, answer_id: str, event: Event) -> None:
        """Add an event, in one round trip; raises ``Conflict`` unless it is the next one of a log that goes on.

        Where Redis does not take it, it takes this process's answers later, and of others does without.
        """
        if self._closed:
            raise ChatbotClosed("the event log was closed")
        if event.seq == 1:
            self._told[answer_id] = 0
        told = self._told.get(answer_id)
        if told is None and await self._here.text(answer_id) is None:
            await self._send(answer_id, event.seq, [event])
            return
        if told is not None:
            try:
                await self._catch_up(answer_id, told, event)
            except Conflict:  # another process ended it for us: what that told is what holds
                self._told.pop(answer_id, None)
                self._here.forget(answer_id)
                raise
        await self._here.publish(answer_id, event)
        if event.type in TERMINAL:
            self._told.pop(answer_id, None)

    async def _catch_up(self, answer_id: str, told: int, event: Event) -> None:
        """Tell Redis everything up to the event that it does not have."""
        for _ in range(2):
            missing = [*self._here.events(answer_id)[told:], event]
            state, there = await self._send(answer_id, told + 1, missing)
            if state == "full":
                log.warning("answer %s has more than %d events; its log is given up", answer_id, self._limit)
                self._told.pop(answer_id, None)
                return
            if state != "gap":
                if state == "ok":
                    self._told[answer_id] = event.seq
                return
            told = there  # it has forgotten some
        log.warning("Redis forgets the events of answer %s as they come", answer_id)

    async def _send(self, answer_id: str, first: int, events: Sequence[Event]) -> tuple[str, int]:
        if time.monotonic() < self._down_until:
            return "down", 0
        ended = events[-1].type in TERMINAL
        ttl = self._keep_ms if ended else self._patience_ms
        args = [self._key(answer_id), first, ttl, self._limit, int(ended), *map(_encode, events)]
        try:
            async with self._slots, asyncio.timeout(_TIMEOUT):
                await self._ready()
                try:
                    state, there = await self._client.evalsha(_SHA, 1, *args)
                except self._said.NoScriptError:
                    state, there = await self._client.eval(_SCRIPT, 1, *args)
        except (self._said.RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return "down", 0
        state = state.decode()
        if state == "conflict" or (state == "gap" and answer_id not in self._told):
            raise Conflict(f"event {first} of answer {answer_id!r} was not added: its log ends at {there} or goes on")
        return state, int(there)

    async def _ready(self) -> None:
        """Learn the map of a cluster once: to the driver, others who ask at the same time are in the way."""
        if not self._initialized:
            async with self._first:
                if not self._initialized:
                    await self._client.initialize()
                    await self._reading.initialize()
                    self._initialized = True

    def _failed(self, error: Exception) -> None:
        if time.monotonic() >= self._down_until:
            log.warning("the event log in Redis failed, answers go on without it: %s: %s", type(error).__name__, error)
        self._down_until = time.monotonic() + _PAUSE

    # --- follow ---

    async def follow(self, answer_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events with ``seq > after``, from the past and then live; ends behind the terminal event.

        Raises ``StoreUnavailable`` where Redis was lost, or has lost the log, before its end.
        """
        if await self._here.text(answer_id) is not None:
            async with aclosing(self._here.follow(answer_id, after)) as known:
                async for event in known:
                    after = event.seq
                    yield event
                    if event.type in TERMINAL:
                        return
            if self._closed or await self._here.text(answer_id) is not None:
                return
        found = await self._range(answer_id, 0, 1)
        if not found:
            return
        if found[0].seq != 1:
            raise StoreUnavailable(f"the beginning of the log of answer {answer_id!r} is not there")
        last = await self._last(answer_id)
        if last is not None and last.type in TERMINAL and after >= last.seq:
            return
        seen = after
        while page := await self._range(answer_id, seen, _PAGE):
            for event in page:
                seen = event.seq
                yield event
                if event.type in TERMINAL:
                    return
        follower = _Follower(answer_id, seen)
        self._join(follower)
        try:
            while True:
                while follower.events:
                    event = follower.events.popleft()
                    yield event
                    if event.type in TERMINAL:
                        return
                if follower.error is not None:
                    raise StoreUnavailable(f"the event log in Redis was lost: {follower.error}")
                if self._closed:
                    return
                follower.news.clear()
                try:
                    async with asyncio.timeout(_SILENCE):
                        await follower.news.wait()
                except TimeoutError:
                    if await self._last(answer_id) is None:
                        raise StoreUnavailable(f"the log of answer {answer_id!r} is no longer there") from None
        finally:
            self._leave(follower)

    async def text(self, answer_id: str) -> tuple[str, int] | None:
        """The whole text so far and the last ``seq``, or None where the log does not know the answer (or is lost)."""
        known = await self._here.text(answer_id)
        if known is not None:
            return known
        pieces: list[str] = []
        seen = 0
        try:
            while page := await self._range(answer_id, seen, _PAGE):
                if page[0].seq != seen + 1:
                    return None
                pieces += [event.text for event in page]
                seen = page[-1].seq
        except StoreUnavailable:
            return None
        return ("".join(pieces), seen) if seen else None

    async def close(self) -> None:
        """Let go of everything; followers end. A second call is harmless."""
        if self._closed:
            return
        self._closed = True
        await self._here.close()
        readers = [*self._readers.values()]
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for followers in self._followers.values():
            for follower in followers:
                follower.news.set()
        for client in (self._client, self._reading):
            await client.aclose()

    # --- reading ---

    async def _range(self, answer_id: str, after: int, count: int) -> list[Event]:
        found = await self._ask("xrange", self._key(answer_id), f"{after + 1}-0", "+", count)
        return [_decode(fields[b"e"]) for _, fields in found]

    async def _last(self, answer_id: str) -> Event | None:
        found = await self._ask("xrevrange", self._key(answer_id), "+", "-", 1)
        return _decode(found[0][1][b"e"]) if found else None

    async def _ask(self, command: str, *args: Any) -> Any:
        if time.monotonic() < self._down_until:
            raise StoreUnavailable("the event log in Redis is not there at the moment")
        try:
            async with self._slots, asyncio.timeout(_TIMEOUT):
                await self._ready()
                return await getattr(self._client, command)(*args)
        except (self._said.RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            raise StoreUnavailable(f"the event log in Redis failed: {type(error).__name__}: {error}") from error

    def _join(self, follower: _Follower) -> None:
        shard = _shard(follower.answer_id)
        self._followers.setdefault(shard, set()).add(follower)
        if shard not in self._readers:
            self._readers[shard] = asyncio.create_task(self._read(shard))

    def _leave(self, follower: _Follower) -> None:
        self._followers.get(_shard(follower.answer_id), set()).discard(follower)

    async def _read(self, shard: int) -> None:
        """Read for all followers of a shard, while there are any."""
        followers = self._followers[shard]
        try:
            while followers:
                waiting: dict[str, int] = {}
                for follower in followers:
                    key = self._key(follower.answer_id)
                    waiting[key] = min(follower.seen, waiting.get(key, follower.seen))
                streams = {key: f"{seen}-0" for key, seen in waiting.items()}
                async with asyncio.timeout(_TIMEOUT + _BLOCK):
                    found = await self._reading.xread(streams, count=_PAGE, block=int(_BLOCK * 1000))
                for name, entries in found or ():
                    events = [_decode(fields[b"e"]) for _, fields in entries]
                    for follower in followers:
                        if self._key(follower.answer_id) == name.decode():
                            for event in events:
                                follower.take(event)
        except (self._said.RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            for follower in followers:
                follower.fail(error)
        except Exception as error:
            log.exception("an event in Redis cannot be read")
            for follower in followers:
                follower.fail(error)
        finally:
            del self._readers[shard]

    def _key(self, answer_id: str) -> str:
        return f"{self._prefix}{{{_shard(answer_id)}}}:{answer_id}"


def _shard(answer_id: str) -> int:
    return crc32(answer_id.encode()) % _SHARDS


def connect(url: str, connections: int) -> Any:
    """A client of at most so many connections. Raises ``ConfigError`` for a URL that is none."""
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.cluster import RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import ConstantBackoff
    from redis.exceptions import ConnectionError as Lost

    options: dict[str, Any] = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT, "protocol": 2}
    scheme, _, rest = url.partition("://")
    try:
        if scheme in ("redis+cluster", "rediss+cluster"):
            retry = Retry(ConstantBackoff(0.1), 3)
            url = f"{scheme.removesuffix('+cluster')}://{rest}"
            return RedisCluster.from_url(url, **options, retry=retry, max_connections=connections * 4)
        # A connection that a restart left dead is made anew at once.
        retry = Retry(ConstantBackoff(0), 1, supported_errors=(Lost,))
        pool = BlockingConnectionPool.from_url(
            url, max_connections=connections, timeout=_TIMEOUT, retry=retry, **options
        )
        return Redis.from_pool(pool)
    except ValueError as error:
        raise ConfigError(f"the URL of Redis cannot be used: {error}") from None
