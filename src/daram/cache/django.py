"""Any Django cache by its alias (``django:default``), so that a project uses the one that it has configured."""

from __future__ import annotations

import asyncio
from typing import Any

from daram.cache.entry import STAMP
from daram.errors import ConfigError, MissingExtra


class DjangoCache:
    """The cache ``CACHES[alias]`` of the surrounding Django project.

    Django's caches cannot compare and set: ``swap`` reads and then writes. That is as safe, since entries are compared
    with the engine's etag in any case, and costs one more miss now and then. Values are bytes: whatever serialiser the
    backend uses (django-redis: pickle), nothing of ours depends on it.
    """

    def __init__(self, alias: str = "default", *, ttl: float = 600.0, prefix: str = "daram:cache:") -> None:
        try:
            from django.core.cache import InvalidCacheBackendError, caches
            from django.core.exceptions import ImproperlyConfigured
            from django.db import close_old_connections
        except ImportError as error:
            raise MissingExtra("Django's cache", "django") from error
        try:
            self._kind = type(caches[alias]).__name__
        except InvalidCacheBackendError as error:
            raise ConfigError(f"Django has no cache {alias!r} in CACHES: {error}") from None
        except ImproperlyConfigured as error:
            raise ConfigError(f"Django's settings are not set up: {error}") from None
        self._caches: Any = caches
        self._close_old_connections = close_old_connections
        self._alias = alias
        self._ttl = ttl
        self._prefix = prefix

    def _key(self, key: bytes) -> str:
        return self._prefix + key.hex()

    async def _ask(self, operation: str, *arguments: Any) -> Any:
        # Not by Django's own asynchronous methods: they run on the thread of the request, which may be waiting for us.
        return await asyncio.get_running_loop().run_in_executor(None, self._call, operation, arguments)

    def _call(self, operation: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return getattr(self._caches[self._alias], operation)(*arguments)  # each thread has a client of its own
        finally:
            self._close_old_connections()  # a cache in a database's table uses one, on this thread

    async def get(self, key: bytes) -> bytes | None:
        value = await self._ask("get", self._key(key))
        return value if isinstance(value, bytes) else None

    async def put(self, key: bytes, value: bytes) -> None:
        await self._ask("set", self._key(key), value, self._ttl)

    async def swap(self, key: bytes, stamp: bytes, value: bytes) -> None:
        found = await self.get(key)
        if found is None or found[:STAMP] == stamp:
            await self.put(key, value)
        else:
            await self.drop(key)

    async def drop(self, key: bytes) -> None:
        await self._ask("delete", self._key(key))

    async def describe(self) -> str:
        return f"Django's cache {self._alias!r} ({self._kind}), {self._ttl:g} s"

    async def close(self) -> None:
        # The cache is Django's: it closes its connections itself.
        return
