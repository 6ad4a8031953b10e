"""``kill -9`` in mid-stage and mid-publish: the old revision stays whole, the new one is never half visible."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.faults.checks import check_file, check_passages
from tests.faults.children import start

from daram.store.documents import Scope
from daram.store.sqlite.engine import SqliteStore
from daram.testing.suite.documents import document

SIZE = 60
# Publishes one revision after the other; says before each staging and publishing what it is about to do, and after
# each publishing what was acknowledged.
CHILD = (
    f"SIZE = {SIZE}"
    """
from daram.testing.suite.documents import passage
from daram.store.sqlite import documents
documents._TOGETHER = 7  # more moments to be killed at

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def main():
    store = SqliteStore(path)
    stored = await store.get_document("ann", "c", "d")
    first = int(sys.argv[2])
    for i in range(first, first + 10_000):
        say("staging", i)
        vector = [1.0, i % 7, 0.0, 0.0]
        passages = [passage(j, f"nut {i} {j} " + "leaf " * 200, vector) for j in range(SIZE)]
        await store.stage_passages("ann", "c", "d", f"r{i}", passages)
        say("publishing", i)
        stored = await store.publish_document(stored, f"r{i}", expect=stored.etag)
        say("published", i)

asyncio.run(main())
"""
)


@pytest.mark.timeout(240)
async def test_a_killed_ingestion_leaves_one_whole_revision(tmp_path: Path) -> None:
    path = tmp_path / "daram.db"
    async with SqliteStore(path) as store:
        await store.put_document(document())
    chance = random.Random(5)
    number, acknowledged = 0, None
    for round in range(6):
        tried = acknowledged
        with start(CHILD, path, str(number)) as child:
            assert child.stdout is not None
            said: list[str] = []
            # Killed a random number of lines and a random moment later; at which step shows in what it said.
            for line in child.stdout:
                said.append(line)
                if len(said) > 3 * round + chance.randrange(3):
                    break
            child.kill()
            said += [line for line in child.stdout if line.endswith("\n")]
        for line in said:
            step, i = line.split()
            number = int(i) + 1
            if step == "publishing":
                tried = int(i)
            elif step == "published":
                acknowledged = int(i)
        async with SqliteStore(path) as store:
            stored = await store.get_document("ann", "c", "d")
            found = {
                hit.passage.text.split()[1]
                for hit in await store.search_passages([Scope("ann", "c")], "nut", limit=900)
            }
            kept = await store.passages("ann", "c", "d", limit=1000)
            assert [p.seq for p in kept] == (list(range(SIZE)) if stored.revision else [])
            assert stored.passages == len(kept)
            assert stored.revision in {None if i is None else f"r{i}" for i in (acknowledged, tried)}
            assert found == {p.text.split()[1] for p in kept} == ({stored.revision[1:]} if stored.revision else set())
            acknowledged = None if stored.revision is None else int(stored.revision[1:])
        check_file(path)
        check_passages(path)
    assert acknowledged is not None
