"""``kill -9`` in mid ``daram copy`` and ``daram import``, from SQLite to PostgreSQL: run again, everything is there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.faults.children import environment
from tests.postgres import Databases
from tests.transfer.house import contents, furnish

import daram
from daram.testing.proxy import TcpProxy
from daram.testing.suite.base import say
from daram.transfer.check import check

SHORT = 30
STRAIGHT = 600
# After how many round trips to the target it is killed; each run has more behind it than the one before.
KILLED_AT = (20, 120)


class HoldingProxy(TcpProxy):
    """Falls silent for good once ``hold_at`` requests went through, so that what is killed then is in mid-work."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.hold_at = 1 << 30
        self.held = asyncio.Event()

    async def pass_on(self) -> None:
        if self.round_trips >= self.hold_at:
            self.silent = True
            self.held.set()
        await super().pass_on()

    def hold(self, at: int) -> None:
        """Begin anew; what was held back goes on now, although its sender is dead."""
        self.round_trips, self.hold_at = 0, at
        self.held.clear()
        self.silent = False


@pytest.fixture
async def proxy(databases: Databases) -> AsyncIterator[HoldingProxy]:
    async with HoldingProxy(databases.server.port) as proxy:
        yield proxy


async def start(*words: str) -> asyncio.subprocess.Process:
    """``daram …`` in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "daram"),
        *words,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["copy", "import"])
async def test_killed_in_the_middle_it_is_run_again(
    what: str, databases: Databases, proxy: HoldingProxy, tmp_path: Path
) -> None:
    source, target = f"sqlite:///{tmp_path}/old.db", await asyncio.to_thread(databases.url, "target")
    by_proxy = databases.url("target", port=proxy.port)
    async with daram.open(source) as old:
        await furnish(old, STRAIGHT)
        for n in range(SHORT):
            await say(old, *(f"m{i}" for i in range(5)), id=f"c{n}", owner="dan")
        wanted = await contents(old)
    if what == "import":
        done = await start("export", str(tmp_path / "kept.jsonl"), "--store", source)
        said, _ = await done.communicate()
        assert done.returncode == 0, said
        command = ["import", str(tmp_path / "kept.jsonl"), "--store", by_proxy]
    else:
        command = ["copy", source, by_proxy]
    seen = 0
    for at in KILLED_AT:
        proxy.hold(at)
        process = await start(*command)
        ended = asyncio.create_task(process.wait())
        held = asyncio.create_task(proxy.held.wait())
        await asyncio.wait([ended, held], return_when=asyncio.FIRST_COMPLETED)
        assert not ended.done(), await process.stdout.read() if process.stdout else ""
        process.kill()
        await process.communicate()
        await ended
        async with daram.open(target) as new:
            found = await contents(new)
        # What can be seen of it is whole.
        assert {key: wanted[key] for key in found} == found
        assert seen <= len(found) < len(wanted)
        seen = len(found)
    assert seen > 0, "nothing had arrived before the last kill"
    proxy.hold(1 << 30)
    process = await start(*command)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    async with daram.open(target) as new:
        assert await contents(new) == wanted
        assert (await check(new))[1] == []
    process = await start(*command)
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert f"{SHORT + 4} equal already" in said.decode(), said.decode()
    assert " new" not in said.decode()
