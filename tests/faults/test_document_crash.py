"""``kill -9`` while documents are stored: the old revision stays whole, the new one is never half visible, and nothing
is left over. The same on every engine that keeps documents, looked at through the store and from below."""

from __future__ import annotations

import asyncio
import random
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest
from msgspec import structs
from tests import postgres
from tests.faults.checks import check_file, check_passages
from tests.faults.children import start
from tests.knowledge.texts import left
from tests.postgres import Databases

import daram
from daram.errors import NotFound, StoreUnavailable
from daram.knowledge import base
from daram.knowledge.documents import Documents
from daram.store.documents import Document, Scope
from daram.testing.servers import PostgresServer
from daram.testing.suite.documents import MODEL, document, passage, publish
from daram.text.chunk import Chunking

SCOPE = Scope("ann", "c")


class House(NamedTuple):
    """A store to be: its URL, what raises AssertionError where what is stored does not fit together, and how many
    passages there are, seen or unseen."""

    url: str
    check: Callable[[], None]
    passages: Callable[[], int]

    async def shrinks_to(self, passages: int) -> None:
        """Until no others are left: SQLite removes what nobody sees any more in steps."""
        async with asyncio.timeout(120):
            while self.passages() > passages:
                await asyncio.sleep(0.02)
        assert self.passages() == passages


@pytest.fixture(params=["sqlite", "postgres"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    if request.param == "sqlite":
        path = tmp_path / "daram.db"

        def check() -> None:
            check_file(path)
            check_passages(path)

        def stored() -> int:
            with closing(apsw.Connection(str(path))) as db:
                return int(db.execute("SELECT count(*) FROM passage").get)  # type: ignore[arg-type]  # one number

        return House(f"sqlite:///{path}", check, stored)
    databases: Databases = request.getfixturevalue("databases")

    def rows() -> int:
        with databases.server.connect(databases.name("crash")) as connection:
            return int(connection.execute("SELECT count(*) FROM daram.passage").fetchall()[0][0])

    return House(databases.url("crash"), lambda: postgres.check_passages(databases, "crash"), rows)


SIZE = 60
# Publishes one revision after the other; says before each staging and publishing what it is about to do, and after
# each publishing what was acknowledged.
PUBLISHER = (
    f"SIZE = {SIZE}"
    """
from daram.testing.suite.documents import passage
from daram.store.sqlite import documents
documents._TOGETHER = 7  # more moments to be killed at

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def main():
    store = await daram.open(sys.argv[2])
    stored = await store.get_document("ann", "c", "d")
    first = int(sys.argv[3])
    for i in range(first, first + 10_000):
        say("staging", i)
        vector = [1.0, i % 7, 0.0, 0.0]
        passages = [passage(j, f"nut {i} {j} " + "leaf " * 200, vector) for j in range(SIZE)]
        for part in range(0, SIZE, 20):
            await store.stage_passages("ann", "c", "d", f"r{i}", passages[part:part + 20])
            say("staged", i)
        say("publishing", i)
        stored = await store.publish_document(stored, f"r{i}", expect=stored.etag)
        say("published", i)

asyncio.run(main())
"""
)


@pytest.mark.timeout(300)
async def test_a_killed_ingestion_leaves_one_whole_revision(house: House, tmp_path: Path) -> None:
    async with daram.open(house.url) as store:
        await store.put_document(document())
    chance = random.Random(5)
    number, acknowledged = 0, None
    for last in ("staging", "staged", "publishing", "published", "publishing"):
        tried = acknowledged
        with start(PUBLISHER, tmp_path, house.url, str(number)) as child:
            assert child.stdout is not None
            said: list[str] = []
            rounds = chance.randrange(1, 3)
            # Killed behind a certain step, some rounds later; how far it came meanwhile shows in what it said.
            for line in child.stdout:
                said.append(line)
                if sum(word.startswith(last) for word in said) > rounds * (3 if last == "staged" else 1):
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
        async with daram.open(house.url) as store:
            stored = await store.get_document("ann", "c", "d")
            found = {hit.passage.text.split()[1] for hit in await store.search_passages([SCOPE], "nut", limit=900)}
            kept = await store.passages("ann", "c", "d", limit=1000)
            assert [p.seq for p in kept] == (list(range(SIZE)) if stored.revision else [])
            assert stored.passages == len(kept)
            assert stored.revision in {None if i is None else f"r{i}" for i in (acknowledged, tried)}
            assert found == {p.text.split()[1] for p in kept} == ({stored.revision[1:]} if stored.revision else set())
            acknowledged = None if stored.revision is None else int(stored.revision[1:])
        house.check()
    assert acknowledged is not None
    async with daram.open(house.url) as store:  # what the dead had staged goes with the next that is published
        await publish(store, await store.get_document("ann", "c", "d"), "acorn", revision="whole")
        await house.shrinks_to(1)
        assert [hit.passage.text for hit in await store.search_passages([SCOPE], "acorn nut leaf")] == ["acorn"]
    house.check()


# Reads what waits, as the worker of a service does; says how far it is, and goes on when it is told to.
READER = """
from daram.knowledge import extract
from daram.knowledge.documents import Documents
from daram.text.load import Section, load

async def sections(path, *, name, media_type=None, limits=None):
    for section in load(path, name=name, media_type=media_type):
        yield section

extract.sections = sections  # in this process

def step(store, name):
    real = getattr(store, name)
    async def told(*args, **options):
        print(name, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        return await real(*args, **options)
    setattr(store, name, told)

async def main():
    async with daram.open(sys.argv[2]) as memory:
        for name in ("stage_passages", "publish_document"):
            step(memory, name)
        reader = Documents(memory)
        reader.ingester._lease = 2.0
        while (await memory.get_document("ann", "c", sys.argv[3])).state != "ready":
            await reader.ingester.sweep()
            await asyncio.sleep(0.05)
        print("ready", flush=True)

asyncio.run(main())
"""


class Pump:
    """Tells readers to go on, until one of them comes to ``step`` for the second time, or to the only one of its kind:
    that one is killed."""

    def __init__(self, step: str) -> None:
        self.killed: list[subprocess.Popen[str]] = []
        self._step = step
        self._guard = threading.Lock()

    def run(self, child: subprocess.Popen[str]) -> bool:
        """Whether the reader came to its end."""
        assert child.stdout is not None
        assert child.stdin is not None
        seen = 0
        for line in child.stdout:
            if line == "ready\n":
                return True
            seen += line == f"{self._step}\n"
            with self._guard:
                if not self.killed and seen == (1 if self._step == "publish_document" else 2):
                    self.killed.append(child)
                    child.kill()
                    continue
            with suppress(BrokenPipeError):
                child.stdin.write("\n")
        return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", ["stage_passages", "publish_document"])
async def test_of_two_processes_one_reads_a_document_and_the_other_goes_on_when_it_is_killed(
    house: House, tmp_path: Path, step: str
) -> None:
    async with daram.open(house.url) as memory:
        documents = Documents(memory)
        added = await _added(documents, "a.txt")
        pump = Pump(step)
        with start(READER, tmp_path, house.url, added.id) as one, start(READER, tmp_path, house.url, added.id) as two:
            ended = await asyncio.gather(*(asyncio.to_thread(pump.run, child) for child in (one, two)))
        assert len(pump.killed) == 1
        assert sorted(ended) == [False, True]
        await _is_whole(documents, house, added)
        assert await left(memory, "ann") == {base.COLLECTIONS, base.FILES, base.BLOBS}
    house.check()


async def _added(documents: Documents, name: str) -> Document:
    """A document of some 900 passages, that waits."""
    await documents.create("ann", id="c", chunking=Chunking(size=60, overlap=0))
    text = "\n\n".join(f"The squirrel number {i} hides its acorns well." for i in range(900))
    return await documents.add("ann", "c", text.encode(), name=name)


async def _is_whole(documents: Documents, house: House, added: Document) -> None:
    ready = await documents.get("ann", "c", added.id)
    assert ready.state == "ready"
    await house.shrinks_to(ready.passages)
    for i in (0, 450, 899):
        result = await documents.search("ann", f"number {i}", "c")
        assert f"squirrel number {i} hides" in result.passages[0].text


async def test_what_is_deleted_while_it_is_stored_is_gone(house: House) -> None:
    async with daram.open(house.url) as store:

        async def ingest(stored: Document) -> None:
            for part in range(3):
                some = [passage(10 * part + i, f"nut {i}", [1, i, 0, 0]) for i in range(10)]
                await store.stage_passages("ann", "c", "d", "r", some)
            await store.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)

        async def remove(number: int) -> None:
            for _ in range(3 * number):
                await asyncio.sleep(0)
            if number % 3:
                await store.delete_document("ann", "c", "d")
            else:
                await store.delete_collection("ann", "c")

        for number in range(12):
            stored = await store.put_document(document())
            error, nothing = await asyncio.gather(ingest(stored), remove(number), return_exceptions=True)
            assert nothing is None
            assert error is None or isinstance(error, NotFound)
            with pytest.raises(NotFound):
                await store.get_document("ann", "c", "d")
            assert await store.search_passages([SCOPE], "nut") == []
        await house.shrinks_to(0)
    house.check()


@pytest.mark.timeout(300)
async def test_a_server_that_ends_while_a_document_is_read_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed and back at once, one step is made again; away for longer, the document waits and is read anew."""
    with PostgresServer() as server:
        name = server.database()
        async with daram.open(server.url_of(name)) as memory:
            documents = Documents(memory)
            documents.ingester._lease = 1.0
            stage = memory.stage_passages
            calls = 0

            async def ended(*args: Any) -> None:
                nonlocal calls
                calls += 1
                if calls == 2:
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                elif calls == 4:
                    await asyncio.to_thread(server.stop)
                await stage(*args)

            monkeypatch.setattr(memory, "stage_passages", ended)
            added = await _added(documents, "a.txt")
            with pytest.raises(StoreUnavailable):
                await documents.ingester.sweep()
            await asyncio.to_thread(server.start)
            assert (await documents.get("ann", "c", added.id)).state == "reading"
            ready = await documents.wait(added)
            assert [p.seq for p in await memory.passages("ann", "c", added.id, limit=1000)] == [*range(ready.passages)]
            assert ready.passages == 900
        with server.connect(name) as connection:
            for table, count in (("revision", 1), ("passage", 900)):
                query = f"SELECT count(*) FROM daram.{table}"
                assert connection.execute(query.encode()).fetchone() == (count,)
