"""The connection: one client per event loop, scripts by their digests, one retry where that is safe."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import redis.asyncio as aioredis
from redis import exceptions as said
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from daram.errors import ConfigError, DaramError, OutcomeUnknown, StoreUnavailable
from daram.store.redis.errors import is_an_answer, translate, was_not_sent
from daram.store.redis.lanes import Lanes, hang_up, pack

log = logging.getLogger("daram.redis")
_SCRIPTS = files("daram.store.redis").joinpath("scripts")
# These are not about a conversation.
_ALONE = frozenset({"forget", "due", "settle", "put_record", "delete_record", "drop_records", "purge_records"})
_WITH = "-- With: "
_CONNECTIONS = 64
# WAIT covers what was replicated up to the last write of its own connection, and a repeated call writes nothing. So
# something is written behind every call: to give a key more time is replicated always, and needs no memory.
_MARK = "daram:replicas"
_YEARS = 10 * 365 * 24 * 3600 * 1000
_EXTEND = ("PEXPIRE", _MARK, _YEARS)
_MAKE = ("SET", _MARK, "", "PX", _YEARS)
# Between two tries on a cluster, in seconds: a replica that takes over is waited for.
_PAUSE = 0.1


def _load() -> dict[str, tuple[str, str]]:
    """Name -> digest and text. The first line of a script names the parts that are put in front of it: what a script
    does not need would cost each of its calls a little, as its functions are made anew every time."""
    texts = {entry.name: entry.read_text("utf-8") for entry in _SCRIPTS.iterdir() if entry.name.endswith(".lua")}
    found = {}
    for file, text in texts.items():
        name = file.removesuffix(".lua")
        if name.startswith("_"):
            continue
        if name not in _ALONE:
            first = text.partition("\n")[0]
            parts = first.removeprefix(_WITH).split(", ") if first.startswith(_WITH) else []
            text = "".join(texts[f"_{part}.lua"] for part in ("common", *parts)) + text
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
        self._pid = os.getpid()
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, Lanes | None]]
        self._clients = weakref.WeakKeyDictionary()
        self._parents: list[Any] = []
        parts = urlsplit(url)
        self._parts = parts
        self.where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.is_cluster = parts.scheme in ("redis+cluster", "rediss+cluster")
        if self.is_cluster and wait:
            raise ConfigError("wait=… (WAIT) is not supported on a cluster; use its min-replicas-to-write")
        if self.is_cluster and parts.path not in ("", "/", "/0"):
            raise ConfigError(f"a cluster has database 0 only, not {parts.path!r}")
        if parts.scheme == "redis+sentinel":
            self._places(parts)

    def client(self) -> Any:
        """The driver's client of the running loop."""
        return self._here()[0]

    def _here(self) -> tuple[Any, Lanes | None]:
        """The client of the running loop; the lanes to its server, unless it is a cluster."""
        if self._pid != os.getpid():
            # Sockets of the parent process are not ours to use, nor to close: not even by being collected.
            self._parents.append(self._clients)
            self._clients = weakref.WeakKeyDictionary()
            self._pid = os.getpid()
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is None:
            self._leave_the_dead()
            client = self._make(self._parts)
            lanes = None if self.is_cluster else Lanes(client.connection_pool, self._timeout, _CONNECTIONS)
            found = self._clients[loop] = (client, lanes)
        return found

    def _leave_the_dead(self) -> None:
        """Close the connections of loops that have ended: they hold their loops, so that neither is ever collected."""
        for reference in self._clients.keyrefs():
            loop = reference()
            found = self._clients.pop(loop, None) if loop is not None and loop.is_closed() else None
            if found is not None:
                client, lanes = found
                hang_up([*(lanes.connections if lanes is not None else ()), *_connections_of(client)])

    def _make(self, parts: SplitResult) -> Any:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "protocol": 2,  # replies of one shape, whatever the release of the driver
            "retry": Retry(NoBackoff(), 0),  # ``call`` does that, and knows what the first try may have done
        }
        try:
            if self.is_cluster:
                url = urlunsplit(parts._replace(scheme=parts.scheme.removesuffix("+cluster"), path="", query=""))
                # Redirections and the search for the new map after a failover are the driver's work.
                return RedisCluster.from_url(url, **options, max_connections=10 * _CONNECTIONS)
            if parts.scheme == "redis+sentinel":
                return self._by_sentinel(parts, options)
            pool = aioredis.BlockingConnectionPool.from_url(
                self._url, max_connections=_CONNECTIONS, timeout=self._timeout, **options
            )
            return aioredis.Redis.from_pool(pool)
        except ValueError as error:
            raise ConfigError(f"the store's URL for {self.where} cannot be used: {error}") from None

    @staticmethod
    def _places(parts: SplitResult) -> tuple[list[tuple[str, int]], str, int]:
        """The Sentinels, the service and the number of the database."""
        service, _, database = parts.path.strip("/").partition("/")
        places = []
        for host in parts.netloc.rpartition("@")[2].split(","):
            at, sep, port = host.rpartition(":")
            if not (at if sep else host) or (sep and not port.isdecimal()):
                raise ConfigError(f"{host!r} is not the host:port of a Sentinel")
            places.append((at, int(port)) if sep else (host, 26379))
        if not service or (database and not database.isdecimal()):
            raise ConfigError("a Sentinel URL names its service: redis+sentinel://host:26379,host2:26379/service")
        return places, unquote(service), int(database or 0)

    def _by_sentinel(self, parts: SplitResult, options: dict[str, Any]) -> Any:
        places, service, database = self._places(parts)
        login = parts.netloc.rpartition("@")[0]
        if login:
            user, _, password = login.partition(":")
            options |= {"username": unquote(user) or None, "password": unquote(password) or None}
        asked = {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout, "protocol": 2}
        sentinel: Any = Sentinel(places, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]  # it has no types
        return sentinel.master_for(service, db=database, max_connections=10 * _CONNECTIONS, **options)

    # --- scripts ---

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any], *, writes: bool = True) -> Any:
        """Run a script: by its digest, sent whole where the server does not know it (after a restart, a failover).

        Raises the errors of ``daram.store.redis.errors``. It is run once more where its reply was lost: a script that
        writes must take a repetition for what it is.
        """
        digest, text = SCRIPTS[name]
        wait = self._wait if writes else 0
        rest = (len(keys), *keys, *args)

        async def work() -> Any:
            try:
                return await self._evaluate(("EVALSHA", digest, *rest), wait)
            except said.NoScriptError:
                return await self._evaluate(("EVAL", text, *rest), wait)

        return await self.call(work, writes=writes)

    async def _evaluate(self, command: Sequence[Any], wait: int) -> Any:
        if not wait:
            return await self._ask(command)
        # All go over the same connection, in one round trip.
        _, lanes = self._here()
        assert lanes is not None  # a cluster with wait is refused
        waiting = pack(("WAIT", wait, max(1, int(self._timeout * 500))))
        reply, marked, have = await lanes.ask(pack(command), pack(_EXTEND), waiting)
        if isinstance(reply, Exception):
            raise reply
        if marked == 0:  # the first call to this server, or since it was emptied
            marked, have = await lanes.ask(pack(_MAKE), waiting)
        if isinstance(marked, Exception) or not isinstance(have, int) or have < wait:
            why = f"({marked})" if isinstance(marked, Exception) else f"only {have} of {wait} replicas have it so far"
            raise OutcomeUnknown(
                f"{self.where}: the write is on the primary, but {why}. "
                "Repeat it with the same message ids: nothing is stored twice"
            )
        return reply

    async def _ask(self, command: Sequence[Any]) -> Any:
        client, lanes = self._here()
        if lanes is None:
            return await client.execute_command(*command)
        (reply,) = await lanes.ask(pack(command))
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def run_many(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run a script that only reads for many keys: one round trip, on a cluster many at once."""
        if self.is_cluster:
            return await asyncio.gather(*(self.run(name, keys, args, writes=False) for keys, args in calls))
        digest, text = SCRIPTS[name]
        return await self._many([("EVALSHA", digest, len(keys), *keys, *args) for keys, args in calls], text)

    async def do_many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send plain commands that only read: one round trip, on a cluster many at once."""
        if self.is_cluster:
            return await asyncio.gather(*(self.do(*command, writes=False) for command in commands))
        return await self._many(commands)

    async def _many(self, commands: Sequence[Sequence[Any]], script: str | None = None) -> list[Any]:
        """``script``: the one that they run, for a server that does not know it."""
        if not commands:
            return []

        async def work() -> list[Any]:
            _, lanes = self._here()
            assert lanes is not None
            replies = await lanes.ask(*map(pack, commands))
            if script is not None and any(isinstance(reply, said.NoScriptError) for reply in replies):
                await lanes.ask(pack(("SCRIPT", "LOAD", script)))
                replies = await lanes.ask(*map(pack, commands))
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

        found: list[Any] = await self.call(work, writes=False)
        return found

    async def do(self, *command: Any, writes: bool = True) -> Any:
        """Send one plain command."""
        return await self.call(lambda: self._ask(command), writes=writes)

    async def call(self, work: Callable[[], Awaitable[Any]], *, writes: bool = True) -> Any:
        """Await ``work()``; again where the connection broke: once, on a cluster, which may be choosing a new primary,
        three times. Whatever the driver raises comes out as an error of ``daram.store.redis.errors``."""
        unknown: Exception | None = None
        tries = 4 if self.is_cluster else 2
        while True:
            try:
                return await work()
            except DaramError:
                raise
            except Exception as error:
                tries -= 1
                again = not is_an_answer(error) or (self.is_cluster and isinstance(error, said.ClusterDownError))
                if not is_an_answer(error) and not was_not_sent(error):
                    unknown = unknown or error
                if not again or not tries or isinstance(error, said.TimeoutError | TimeoutError):
                    raise translate(unknown or error, self.where, writes=writes) from error
            if self.is_cluster:
                await asyncio.sleep(_PAUSE)

    # --- what the server is ---

    async def facts(self) -> dict[str, Any]:
        """``INFO server`` (of any node)."""
        options: dict[str, Any] = {"target_nodes": "random"} if self.is_cluster else {}
        found: dict[str, Any] = await self.call(lambda: self.client().info("server", **options), writes=False)
        return found

    async def durability(self) -> tuple[str, list[str]]:
        """What a crash of the server can lose, by its own settings: one line, and warnings."""
        info: dict[str, str] = {}
        options: dict[str, Any] = {"target_nodes": "random"} if self.is_cluster else {}

        async def ask() -> None:
            for name in ("appendonly", "appendfsync", "maxmemory-policy"):
                found = await self.client().config_get(name, **options)
                info.update({_text(key): _text(value) for key, value in found.items()})

        try:
            await self.call(ask, writes=False)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, said.ResponseError):
                raise
            line = f"not known: the server does not tell its settings ({error.__cause__})"
            return line, [line]
        warnings = []
        if info.get("appendonly") != "yes":
            line = "appendonly no: what came after the last snapshot is lost when the server stops"
            warnings.append(line)
        elif info.get("appendfsync") == "always":
            line = "appendonly yes, appendfsync always"
        else:
            line = f"appendonly yes, appendfsync {info.get('appendfsync')}: a crash of its machine loses about a second"
            warnings.append(line)
        policy = info.get("maxmemory-policy", "noeviction")
        if policy != "noeviction":
            warnings.append(f"maxmemory-policy {policy}: the server may throw conversations away; set noeviction")
            line = f"{line}; {warnings[-1]}"
        return line, warnings

    async def close(self) -> None:
        """Close the running loop's client; each loop closes its own."""
        found = self._clients.pop(asyncio.get_running_loop(), None) if self._pid == os.getpid() else None
        if found is None:
            return
        client, lanes = found
        try:
            if lanes is not None:
                await lanes.close()
            await client.aclose()
            if not self.is_cluster:
                pool = client.connection_pool
                await pool.disconnect()
                for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
                    await sentinel.aclose()
        except (said.RedisError, OSError, RuntimeError, AttributeError) as error:  # it is gone all the same
            log.debug("closing the connections to %s: %r", self.where, error)


def _connections_of(client: Any) -> list[Any]:
    """Those that the driver keeps itself."""
    if isinstance(client, RedisCluster):
        client._initialize = True  # closed, as the driver sees it
        manager: Any = client.nodes_manager
        nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
        return [connection for node in nodes for connection in node._connections]
    pool = client.connection_pool
    found = [*pool._available_connections, *pool._in_use_connections]
    for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
        found += _connections_of(sentinel)
    return found


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
