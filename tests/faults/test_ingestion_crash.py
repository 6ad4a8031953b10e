"""``kill -9`` at each write of taking a document in, replacing it and deleting it, by a real process on a real file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.faults.checks import check_file, check_passages
from tests.faults.ingestion import check, killed


async def _survives(directory: Path, before: int) -> None:
    directory.mkdir()
    url = f"sqlite:///{directory}/daram.db"
    await check(url, killed(url, before))
    check_file(directory / "daram.db")
    check_passages(directory / "daram.db")


@pytest.mark.timeout(900)
async def test_a_process_killed_at_some_of_its_writes_loses_nothing(tmp_path: Path) -> None:
    said = killed(f"sqlite:///{tmp_path}/daram.db", -1)
    count = int(said.pop().split()[1])
    steps = [f"{step} {which}" for which in ("first", "second") for step in ("adding", "added", "ready")]
    assert said == [*steps, "removing", "removed"]
    await check(f"sqlite:///{tmp_path}/daram.db", said)
    # One of each sixth: the whole is in `make soak`.
    chance = random.Random()
    for part in range(6):
        before = chance.randrange(count * part // 6, count * (part + 1) // 6)
        print(f"killed before write {before} of {count}")
        await _survives(tmp_path / str(part), before)


@pytest.mark.soak
async def test_a_process_killed_at_each_of_its_writes_loses_nothing(tmp_path: Path) -> None:
    count = int(killed(f"sqlite:///{tmp_path}/daram.db", -1).pop().split()[1])
    for before in range(count):
        print(f"killed before write {before} of {count}")
        await _survives(tmp_path / str(before), before)
