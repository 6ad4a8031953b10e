"""``SupportsDocuments``: documents, and their passages from staging to deletion."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from daram.errors import Conflict, InvalidInput, NotFound, TooLarge
from daram.model import Page
from daram.store.base import Store
from daram.store.documents import Document, Passage, PassageHit, Scope, SupportsDocuments, Unembedded
from daram.testing.suite.base import ANN, BEN, OpenMore, Suite, pages

MODEL = "model:4"
SCOPE = Scope(ANN, "c")


def document(id: str = "d", *, owner: str = ANN, collection: str = "c", **said: Any) -> Document:
    """A document that says little."""
    return Document(**({"name": f"{id}.txt"} | said), id=id, owner=owner, collection=collection)


def passage(seq: int, text: str, vector: Sequence[float] | None = None) -> Passage:
    """A passage; ``vector`` is brought to unit length."""
    packed = None
    if vector is not None:
        length = sum(x * x for x in vector) ** 0.5
        packed = array("f", (x / length for x in vector)).tobytes()
    return Passage(seq=seq, text=text, start=100 * seq, end=100 * seq + len(text), vector=packed)


async def publish(docs: SupportsDocuments, stored: Document, *texts: str, revision: str = "r") -> Document:
    """Stage these texts and publish them."""
    where = (stored.owner, stored.collection, stored.id)
    await docs.stage_passages(*where, revision, [passage(i, text) for i, text in enumerate(texts)])
    return await docs.publish_document(structs.replace(stored, state="ready"), revision, expect=stored.etag)


async def add(docs: SupportsDocuments, id: str, *texts: str, owner: str = ANN, collection: str = "c") -> Document:
    """A new document with these passages."""
    return await publish(docs, await docs.put_document(document(id, owner=owner, collection=collection)), *texts)


async def found(docs: SupportsDocuments, query: str, *scopes: Scope, any_word: bool = True) -> list[str]:
    """The texts that a search finds, best first."""
    return said(await docs.search_passages(scopes or [SCOPE], query, any_word=any_word))


def said(hits: list[PassageHit]) -> list[str]:
    """The texts of hits."""
    return [hit.passage.text for hit in hits]


class DocumentTests(Suite):
    async def test_what_is_said_of_a_document_is_kept(self, store: Store) -> None:
        docs = self.with_documents(store)
        with pytest.raises(NotFound):
            await docs.get_document(ANN, "c", "d")
        given = document(
            title="다람쥐 🐿", media_type="text/plain", source="file_1", digest="sha256:0", bytes=12, metadata={"a": "b"}
        )
        put = await docs.put_document(given, expect=None)
        assert put == structs.replace(given, etag=put.etag, created_at=put.created_at, updated_at=put.updated_at)
        assert put.etag
        assert put.created_at is not None
        assert put.created_at == put.updated_at
        assert await docs.get_document(ANN, "c", "d") == put
        again = await docs.put_document(structs.replace(put, state="failed", error="broken", title=None))
        assert (again.state, again.error, again.title) == ("failed", "broken", None)
        assert again.created_at == put.created_at
        assert again.updated_at is not None
        assert again.updated_at > put.created_at
        assert await docs.get_document(ANN, "c", "d") == again

    async def test_put_document_expects(self, store: Store) -> None:
        docs = self.with_documents(store)
        with pytest.raises(Conflict):
            await docs.put_document(document(), expect="0" * 16)
        first = await docs.put_document(document(), expect=None)
        with pytest.raises(Conflict):
            await docs.put_document(document(), expect=None)
        second = await docs.put_document(document(), expect=first.etag)
        assert second.etag != first.etag
        with pytest.raises(Conflict):
            await docs.put_document(document(), expect=first.etag)
        assert await docs.get_document(ANN, "c", "d") == second

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    async def test_a_collection_is_listed_newest_first(self, store: Store, limit: int) -> None:
        docs = self.with_documents(store)
        for id in ("b", "c", "a"):
            await docs.put_document(document(id))
        await docs.put_document(document("other", collection="x"))
        await docs.put_document(document("other", owner=BEN))
        await docs.put_document(structs.replace(await docs.get_document(ANN, "c", "b"), title="changed"))

        async def page(cursor: str | None) -> Page[Document]:
            return await docs.list_documents(ANN, "c", limit=limit, cursor=cursor)

        assert [d.id for items in await pages(page) for d in items] == ["a", "c", "b"]
        assert (await docs.list_documents(ANN, "none")).items == []
        cursor = (await docs.list_documents(ANN, "c", limit=1)).next_cursor
        with pytest.raises(InvalidInput, match="cursor"):
            await docs.list_documents(ANN, "x", cursor=cursor)

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_unfinished_documents_are_those_of_all_owners(self, store: Store, limit: int) -> None:
        docs = self.with_documents(store)
        await docs.put_document(document("a"))
        await docs.put_document(document("b", owner=BEN, state="reading"))
        await docs.put_document(document("x", state="failed"))
        await add(docs, "y", "done")
        again = await add(docs, "c", "read again")
        await docs.put_document(structs.replace(again, state="waiting"), expect=again.etag)

        async def page(cursor: str | None) -> Page[Document]:
            return await docs.unfinished_documents(limit=limit, cursor=cursor)

        assert [(d.owner, d.id) for items in await pages(page) for d in items] == [(ANN, "a"), (BEN, "b"), (ANN, "c")]
        assert await found(docs, "again") == ["read again"]

    async def test_passages_are_kept_as_they_were_staged(self, store: Store) -> None:
        docs = self.with_documents(store)
        stored = await docs.put_document(document())
        first = Passage(seq=0, text="다람쥐\n🐿", start=0, end=5, page=3, heading=("A", "나"))
        last = Passage(seq=7, text="late", start=9, end=13)
        await docs.stage_passages(ANN, "c", "d", "r", [last])
        await docs.stage_passages(ANN, "c", "d", "r", [Passage(seq=0, text="replaced", start=0, end=1)])
        await docs.stage_passages(ANN, "c", "d", "r", [first])
        assert await docs.passages(ANN, "c", "d") == []
        done = await docs.publish_document(structs.replace(stored, state="ready"), "r", expect=stored.etag)
        assert (done.revision, done.passages, done.state, done.embedder) == ("r", 2, "ready", None)
        assert done.etag != stored.etag
        assert await docs.get_document(ANN, "c", "d") == done
        assert await docs.passages(ANN, "c", "d") == [first, last]
        assert await docs.passages(ANN, "c", "d", limit=1) == [first]
        assert await docs.passages(ANN, "c", "d", after=0) == [last]
        assert await docs.passages(ANN, "c", "d", after=7) == []
        assert await found(docs, "replaced") == []
        with pytest.raises(NotFound):
            await docs.passages(ANN, "c", "e")

    async def test_staged_passages_are_invisible(self, store: Store) -> None:
        docs = self.with_documents(store)
        stored = await add(docs, "d", "the squirrel hides an acorn")
        await docs.stage_passages(ANN, "c", "d", "next", [passage(0, "the squirrel eats a walnut")])
        assert await found(docs, "walnut") == []
        assert await found(docs, "squirrel") == ["the squirrel hides an acorn"]
        assert await docs.get_document(ANN, "c", "d") == stored
        await store.purge()  # it is not old enough to go
        done = await docs.publish_document(stored, "next", expect=stored.etag)
        assert await found(docs, "squirrel") == ["the squirrel eats a walnut"]
        assert await found(docs, "acorn") == []
        assert done.passages == 1
        with pytest.raises(Conflict):
            await docs.stage_passages(ANN, "c", "d", "next", [passage(1, "too late")])

    async def test_publishing_removes_other_staged_revisions(self, store: Store) -> None:
        docs = self.with_documents(store)
        stored = await docs.put_document(document())
        for revision in ("a", "b", "c"):
            await docs.stage_passages(ANN, "c", "d", revision, [passage(0, f"nut {revision}")])
        await docs.discard_revision(ANN, "c", "d", "c")
        await docs.discard_revision(ANN, "c", "d", "never")
        await docs.discard_revision(ANN, "c", "gone", "r")
        done = await docs.publish_document(stored, "b", expect=stored.etag)
        await docs.discard_revision(ANN, "c", "d", "b")  # what is published is not staged any more
        assert await found(docs, "nut") == ["nut b"]
        for revision in ("a", "c"):  # nothing is left of them
            done = await docs.publish_document(done, revision, expect=done.etag)
            assert done.passages == 0
            assert await found(docs, "nut") == []

    async def test_of_racing_publishes_one_wins(self, store: Store, open_more: OpenMore) -> None:
        docs = [self.with_documents(s) for s in (store, await open_more())]
        stored = await docs[0].put_document(document())
        for i in range(4):
            await docs[i % 2].stage_passages(ANN, "c", "d", f"r{i}", [passage(0, f"nut {i}"), passage(1, f"leaf {i}")])

        async def race(i: int) -> str | None:
            try:
                done = await docs[i % 2].publish_document(stored, f"r{i}", expect=stored.etag)
            except Conflict:
                return None
            return done.revision

        won = [revision for revision in await asyncio.gather(*map(race, range(4))) if revision is not None]
        assert len(won) == 1
        assert await found(docs[0], "nut") == [f"nut {won[0][1]}"]
        assert await found(docs[1], "leaf") == [f"leaf {won[0][1]}"]

    async def test_a_search_finds_the_old_or_the_new(self, store: Store, open_more: OpenMore) -> None:
        writer, reader = self.with_documents(store), self.with_documents(await open_more())
        stored = await add(writer, "d", *(f"nut 0 {i}" for i in range(5)))
        over = asyncio.Event()

        async def look() -> None:
            while not over.is_set():
                hits = await reader.search_passages([SCOPE], "nut", limit=50)
                assert len(hits) == 5, hits
                assert len({hit.passage.text.split()[1] for hit in hits}) == 1, hits
                listed = await reader.passages(ANN, "c", "d")
                assert len({p.text.split()[1] for p in listed}) == 1
                assert len(listed) == 5
                await asyncio.sleep(0)  # an engine in memory never waits by itself

        async def change() -> None:
            nonlocal stored
            try:
                for round in range(1, 8):
                    texts = [f"nut {round} {i}" for i in range(5)]
                    stored = await publish(writer, stored, *texts, revision=f"r{round}")
            finally:
                over.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            group.create_task(change())

    async def test_delete_document_leaves_nothing(self, store: Store) -> None:
        docs = self.with_documents(store)
        stored = await add(docs, "d", "an acorn")
        await add(docs, "e", "an acorn of another")
        await docs.stage_passages(ANN, "c", "d", "next", [passage(0, "an acorn to come")])
        await docs.delete_document(ANN, "c", "d")
        for call in (
            docs.get_document(ANN, "c", "d"),
            docs.passages(ANN, "c", "d"),
            docs.delete_document(ANN, "c", "d"),
            docs.stage_passages(ANN, "c", "d", "next", [passage(1, "late")]),
            docs.publish_document(stored, "next", expect=stored.etag),
        ):
            with pytest.raises(NotFound):
                await call
        with pytest.raises(Conflict):
            await docs.put_document(stored, expect=stored.etag)
        assert await found(docs, "acorn") == ["an acorn of another"]
        assert [d.id for d in (await docs.list_documents(ANN, "c")).items] == ["e"]
        # Made again, it has nothing of the old one.
        again = await docs.put_document(document(), expect=None)
        assert (again.revision, again.passages) == (None, 0)
        assert (await docs.publish_document(again, "next", expect=again.etag)).passages == 0

    async def test_delete_collection(self, store: Store) -> None:
        docs = self.with_documents(store)
        for id in ("a", "b"):
            await add(docs, id, "an acorn")
        await add(docs, "a", "kept", collection="x")
        await add(docs, "a", "kept", owner=BEN)
        assert await docs.delete_collection(ANN, "c") == 2
        assert await docs.delete_collection(ANN, "c") == 0
        assert (await docs.list_documents(ANN, "c")).items == []
        assert await found(docs, "acorn kept", SCOPE, Scope(ANN, "x"), Scope(BEN, "c")) == ["kept", "kept"]

    async def test_delete_owner_deletes_the_documents(self, store: Store) -> None:
        docs = self.with_documents(store)
        for owner in (ANN, BEN):
            await add(docs, "d", f"acorn of {owner}", owner=owner)
        await docs.put_document(document("waiting"))
        assert await store.delete_owner(ANN) == 0
        with pytest.raises(NotFound):
            await docs.get_document(ANN, "c", "d")
        assert (await docs.unfinished_documents()).items == []
        assert await found(docs, "acorn", SCOPE, Scope(BEN, "c")) == ["acorn of ben"]

    async def test_whose_is_whose(self, store: Store) -> None:
        docs = self.with_documents(store)
        stored = await add(docs, "d", "a secret acorn")
        with pytest.raises(NotFound):
            await docs.get_document(BEN, "c", "d")
        with pytest.raises(NotFound):
            await docs.passages(BEN, "c", "d")
        with pytest.raises(NotFound):
            await docs.delete_document(BEN, "c", "d")
        with pytest.raises(NotFound):
            await docs.stage_passages(BEN, "c", "d", "r2", [passage(0, "x")])
        with pytest.raises(NotFound):
            await docs.publish_document(structs.replace(stored, owner=BEN), "r", expect=stored.etag)
        assert await docs.delete_collection(BEN, "c") == 0
        # Names that run together are names of something else.
        for scope in (Scope(BEN, "c"), Scope(ANN, "cd"), Scope(ANN + "c", "c"), Scope("an", "nc")):
            assert await found(docs, "acorn", scope) == []
        assert await docs.get_document(ANN, "c", "d") == stored

    @pytest.mark.parametrize(
        ("field", "given"),
        [
            ("owner", {"owner": ""}),
            ("collection", {"collection": "a\nb"}),
            ("id", {"id": "x" * 257}),
            ("name", {"name": "\x00"}),
            ("title", {"title": "x" * 501}),
            ("digest", {"digest": None}),
            ("bytes", {"bytes": -1}),
            ("state", {"state": "done"}),
            ("metadata", {"metadata": {"a": None}}),
        ],
    )
    async def test_bad_documents_are_answered(self, store: Store, field: str, given: dict[str, Any]) -> None:
        docs = self.with_documents(store)
        bad = structs.replace(document(), **given)
        for call in (docs.put_document(bad), docs.publish_document(bad, "r", expect="0" * 16)):
            with pytest.raises(InvalidInput) as caught:
                await call
            assert caught.value.field.startswith(field)
        assert (await docs.unfinished_documents()).items == []

    @pytest.mark.parametrize(
        ("field", "given"),
        [
            ("seq", {"seq": -1}),
            ("seq", {"seq": 1 << 24}),
            ("text", {"text": "x" * ((64 << 10) + 1)}),
            ("text", {"text": "\ud800"}),
            ("start", {"start": -1}),
            ("end", {"start": 5, "end": 4}),
            ("page", {"page": 0}),
            ("heading", {"heading": ["a"]}),
            ("vector", {"vector": b"123"}),
            ("vector", {"vector": bytes(16)}),
            ("vector", {"vector": array("f", [float("nan"), 1.0]).tobytes()}),
            ("vector", {"vector": array("f", [1.0, 1.0]).tobytes()}),
        ],
    )
    async def test_bad_passages_are_answered(self, store: Store, field: str, given: dict[str, Any]) -> None:
        docs = self.with_documents(store)
        stored = await docs.put_document(document())
        good = passage(1, "good")
        with pytest.raises(InvalidInput) as caught:
            await docs.stage_passages(ANN, "c", "d", "r", [good, structs.replace(passage(0, "x"), **given)])
        assert caught.value.field == f"passages[1].{field}"
        with pytest.raises(TooLarge):
            await docs.stage_passages(ANN, "c", "d", "r", [passage(i, "x") for i in range(501)])
        with pytest.raises(InvalidInput, match="seq"):
            await docs.stage_passages(ANN, "c", "d", "r", [good, good])
        place = Unembedded(scope=SCOPE, document="d", revision="r", seq=0, text="")
        with pytest.raises(InvalidInput):
            await docs.put_vectors(MODEL, [(place, b"123")])
        assert (await docs.publish_document(stored, "r", expect=stored.etag)).passages == 0
