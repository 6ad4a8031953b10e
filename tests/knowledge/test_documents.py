"""Documents from upload to search: read, replaced, deleted, by whom; what a crash leaves behind."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.knowledge.texts import OTTER, SQUIRREL, TUNA, Letters, left

from daram import errors
from daram.knowledge import base, extract, ingest
from daram.knowledge.access import Reader
from daram.knowledge.documents import Documents
from daram.knowledge.files import PIECE, Files
from daram.knowledge.leases import Lease, Work
from daram.memory import Memory
from daram.store.documents import Scope
from daram.text.chunk import Chunking
from daram.text.load import LoadLimits

ANN = "ann"


async def found(documents: Documents, query: str, who: Reader | str = ANN, where: str | Scope = "animals") -> list[str]:
    return [passage.text for passage in (await documents.search(who, query, where)).passages]


async def test_a_document_is_kept_then_read_then_found(memory: Memory, documents: Documents):
    added = await documents.add(ANN, "animals", SQUIRREL.encode(), name="squirrel.txt")
    assert (added.state, added.bytes, added.revision) == ("waiting", len(SQUIRREL), None)
    assert await found(documents, "acorns") == []
    ready = await documents.wait(added)
    assert (ready.state, ready.passages, ready.error) == ("ready", 1, None)
    assert await found(documents, "acorns") == [SQUIRREL]
    passage = (await documents.search(ANN, "acorns", "animals")).passages[0]
    assert (passage.name, passage.start, passage.end, passage.revision) == (
        "squirrel.txt",
        0,
        len(SQUIRREL),
        ready.revision,
    )
    assert await left(memory, ANN) == {base.COLLECTIONS, base.FILES, base.BLOBS}


async def test_a_collection_is_deleted_beside_a_reader_that_is_done(
    memory: Memory, documents: Documents, monkeypatch: pytest.MonkeyPatch
):
    """It deletes an original between the look at it and its deletion."""
    added = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    find = documents.files.find

    async def then_gone(owner: str, id: str) -> Any:
        file = await find(owner, id)
        if not (await memory.list_documents(ANN, "animals")).items and file is not None:
            await Files(memory).delete(owner, id)
        return file

    monkeypatch.setattr(documents.files, "find", then_gone)
    assert await documents.delete_collection(ANN, "animals") == 1
    assert added.source and await find(ANN, added.source) is None
    assert await left(memory, ANN) == set()


async def test_the_same_name_replaces_exactly_that_document(documents: Documents):
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    await documents.add(ANN, "animals", OTTER.encode(), name="b.txt", wait=True)
    changed = await documents.add(ANN, "animals", TUNA.encode(), name="a.txt")
    assert await found(documents, "acorns") == [SQUIRREL]  # until the new one is read
    await documents.wait(changed)
    assert await found(documents, "acorns") == []
    assert await found(documents, "tuna") == [TUNA]
    assert await found(documents, "도토리") == [OTTER]
    assert len((await documents.files.list(ANN)).items) == 2


async def test_the_same_bytes_again_change_nothing(documents: Documents):
    first = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    again = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt")
    assert again == first
    assert [file.id for file in (await documents.files.list(ANN)).items] == [first.source]


async def test_the_same_bytes_take_another_title(documents: Documents):
    before = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", title="Old", wait=True)
    after = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", title="New", metadata={"k": "v"})
    assert (after.title, after.metadata, after.state, after.revision) == ("New", {"k": "v"}, "ready", before.revision)
    (passage,) = (await documents.search(ANN, "squirrel", "animals")).passages
    assert passage.title == "New"
    assert len((await documents.files.list(ANN)).items) == 1
    assert (await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt")).title == "New"


async def test_the_same_bytes_cut_in_another_way_are_read_again(documents: Documents):
    text = (SQUIRREL + "\n\n") * 20
    first = await documents.add(ANN, "animals", text.encode(), name="a.txt", wait=True)
    await documents.collections.update(ANN, "animals", chunking=Chunking(size=200, overlap=20))
    second = await documents.add(ANN, "animals", text.encode(), name="a.txt", wait=True)
    assert second.passages > first.passages


async def test_what_is_deleted_leaves_nothing(memory: Memory, documents: Documents):
    added = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    await documents.remove(ANN, "animals", added.id)
    assert await found(documents, "acorns") == []
    with pytest.raises(errors.NotFound):
        await documents.get(ANN, "animals", added.id)
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    assert await documents.delete_collection(ANN, "animals") == 1
    assert await left(memory, ANN) == set()


async def test_an_original_goes_when_it_is_read_if_that_was_asked_for(documents: Documents):
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", until="read", wait=True)
    assert (await documents.files.list(ANN)).items == []
    assert await found(documents, "acorns") == [SQUIRREL]


async def test_a_file_of_ones_own_serves_many_collections_and_stays(documents: Documents):
    file = await documents.files.put(ANN, "a.txt", SQUIRREL.encode())
    for where in ("animals", "trees"):
        document = await documents.add_file(ANN, where, file.id, wait=True)
        assert (document.id, document.state) == (file.id, "ready")
    await documents.remove(ANN, "animals", file.id)
    assert await found(documents, "acorns", where="trees") == [SQUIRREL]
    assert (await documents.files.get(ANN, file.id)).id == file.id


async def test_a_file_comes_back_byte_for_byte_however_it_came(documents: Documents, tmp_path: Path):
    data = bytes(range(256)) * 5000  # more than two pieces
    (tmp_path / "in").write_bytes(data)

    async def stream():
        for start in range(0, len(data), 70_001):
            yield data[start : start + 70_001]

    for given in (data, tmp_path / "in", stream()):
        file = await documents.files.put(ANN, "x.bin", given)
        assert (file.bytes, file.pieces) == (len(data), -(-len(data) // PIECE))
        await documents.files.write_to(file, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data


async def test_an_upload_that_breaks_off_leaves_nothing(memory: Memory, documents: Documents):
    async def broken():
        yield b"x" * (PIECE + 1)
        raise ConnectionError("the client left")

    with pytest.raises(ConnectionError):
        await documents.add(ANN, "animals", broken(), name="a.txt")
    assert await left(memory, ANN) == {base.COLLECTIONS}
    small = Documents(memory, limits=LoadLimits(file=10))
    with pytest.raises(errors.DocumentTooLarge):
        await small.add(ANN, "animals", b"x" * 11, name="a.txt")
    assert await left(memory, ANN) == {base.COLLECTIONS}


async def test_what_cannot_be_read_says_why_and_what_was_found_before_stays(documents: Documents):
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.pdf", media_type="text/markdown", wait=True)
    broken = await documents.add(ANN, "animals", b"%PDF-1.7 broken", name="a.pdf", wait=True)
    assert broken.state == "failed"
    assert "a.pdf" in (broken.error or "")
    assert await found(documents, "acorns") == [SQUIRREL]
    mended = await documents.add(ANN, "animals", TUNA.encode(), name="a.pdf", media_type="text/plain;x")
    assert mended.state == "waiting"
    with pytest.raises(errors.UnsupportedDocument, match=r"\.pdf"):
        await documents.add(ANN, "animals", b"MZ", name="a.exe")
    empty = await documents.add(ANN, "animals", b" \n ", name="empty.txt", wait=True)
    assert (empty.state, "no text" in (empty.error or "")) == ("failed", True)


async def test_whose_is_whose(documents: Documents):
    admin, bob = Reader("root", admin=True), Reader("bob", groups=("editors",))
    await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    await documents.add(bob, Scope("group:editors", "fish"), TUNA.encode(), name="t.txt", wait=True)
    await documents.add(admin, Scope("official", "animals"), OTTER.encode(), name="o.txt", wait=True)
    assert await found(documents, "acorns", "bob") == []
    assert await found(documents, "tuna", Reader("eve", groups=("editors",)), Scope("group:editors", "fish")) == [TUNA]
    assert await found(documents, "도토리", "eve", Scope("official", "animals")) == [OTTER]
    for who, scope in (("bob", Scope(ANN, "animals")), ("bob", Scope("group:editors", "fish"))):
        for call in (
            documents.search(who, "acorns", scope),
            documents.list(who, scope),
            documents.get(who, scope, "x"),
        ):
            with pytest.raises(errors.NotFound):
                await call
        with pytest.raises(errors.NotFound):
            await documents.add(who, scope, b"x", name="x.txt")
    with pytest.raises(errors.NotAllowed):
        await documents.add(bob, Scope("official", "animals"), b"x", name="x.txt")
    assert {(c.owner, c.id) for c in await documents.list_collections(bob)} == {
        ("group:editors", "fish"),
        ("official", "animals"),
    }
    for owner in ("official", "group:editors", "daram:documents"):
        with pytest.raises(errors.InvalidInput):
            Reader(owner)


@pytest.mark.parametrize("id", ["conversation:trip", "reference:a/1", "official:help", "group:editors:help"])
async def test_names_that_stand_for_something_else_are_no_collections(documents: Documents, id: str):
    with pytest.raises(errors.InvalidInput):
        await documents.add(ANN, id, b"x", name="x.txt")
    with pytest.raises(errors.InvalidInput):
        await documents.create(ANN, id=id)
    assert await documents.list_collections(ANN) == []


async def test_what_is_added_while_its_collection_is_deleted_does_not_stay(memory: Memory, documents: Documents):
    await documents.add(ANN, "animals", TUNA.encode(), name="t.txt", wait=True)

    async def slowly() -> AsyncIterator[bytes]:
        yield SQUIRREL.encode()
        await documents.delete_collection(ANN, "animals")
        yield b" And more."

    with pytest.raises(errors.NotFound, match="animals"):
        await documents.add(ANN, "animals", slowly(), name="a.txt")
    assert (await documents.list(ANN, "animals")).items == []
    assert await left(memory, ANN) == set()


async def test_any_number_of_collections_is_searched(documents: Documents):
    for number in range(101):
        await documents.create(ANN, id=f"c{number:03}")
    for id in ("c000", "c100"):
        await documents.add(ANN, id, f"{SQUIRREL} {id}".encode(), name="a.txt", wait=True)
    result = await documents.search(ANN, "Where does the squirrel hide acorns?")
    assert {passage.scope.collection for passage in result.passages} == {"c000", "c100"}


# --- in the background, and after a crash ---


async def test_the_background_reads_what_is_added_and_what_was_left(memory: Memory, documents: Documents):
    before = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt")
    async with Documents(memory) as running:
        after = await running.add(ANN, "animals", TUNA.encode(), name="b.txt")
        for added in (before, after):
            while (await documents.get(ANN, "animals", added.id)).state != "ready":
                await asyncio.sleep(0.01)
        assert len(await found(running, "squirrel tuna")) == 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd.txt", "../../etc/passwd.txt"),  # a name, never a path
        ("a\nb\x1b[31m\x00.txt", "a b[31m.txt"),
        ("\u202etxt.exe\u2066.txt", "txt.exe.txt"),
        ("\ud800\udcff.txt", "??.txt"),  # as Python reads a name that is no UTF-8
        (unicodedata.normalize("NFD", "규정.txt"), "규정.txt"),  # as a Mac gives it
        ("가" * 83 + ".txt", "가" * 83 + ".txt"),  # as long as a file system takes
    ],
)
async def test_names_of_files(documents: Documents, given: str, kept: str):
    added = await documents.add(ANN, "animals", SQUIRREL.encode(), name=given, wait=True)
    assert (added.name, added.state) == (kept, "ready")
    again = await documents.add(ANN, "animals", b"\x89PNG\r\n", name=kept, wait=True)
    assert again.id == added.id
    assert (again.error or "").startswith(f"{kept}: ")
    assert "\n" not in (again.error or "")


async def test_a_long_document_does_not_keep_a_short_one_waiting(
    memory: Memory, documents: Documents, monkeypatch: pytest.MonkeyPatch
):
    let_go = asyncio.Event()
    sections = extract.Readers.sections

    async def slow(self: extract.Readers, path: Path, *, name: str, **options: Any):
        if name.startswith("long"):
            await let_go.wait()
        async for section in sections(self, path, name=name, **options):
            yield section

    monkeypatch.setattr(extract.Readers, "sections", slow)
    long = await documents.add(ANN, "animals", SQUIRREL.encode(), name="long.txt")
    async with Documents(memory, workers=2) as running:
        while (await running.get(ANN, "animals", long.id)).state != "reading":
            await asyncio.sleep(0.01)
        short = await running.add(ANN, "animals", TUNA.encode(), name="short.txt")
        while (await running.get(ANN, "animals", short.id)).state != "ready":
            await asyncio.sleep(0.01)
        assert (await running.get(ANN, "animals", long.id)).state == "reading"
        let_go.set()
        while (await running.get(ANN, "animals", long.id)).state != "ready":
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("in_process")
async def test_who_gives_up_waiting_does_not_end_the_reading(memory: Memory, monkeypatch: pytest.MonkeyPatch):
    let_go, began = asyncio.Event(), 0
    sections = extract.Readers.sections

    async def slow(self: extract.Readers, path: Path, *, name: str, **options: Any):
        nonlocal began
        began += 1
        await let_go.wait()
        async for section in sections(self, path, name=name, **options):
            yield section

    monkeypatch.setattr(extract.Readers, "sections", slow)
    async with Documents(memory, workers=1) as running:
        # The worker is at one document, so who waits for the other reads it.
        first = await running.add(ANN, "animals", SQUIRREL.encode(), name="first.txt")
        while not began:
            await asyncio.sleep(0.01)
        second = await running.add(ANN, "animals", TUNA.encode(), name="second.txt")
        patient = asyncio.create_task(running.wait(second))
        hasty = asyncio.create_task(running.wait(second))
        while began < 2:
            await asyncio.sleep(0.01)
        hasty.cancel()
        await asyncio.wait([hasty])
        patient.cancel()
        await asyncio.wait([patient])
        assert (await running.get(ANN, "animals", second.id)).state == "reading"
        let_go.set()
        for one in (first, second):
            assert (await running.wait(one)).state == "ready"
        assert began == 2
        # At the end nothing is left at work.
        let_go.clear()
        third = await running.add(ANN, "animals", OTTER.encode(), name="third.txt")
        waiting = asyncio.create_task(running.wait(third))
        while began < 3:
            await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    let_go.set()
    assert (await Documents(memory).wait(third)).state == "ready"


def everywhere(test):
    """In memory and in the engines that keep documents."""
    test = pytest.mark.parametrize("memory", ["memory", "sqlite", "postgres"], indirect=True)(test)
    return pytest.mark.usefixtures("postgres_template")(test)  # started outside of the test's event loop


class Killed(BaseException):
    """The end of a process, as far as the store can tell."""


@everywhere
@pytest.mark.parametrize("where", ["stage_passages", "publish_document", "put_document"])
async def test_wherever_a_process_ends_the_next_one_goes_on(
    memory: Memory, documents: Documents, monkeypatch: pytest.MonkeyPatch, where: str
):
    old = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    added = await documents.add(ANN, "animals", TUNA.encode(), name="a.txt")

    async def die(*_: object, **__: object) -> None:
        raise Killed

    async def stay(self: Lease) -> None:
        """A process that ends does not give its leases back."""

    with monkeypatch.context() as patched:
        patched.setattr(memory, where, die)
        patched.setattr(memory, "discard_revision", die)
        patched.setattr(Lease, "release", stay)
        with pytest.raises(Killed):
            await documents.wait(added)
    assert await found(documents, "acorns") == [SQUIRREL]
    assert not await documents.ingester.read(added)  # the dead process's lease still holds
    key = ingest.lease_key(added)
    record = await memory.get_record(ANN, base.LEASES, key)
    assert record is not None
    work = msgspec.structs.replace(msgspec.json.decode(record.value, type=Work), until=time.time() - 1)
    await memory.put_record(ANN, base.LEASES, key, msgspec.json.encode(work))
    assert await Documents(memory).ingester.sweep() == 1
    ready = await documents.get(ANN, "animals", old.id)
    assert (ready.state, ready.passages) == ("ready", 1)
    assert await found(documents, "acorns") == []
    assert await found(documents, "tuna") == [TUNA]
    assert await left(memory, ANN) == {base.COLLECTIONS, base.FILES, base.BLOBS}


async def test_a_document_that_ends_its_reader_again_and_again_is_given_up(memory: Memory, documents: Documents):
    added = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt")
    work = Work("dead", time.time() - 1, attempts=3)
    await memory.put_record(ANN, base.LEASES, ingest.lease_key(added), msgspec.json.encode(work))
    failed = await documents.wait(added)
    assert failed.state == "failed"
    assert "3 times" in (failed.error or "")


async def test_what_uploads_left_behind_is_swept_away(memory: Memory, documents: Documents):
    file = await documents.files.put(ANN, "a.txt", b"x" * 10, until="document", document=("animals", "gone"))
    own = await documents.files.put(ANN, "b.txt", b"y")
    await memory.put_record(ANN, base.BLOBS, "file-halfway/00000000", b"z")
    for id in (file.id, own.id, "file-halfway"):
        await documents.files.note(msgspec.structs.replace(file, id=id), seconds=-1)
    assert await documents.files.sweep() == 2
    assert [kept.id for kept in (await documents.files.list(ANN)).items] == [own.id]
    assert len((await memory.scan_records(ANN, base.BLOBS)).items) == 1
    assert base.UPLOADS not in await left(memory, ANN)


@everywhere
async def test_a_document_changed_or_deleted_while_it_is_read_does_not_come_back(
    memory: Memory, documents: Documents, monkeypatch: pytest.MonkeyPatch
):
    added = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt")
    sections = extract.Readers.sections

    async def meanwhile(*args, **options):
        await documents.add(ANN, "animals", TUNA.encode(), name="a.txt")
        monkeypatch.setattr(extract.Readers, "sections", sections)
        async for section in sections(*args, **options):
            yield section

    monkeypatch.setattr(extract.Readers, "sections", meanwhile)
    await documents.wait(added)
    assert await found(documents, "acorns") == []
    assert await found(documents, "tuna") == [TUNA]

    async def deleted(*args, **options):
        await documents.remove(ANN, "animals", added.id)
        async for section in sections(*args, **options):
            yield section

    again = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt")
    monkeypatch.setattr(extract.Readers, "sections", deleted)
    with pytest.raises(errors.NotFound):
        await documents.wait(again)
    assert await found(documents, "acorns") == []
    assert await left(memory, ANN) == {base.COLLECTIONS}


@everywhere
async def test_one_at_a_time_reads_a_document(documents: Documents, memory: Memory):
    added = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt")
    others = [Documents(memory) for _ in range(3)]
    read = await asyncio.gather(*(other.ingester.read(added) for other in others))
    assert read.count(True) == 1
    assert (await documents.get(ANN, "animals", added.id)).state == "ready"


async def test_progress_is_told_while_a_document_is_read(memory: Memory, monkeypatch: pytest.MonkeyPatch):
    documents = Documents(memory)
    await documents.create(ANN, id="animals", chunking=Chunking(size=50, overlap=0))
    added = await documents.add(ANN, "animals", ("A short sentence of the book. " * 900).encode(), name="a.txt")
    assert await documents.progress(added) is None
    told: list[int] = []
    stage = memory.stage_passages

    async def tell(*args: object) -> None:
        work = await documents.progress(added)
        assert work is not None
        told.append(work.passages)
        await stage(*args)

    monkeypatch.setattr(memory, "stage_passages", tell)
    ready = await documents.wait(added)
    assert told == list(range(0, ready.passages, 200))
    assert len(told) > 2
    assert await documents.progress(added) is None


# --- vectors ---


async def test_vectors_come_with_the_passages(memory: Memory):
    documents = Documents(memory, Letters())
    ready = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    assert ready.embedder == "letters:32"
    assert await memory.unembedded("letters:32") == []


async def test_without_the_model_a_document_is_found_by_words_and_embedded_later(memory: Memory):
    model = Letters()
    model.down = True
    documents = Documents(memory, model)
    ready = await documents.add(ANN, "animals", SQUIRREL.encode(), name="a.txt", wait=True)
    assert (ready.state, ready.embedder) == ("ready", None)
    assert await found(documents, "acorns") == [SQUIRREL]
    await documents.ingester.sweep()
    assert (await documents.get(ANN, "animals", ready.id)).embedder is None
    model.down = False
    await documents.ingester.sweep()
    assert (await documents.get(ANN, "animals", ready.id)).embedder == "letters:32"


async def test_another_model_embeds_anew_in_the_background(memory: Memory):
    old = Documents(memory, Letters())
    for number in range(3):
        await old.add(ANN, "animals", f"{SQUIRREL} {number}".encode(), name=f"{number}.txt", wait=True)
    new = Documents(memory, Letters("other", 16))
    assert len(await found(new, "acorns")) == 3  # by words, until then
    await new.ingester.sweep()
    assert {d.embedder for d in (await new.list(ANN, "animals")).items} == {"other:16"}
    assert await memory.unembedded("other:16") == []
