"""The connection: one client per event loop, scripts by their digests, and what the server says in Daram's words."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import redis.asyncio as aioredis
from redis import exceptions as said
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from daram.errors import (
    ConfigError,
    OutcomeUnknown,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

log = logging.getLogger("daram.redis")
_SCRIPTS = files("daram.store.redis").joinpath("scripts")
_COMMON = _SCRIPTS.joinpath("_common.lua").read_text("utf-8")
_ALONE = frozenset({"forget", "put_record", "delete_record"})


def _load() -> dict[str, tuple[str, str]]:
    found = {}
    for entry in _SCRIPTS.iterdir():
        name = entry.name.removesuffix(".lua")
        if not name.startswith("_") and entry.name.endswith(".lua"):
            text = entry.read_text("utf-8") if name in _ALONE else _COMMON + entry.read_text("utf-8")
            # Redis names scripts by their SHA-1: an address, not a safeguard.
            found[name] = (sha1(text.encode(), usedforsecurity=False).hexdigest(), text)
    return found


SCRIPTS = _load()


class Server:
    """A Redis or Valkey server, a cluster of them, or one behind Sentinel; a client for each event loop that asks.

    ``timeout``: seconds that one command may take; ``wait``: how many replicas must have a write before it counts.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, wait: int = 0) -> None:
        self._url = url
        self._timeout = timeout
        self._wait = wait
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._client: Any = None
        self._sentinel: Any = None
        parts = urlsplit(url)
        self.where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.is_cluster = parts.scheme in ("redis+cluster", "rediss+cluster")

    def client(self) -> Any:
        """The client of the running loop."""
        home = (os.getpid(), asyncio.get_running_loop())
        if self._client is None or self._home != home:
            # Sockets of another loop or of the parent process are not ours to use, nor to close.
            self._client = self._make(urlsplit(self._url))
            self._home = home
        return self._client

    def _make(self, parts: SplitResult) -> Any:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "decode_responses": False,
            "retry": None,
        }
        try:
            if self.is_cluster:
                scheme = parts.scheme.removesuffix("+cluster")
                del options["retry"]
                return RedisCluster.from_url(urlunsplit(parts._replace(scheme=scheme)), **options)
            if parts.scheme == "redis+sentinel":
                return self._by_sentinel(parts, options)
            return aioredis.Redis.from_url(self._url, **options)
        except ValueError as error:
            raise ConfigError(f"the store's URL for {self.where} cannot be used: {error}") from None

    def _by_sentinel(self, parts: SplitResult, options: dict[str, Any]) -> Any:
        service, _, database = parts.path.strip("/").partition("/")
        login, _, hosts = parts.netloc.rpartition("@")
        if not service:
            raise ConfigError("a Sentinel URL names its service: redis+sentinel://host:26379,host2:26379/service")
        places = []
        for host in hosts.split(","):
            at, _, port = host.rpartition(":") if ":" in host else (host, "", "26379")
            places.append((at, int(port)))
        if login:
            user, _, password = login.partition(":")
            options |= {"username": user or None, "password": password or None}
        self._sentinel = Sentinel(places, socket_timeout=self._timeout)
        return self._sentinel.master_for(service, db=int(database or 0), **options)

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any], *, writes: bool = True) -> Any:
        """Run a script: by its digest, sent whole where the server does not know it (after a restart, a failover)."""
        digest, text = SCRIPTS[name]
        client = self.client()

        async def work() -> Any:
            try:
                return await client.evalsha(digest, len(keys), *keys, *args)
            except said.NoScriptError:
                return await client.eval(text, len(keys), *keys, *args)

        return await self.call(work, writes=writes)

    async def call(self, work: Any, *, writes: bool = True) -> Any:
        """Await ``work()``; once more where the connection broke (every write can be repeated: its ids are drawn)."""
        for attempt in range(2):
            try:
                result = await work()
                if writes and self._wait and not self.is_cluster:
                    await self._replicated()
                return result
            except (said.ConnectionError, said.TimeoutError, OSError) as error:
                refused = isinstance(error, said.AuthenticationError | said.AuthorizationError)
                if attempt == 0 and not refused and not isinstance(error, said.TimeoutError):
                    continue
                raise self._translate(error, writes) from error
            except said.RedisError as error:
                raise self._translate(error, writes) from error
        raise AssertionError

    async def _replicated(self) -> None:
        have = await self.client().wait(self._wait, int(self._timeout * 1000))
        if have < self._wait:
            raise OutcomeUnknown(
                f"{self.where}: only {have} of {self._wait} replicas have the write so far; "
                "it is on the primary. Repeat it with the same message ids: nothing is stored twice"
            )

    def _translate(self, error: Exception, writes: bool) -> StoreError:
        text = str(error) or type(error).__name__
        where = self.where
        if isinstance(error, said.AuthenticationError | said.AuthorizationError | said.NoPermissionError):
            return StoreUnavailable(f"{where}: the server refuses the login ({text}); check user and password")
        if isinstance(error, said.OutOfMemoryError):
            return StoreFull(f"{where}: the server's memory is full ({text}); nothing of this call was stored")
        if isinstance(error, said.ReadOnlyError):
            return StoreReadOnly(f"{where}: is a replica and cannot be written ({text})")
        busy = ("LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS")
        if isinstance(error, said.BusyLoadingError | said.ClusterDownError | said.TryAgainError) or text.startswith(busy):
            return StoreBusy(f"{where}: is not ready ({text}); nothing was stored, try again")
        if "WRONGTYPE" in text or "MISCONF" in text:
            if "MISCONF" in text:
                return StoreFull(f"{where}: cannot write its data to disk ({text}); nothing was stored")
            return StoreCorrupt(f"{where}: a key of Daram's holds something else ({text})")
        if isinstance(error, said.TimeoutError) and writes:
            return OutcomeUnknown(
                f"{where}: did not answer within {self._timeout:g} s; the write may or may not be there. "
                "Repeat it with the same message ids: nothing is stored twice"
            )
        if isinstance(error, said.ConnectionError | said.TimeoutError | OSError):
            return StoreUnavailable(f"{where}: cannot be reached ({text}); check that the server runs")
        return StoreUnavailable(f"{where}: {type(error).__name__} ({text})")

    async def durability(self) -> tuple[str, list[str]]:
        """What a crash of the server can lose, by its own settings: one line, and warnings."""
        try:
            info: dict[str, str] = {}
            for name in ("appendonly", "appendfsync", "maxmemory-policy"):
                options: dict[str, Any] = {"target_nodes": "random"} if self.is_cluster else {}
                found = await self.client().config_get(name, **options)
                info |= {_text(k): _text(v) for k, v in found.items()}
        except said.RedisError as error:
            return f"unknown: the server does not tell its settings ({error})", []
        warnings = []
        if info.get("appendonly") != "yes":
            line = "appendonly no: what came after the last snapshot is lost when the server stops"
            warnings.append(line)
        elif info.get("appendfsync") == "always":
            line = "appendonly yes, appendfsync always"
        else:
            line = f"appendonly yes, appendfsync {info.get('appendfsync')}: a crash loses about the last second"
            warnings.append(line)
        policy = info.get("maxmemory-policy", "noeviction")
        if policy != "noeviction":
            warnings.append(f"maxmemory-policy {policy}: the server may throw conversations away; set noeviction")
        return line + ("" if policy == "noeviction" else f"; maxmemory-policy {policy}"), warnings

    async def close(self) -> None:
        """Close the running loop's client."""
        if self._client is not None and self._home == (os.getpid(), asyncio.get_running_loop()):
            await self._client.aclose()
        self._client = None


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
