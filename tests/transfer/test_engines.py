"""From engine to engine and back: nothing is lost on the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.postgres import Databases
from tests.redis_servers import Places
from tests.transfer.house import contents, furnish

import daram
from daram.testing.servers import RedisCluster, RedisServer
from daram.testing.suite.base import say
from daram.transfer.check import check
from daram.transfer.copy import copy


async def test_a_tour_of_all_engines(
    tmp_path: Path, databases: Databases, redis_server: RedisServer, redis_cluster: RedisCluster
) -> None:
    places = [
        f"sqlite:///{tmp_path}/start.db",
        await asyncio.to_thread(databases.url, tmp_path),
        Places(redis_server).url(tmp_path),
        "memory://",
        Places(redis_cluster).url(tmp_path),
        f"sqlite:///{tmp_path}/end.db",
    ]
    at = await daram.open(places[0])
    await furnish(at)
    wanted = await contents(at)
    for hop, place in enumerate(places[1:]):
        there = await daram.open(place)
        report = await copy(at, there)
        assert (report.complete, report.new, report.extra) == (True, 4, []), place
        assert await contents(there) == wanted, place
        assert (await check(there))[1] == [], place
        await say(at, f"later {hop}", id="long", owner="ben")
        wanted = await contents(at)
        assert (await copy(at, there)).replaced == 1
        assert await contents(there) == wanted, place
        await at.close()
        at = there
    assert [hit.id for hit in await at.search("ann", "meanwhile")] == ["meanwhile"]
    await at.close()
