"""The Redis engine keeps the contract: on Redis, Valkey and a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.redis_servers import Places

from daram import ids
from daram.store.base import Store
from daram.store.redis import keys
from daram.store.redis.engine import RedisStore
from daram.testing import StoreTests
from daram.testing.servers import RedisCluster, RedisServer
from daram.testing.suite.base import RawMessage


class TestRedisStore(StoreTests):
    searches_everywhere = False

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.places = Places(redis_server)
        self.nodes = [redis_server]

    async def open_store(self, where: Path) -> Store:
        return RedisStore(self.places.url(where))

    async def raw_messages(self, where: Path, owner: str, id: str) -> list[RawMessage]:
        name = keys.of_conversation(ids.conversation_key(owner, id))[1]
        rows: list[list[bytes]] = []
        for node in self.nodes:
            if len(self.nodes) == 1 or name.encode() in node.run("KEYS", "*"):
                rows = [value.split(b"\n", 8) for value in node.run("LRANGE", name, 0, -1)]
        names: list[str | None] = [None, *(row[7].decode() for row in rows)]
        return [
            RawMessage(seq, row[7].decode(), names[int(row[0])], row[4].decode(), _text(row[8]))
            for seq, row in enumerate(rows, 1)
        ]


def _text(blob: bytes) -> str:
    import msgspec

    return str(msgspec.msgpack.decode(blob).get("x", "")) if blob else ""


class TestValkeyStore(TestRedisStore):
    @pytest.fixture(autouse=True)
    def _server(self, valkey_server: RedisServer) -> None:
        self.places = Places(valkey_server)
        self.nodes = [valkey_server]


class TestRedisClusterStore(TestRedisStore):
    @pytest.fixture(autouse=True)
    def _server(self, redis_cluster: RedisCluster) -> None:
        self.places = Places(redis_cluster)
        self.nodes = list(redis_cluster.nodes)
