"""The URLs of the Redis engine."""

from __future__ import annotations

import pytest

from daram.errors import ConfigError, MissingExtra
from daram.model import user
from daram.store import url as urls
from daram.store.redis.engine import RedisStore
from daram.store.url import store_from_url
from daram.testing.servers import RedisServer


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:1/0?wait=-1",
        "redis://h:1/0?wait=many",
        "redis://h:1/0?timeout=0",
        "redis://h:1/0?pool=4",
        "redis+cluster://h:1?wait=1",
        "redis+cluster://h:1/3",
        "redis+sentinel://h:26379",
        "redis+sentinel://h:26379/service/x",
        "redis+sentinel://h:port/service",
        "redis+sentinel://,h/service",
        "redis+other://h",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError):
        store_from_url(url)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://:secret-word@h:1/2?timeout=3", "redis://h:1/2"),
        ("rediss://ann:secret-word@h:1", "rediss://h:1"),
        ("redis+cluster://:secret-word@h:1", "redis+cluster://h:1"),
        ("redis+sentinel://:secret-word@h:1,i:2/service?wait=1", "redis+sentinel://h:1,i:2/service"),
        ("unix:///run/redis.sock?db=3", "unix:///run/redis.sock"),
    ],
)
def test_a_place_is_told_without_its_password(url: str, where: str) -> None:
    store = store_from_url(url)
    assert isinstance(store, RedisStore)
    assert store.server.where == where


async def test_over_a_socket_of_the_machine() -> None:
    server = RedisServer("valkey")
    server._settings["unixsocket"] = str(server.directory / "s")
    with server:
        store = store_from_url(f"unix://{server.directory}/s?db=3")
        await store.append("ann", "c", [user("x")], create=True)
        assert server.run("DBSIZE") == 0
        assert b"db3" in bytes(str(server.run("INFO", "keyspace")), "utf-8")
        await store.close()


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"daram\[redis\]"):
        store_from_url("redis://h")
