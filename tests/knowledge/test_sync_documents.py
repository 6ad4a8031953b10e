"""Documents for synchronous code: the same operations, from any thread."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.knowledge.texts import OTTER, SQUIRREL

import daram
from daram import sync
from daram.errors import NotAllowed, NotFound, SyncInAsync, Unsupported
from daram.knowledge import collections, files, references

ADMIN = daram.Reader("root", admin=True)

# What is for the house alone, or made by what is public.
_INSIDE = {
    "Documents": {"reader_of", "said_of"},
    "Files": {"find", "drop", "note", "settle", "sweep", "read", "forget_documents"},
    "Collections": {"create", "ensure", "forget"},
    "References": {"put", "delete", "readable"},
}


@pytest.mark.parametrize(
    ("face", "inner"),
    [
        (sync.Documents, daram.Documents),
        (sync.Files, files.Files),
        (sync.Collections, collections.Collections),
        (sync.References, references.References),
    ],
)
def test_nothing_public_is_left_out(face: type, inner: type) -> None:
    public = {
        name
        for name, value in vars(inner).items()
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value))
        and name not in _INSIDE[inner.__name__]
    }
    assert public <= set(vars(face)), public - set(vars(face))


def test_from_upload_to_citation(tmp_path: Path, in_process: None) -> None:
    with sync.open(f"sqlite:///{tmp_path}/daram.db") as memory, sync.documents(memory) as documents:
        pieces = (piece.encode() for piece in (OTTER[:5], OTTER[5:]))  # as ``UploadedFile.chunks()`` gives them
        added = documents.add("ann", "animals", pieces, name="otter.txt")
        assert documents.wait(added).state == "ready"
        [passage] = documents.search("ann", "도토리", "animals").passages
        assert passage.text == OTTER
        assert documents.passages("ann", "animals", added.id)[0].text == OTTER
        assert [document.name for document in documents.list("ann", "animals").items] == ["otter.txt"]
        assert documents.collections.get("ann", "animals").name == "animals"
        kept = documents.files.put("ann", "note.txt", SQUIRREL.encode())
        documents.files.write_to(kept, tmp_path / "note.txt")
        assert (tmp_path / "note.txt").read_text() == SQUIRREL
        documents.put_reference(ADMIN, "books", 1, "Squirrels", SQUIRREL, owner="official")
        assert documents.references.text(documents.reference("ann", "books", 1))[1] == SQUIRREL
        documents.bind("ann", "chat", ["animals"], reference=("books", 1))
        binding = documents.binding("ann", "chat")
        assert binding is not None and binding.reference is not None
        with pytest.raises(NotFound):
            documents.search("bob", "otter", daram.Scope("ann", "animals"))
        with pytest.raises(NotAllowed):
            documents.remove_reference("ann", "books", 1, owner="official")


def test_threads_put_in_at_once(tmp_path: Path, in_process: None) -> None:
    with sync.open(f"sqlite:///{tmp_path}/daram.db") as memory, sync.documents(memory) as documents:

        def put(number: int) -> daram.Document:
            return documents.add("ann", "animals", SQUIRREL.encode(), name=f"{number}.txt", wait=True)

        with ThreadPoolExecutor(4) as pool:
            added = list(pool.map(put, range(8)))
        assert {document.state for document in added} == {"ready"}
        assert len(documents.list("ann", "animals").items) == 8


async def test_on_a_loop_it_refuses(memory: daram.Memory) -> None:
    documents = sync.Documents(daram.Documents(memory))
    with pytest.raises(SyncInAsync):
        documents.list_collections("ann")


def test_a_store_that_keeps_none_says_so() -> None:
    class Bare:
        inner = object()

    with pytest.raises(Unsupported):
        sync.documents(Bare())  # type: ignore[arg-type]
