"""A cache in Redis or Valkey (extra ``daram[redis]``): one key per conversation, one Lua call to change it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from daram.errors import MissingExtra

# Short: what the breaker's budget does not end, this does.
_SOCKET_TIMEOUT = 1.0


class RedisCache:
    """Values under ``prefix`` + the conversation's key, each for ``ttl`` seconds. No script or value is ever executed
    that did not come with Daram: values are bytes, the one script compares and sets them."""

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
        self._client: Any = Redis.from_url(
            url, socket_timeout=_SOCKET_TIMEOUT, socket_connect_timeout=_SOCKET_TIMEOUT, retry=retry
        )
        self._said = exceptions.ResponseError
        self._ttl_ms = max(1, int(ttl * 1000))
        self._prefix = prefix.encode()
        self._swap = self._client.register_script(files("daram.cache").joinpath("swap.lua").read_text("utf-8"))

    async def get(self, key: bytes) -> bytes | None:
        try:
            value = await self._client.get(self._prefix + key)
        except self._said as error:
            if "WRONGTYPE" not in str(error):
                raise
            return None  # somebody else's value in our key is as good as none
        return value if isinstance(value, bytes) else None

    async def put(self, key: bytes, value: bytes) -> None:
        await self._client.set(self._prefix + key, value, px=self._ttl_ms)

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        await self._swap(keys=[self._prefix + key], args=[stamp, value, self._ttl_ms])

    async def drop(self, key: bytes) -> None:
        await self._client.unlink(self._prefix + key)

    async def describe(self) -> str:
        info = await self._client.info("server")
        return f"Redis {info.get('redis_version', '?')} at {self._where}, {self._ttl_ms / 1000:g} s"

    async def close(self) -> None:
        await self._client.aclose()
