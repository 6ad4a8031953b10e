"""``copy`` takes documents along: with passages, vectors, originals and references, from engine to engine."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.postgres import Databases

import daram
from daram.errors import NotFound, OutcomeUnknown, StoreUnavailable
from daram.knowledge.base import library
from daram.knowledge.documents import Documents
from daram.memory import Memory
from daram.store.documents import Document, Passage, PassageVector, Scope, Unembedded
from daram.store.memory import MemoryStore
from daram.testing import FaultyStore
from daram.testing.faulty import Fault
from daram.transfer.copy import Report, copy, scanned_records
from daram.transfer.documents import embedded, scanned_documents

SIZE = 250  # passages of the long document: several calls
BIG = Scope("ann", "big")


def vector(*numbers: float) -> bytes:
    length = sum(x * x for x in numbers) ** 0.5
    return array("f", (x / length for x in numbers)).tobytes()


async def furnish(memory: Memory) -> None:
    """A long embedded document, one between two models, one that waits, one that failed, a file, a reference."""
    documents, store = Documents(memory), library(memory)
    await memory.append("ann", "chat", [daram.user("hello")], create=True)
    await documents.create("ann", id="big", name="Big", metadata={"k": "v"})
    for id, count in (("long", SIZE), ("mixed", 3)):
        there = await store.put_document(Document(owner="ann", collection="big", id=id, name=f"{id}.txt"))
        for start in range(0, count, 100):
            seqs = range(start, min(start + 100, count))
            passages = [passage(n, f"{id} acorn {n} 다람쥐", vector(1, n, 0.5)) for n in seqs]
            await store.stage_passages("ann", "big", id, f"rev_{id}", passages)
        ready = msgspec.structs.replace(there, state="ready", embedder="one:3", metadata={"n": 3, "yes": True})
        await store.publish_document(ready, f"rev_{id}", expect=there.etag)
    place = Unembedded(scope=BIG, document="mixed", revision="rev_mixed", seq=1, text="")
    await store.put_vectors("two:3", [(place, vector(0, 0, 1))])
    await documents.add("ann", "notes", b"What waits is read where it arrives.", name="waiting.txt")
    await documents.add("ann", "notes", b"%PDF-1.7 no", name="broken.pdf", wait=True)
    await documents.files.put("ben", "upload.txt", b"x" * 700_000)
    await documents.put_reference("ben", "BOOKS", 1, "One", "The text of the reference. " * 20)


def passage(seq: int, text: str, of: bytes) -> Passage:
    heading = ("Top", f"Part {seq}") if seq % 2 else ()
    return Passage(seq=seq, text=text, start=seq * 100, end=seq * 100 + 50, page=seq + 1, heading=heading, vector=of)


async def contents(memory: Memory) -> dict[Any, Any]:
    """All that a copy must keep of documents."""
    store = library(memory)
    held: dict[Any, Any] = {}
    async for page in scanned_documents(store):
        for document in page:
            passages = [one async for some in embedded(store, document) for one in some]
            held[document.owner, document.collection, document.id] = (
                msgspec.structs.replace(document, etag=""),
                passages,
            )
    async for records in scanned_records(memory):
        held |= {(r.owner, r.record.namespace, r.record.key): r.record.value for r in records}
    return held


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[Memory]:
    async with daram.open(f"sqlite:///{tmp_path}/old.db") as memory:
        await furnish(memory)
        yield memory


def in_memory() -> Memory:
    return Memory(MemoryStore(), "memory://")


async def test_from_sqlite_to_postgresql_and_back(old: Memory, databases: Databases, tmp_path: Path) -> None:
    wanted = await contents(old)
    url = await asyncio.to_thread(databases.url, tmp_path)
    async with daram.open(url) as there, daram.open(f"sqlite:///{tmp_path}/back.db") as back:
        for source, target in ((old, there), (there, back)):
            report = await copy(source, target)
            assert report.complete
            assert (report.documents, report.documents_written, report.documents_left) == (5, 5, 0)
            assert await contents(target) == wanted
            store = library(target)
            near = await store.nearest_passages([BIG], [0, 0, 1], "two:3", limit=3)
            assert [(hit.document, hit.passage.seq) for hit in near] == [("mixed", 1)]
            assert len(await store.nearest_passages([BIG], [1, 0, 0], "one:3", limit=500)) == SIZE + 2
            assert len(await store.search_passages([BIG], "다람쥐", limit=500)) == SIZE + 3
            again = await copy(source, target)
            assert (again.documents_written, again.documents_equal, again.records_written) == (0, 5, 0)
        documents = Documents(back)
        [waiting] = [d for d in (await documents.list("ann", "notes")).items if d.name == "waiting.txt"]
        assert (await documents.wait(waiting)).state == "ready"
        assert (await documents.search("ann", "What waits?", "notes")).passages
        reference = await documents.reference("ben", "BOOKS", 1)
        assert (await documents.references.text(reference))[1].startswith("The text of the reference.")
        upload = (await documents.files.list("ben")).items[0]
        assert b"".join([piece async for piece in documents.files.read(upload)]) == b"x" * 700_000


async def test_running_it_again_writes_nothing(old: Memory) -> None:
    new = in_memory()
    await copy(old, new)
    faulty = FaultyStore(new.inner)
    assert (await copy(old, Memory(faulty, ""))).complete
    assert not {"load_document", "stage_passages", "put_vectors", "put_record", "discard_revision"} & set(faulty.calls)


@pytest.mark.parametrize(("operation", "at"), [("load_document", n) for n in range(4)] + [("stage_passages", 2)])
@pytest.mark.parametrize("kind", ["raise", "act then raise"])
async def test_an_interrupted_copy_is_run_again(old: Memory, operation: str, at: int, kind: Any) -> None:
    new = in_memory()
    faulty = FaultyStore(new.inner)
    faulty.plan(operation, *[None] * at, Fault(kind=kind))
    with pytest.raises((StoreUnavailable, OutcomeUnknown)):
        await copy(old, Memory(faulty, ""))
    assert not faulty.pending
    hits = await library(new).search_passages([BIG], "acorn", limit=500)
    whole = {"long": SIZE, "mixed": 3}
    for id in {hit.document for hit in hits}:  # what is found is found whole
        assert sum(hit.document == id for hit in hits) == whole[id]
    assert (await copy(old, new)).complete
    assert await contents(new) == await contents(old)


async def test_what_changed_at_the_source_takes_the_place_of_what_was(old: Memory) -> None:
    new = in_memory()
    documents, there = Documents(old), Documents(new)
    await documents.add("ann", "own", b"The first version.", name="a.txt", wait=True)
    await copy(old, new)
    was = (await there.list("ann", "own")).items[0]
    await documents.add("ann", "own", b"The second version.", name="a.txt", wait=True)
    assert (await copy(old, new)).documents_written == 1
    assert [hit.text for hit in (await there.search("ann", "version", "own")).passages] == ["The second version."]
    with pytest.raises(NotFound):
        await there.files.get("ann", was.source or "")
    [kept] = [f for f in (await there.files.list("ann")).items if f.document and f.document[0] == "own"]
    assert kept.id == (await documents.list("ann", "own")).items[0].source


async def test_what_the_target_changed_later_is_left_alone_and_named(old: Memory) -> None:
    new = in_memory()
    await copy(old, new)
    store = library(new)
    stored = await store.get_document("ann", "big", "long")
    await store.put_document(msgspec.structs.replace(stored, title="changed here"), expect=stored.etag)
    report = await copy(old, new)
    assert not report.complete
    assert report.documents_kept == [("ann", "big", "long")]
    assert (await copy(old, new, replace=True)).complete
    assert await contents(new) == await contents(old)
    await library(old).delete_document("ann", "big", "mixed")
    report = await copy(old, new)
    assert (report.complete, report.extra_documents) == (True, [("ann", "big", "mixed")])


async def test_what_was_read_at_both_ends_is_no_difference(old: Memory) -> None:
    new = in_memory()
    await copy(old, new)
    for memory in (old, new):
        documents = Documents(memory)
        for document in (await documents.list("ann", "notes")).items:
            await documents.wait(document)
    report: Report = await copy(old, new)
    assert (report.complete, report.documents_kept, report.documents_equal) == (True, [], 5)


async def test_vectors_made_at_the_target_stay(old: Memory) -> None:
    new = in_memory()
    await copy(old, new)
    store = library(new)
    place = Unembedded(scope=BIG, document="mixed", revision="rev_mixed", seq=0, text="")
    await store.put_vectors("own:3", [(place, vector(0, 1, 0))])
    report = await copy(old, new)
    assert (report.complete, report.documents_written) == (True, 0)
    assert PassageVector(0, "own:3", vector(0, 1, 0)) in await store.passage_vectors("ann", "big", "mixed")
