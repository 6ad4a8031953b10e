"""The Redis and Valkey servers that the tests share: started once each, emptied for each place that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from daram.testing.servers import RedisCluster, RedisServer


class Place(Protocol):
    """Where a store is opened."""

    @property
    def url(self) -> str: ...

    def flush(self) -> None: ...


class Places:
    """One test at a time: a name that was not seen before begins with an empty server."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._at: object = None

    def url(self, name: object) -> str:
        if name != self._at:
            self.place.flush()
            self._at = name
        return self.place.url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer("redis") as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    with RedisServer("valkey") as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    with RedisCluster("redis") as cluster:
        yield cluster
