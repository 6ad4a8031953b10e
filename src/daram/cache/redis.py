"""A cache in Redis or Valkey (extra ``daram[redis]``): one key per conversation, one Lua call to change it."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from importlib.resources import files
from typing import Any

from daram.errors import MissingExtra

# Short: what the breaker's budget does not end, this does.
_SOCKET_TIMEOUT = 1.0


class RedisCache:
    """Values under ``prefix`` + the conversation's key, each for ``ttl`` seconds. No script or value is ever executed
    that did not come with Daram: values are bytes, the one script compares and sets them.

    Safe from several event loops, in threads or one after the other, and on both sides of a fork: each has connections
    of its own.
    """

    def __init__(self, url: str, *, ttl: float = 600.0, prefix: str = "daram:cache:") -> None:
        try:
            from redis import exceptions
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise MissingExtra("a cache in Redis", "redis") from error
        self._where = url.rpartition("@")[2]
        # A connection that a restart left dead is made anew at once; more patience is the breaker's matter.
        retry = Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,))

        def make() -> Any:
            return Redis.from_url(
                url, socket_timeout=_SOCKET_TIMEOUT, socket_connect_timeout=_SOCKET_TIMEOUT, retry=retry
            )

        make()  # a URL that cannot be used is refused here
        self._make = make
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        self._guard = threading.Lock()
        self._pid = os.getpid()
        self._parents: list[Any] = []
        self._said = exceptions.ResponseError
        self._ttl_ms = max(1, int(ttl * 1000))
        self._prefix = prefix.encode()
        self._script = files("daram.cache").joinpath("swap.lua").read_text("utf-8")

    def _client(self) -> tuple[Any, Any]:
        """The client of the running event loop, and the script on it."""
        if self._pid != os.getpid():
            # Sockets of the parent process are not ours to use, nor to close: not even by being collected.
            self._parents.append(self._clients)
            self._clients = weakref.WeakKeyDictionary()
            self._guard = threading.Lock()
            self._pid = os.getpid()
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is None:
            with self._guard:
                self._hang_up_ended()
                client = self._make()
                found = self._clients[loop] = (client, client.register_script(self._script))
        return found

    async def get(self, key: bytes) -> bytes | None:
        try:
            value = await self._client()[0].get(self._prefix + key)
        except self._said as error:
            if "WRONGTYPE" not in str(error):
                raise
            return None  # somebody else's value in our key is as good as none
        return value if isinstance(value, bytes) else None

    async def put(self, key: bytes, value: bytes) -> None:
        await self._client()[0].set(self._prefix + key, value, px=self._ttl_ms)

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        await self._client()[1](keys=[self._prefix + key], args=[stamp, value, self._ttl_ms])

    async def drop(self, key: bytes) -> None:
        await self._client()[0].unlink(self._prefix + key)

    async def describe(self) -> str:
        info = await self._client()[0].info("server")
        return f"Redis {info.get('redis_version', '?')} at {self._where}, {self._ttl_ms / 1000:g} s"

    async def close(self) -> None:
        """Close the connections of this event loop, and of those that have ended; a running one closes its own."""
        if self._pid != os.getpid():
            return
        with self._guard:
            self._hang_up_ended()
            found = self._clients.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found[0].aclose()

    def _hang_up_ended(self) -> None:
        for ended in [loop for loop in self._clients if loop.is_closed()]:
            _hang_up(self._clients.pop(ended)[0])


def _hang_up(client: Any) -> None:
    """Close the connections of an event loop without its help: it has ended, and can do nothing any more."""
    pool = client.connection_pool
    for connection in [*pool._available_connections, *pool._in_use_connections]:
        writer, connection._reader, connection._writer = connection._writer, None, None
        if writer is None:
            continue
        try:
            writer.transport.abort()
        except RuntimeError:  # the loop that would close the socket is closed
            wrapped = getattr(writer.transport, "_ssl_protocol", None)
            transport = writer.transport if wrapped is None else wrapped._transport
            socket = getattr(transport, "_sock", None)
            if socket is not None:
                transport._sock = None
                socket.close()
