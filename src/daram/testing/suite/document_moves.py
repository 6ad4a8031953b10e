"""``SupportsDocuments``: some documents of a collection alone, and documents that come from elsewhere."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from daram.errors import Conflict, InvalidInput, NotFound
from daram.model import Page
from daram.store.base import Store
from daram.store.documents import Document, PassageVector, Scope, SupportsDocuments
from daram.testing.suite.base import ANN, BEN, Suite, pages
from daram.testing.suite.documents import MODEL, SCOPE, add, document, passage, said

_THERE = Scope(BEN, "c")
_MADE = datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
_CHANGED = datetime(2021, 2, 3, 4, 5, 6, 7, tzinfo=UTC)


async def _staged(docs: SupportsDocuments, revision: str, *texts: str) -> Document:
    """A document whose passages are staged, and what is to be loaded of it."""
    there = await docs.put_document(document(state="failed", error="is on its way"))
    passages = [passage(i, text, [1, i, 0, 0]) for i, text in enumerate(texts)]
    await docs.stage_passages(ANN, "c", "d", revision, passages)
    return structs.replace(
        there,
        state="ready",
        error=None,
        title="다람쥐",
        metadata={"a": "b", "n": 3, "f": 2.5, "yes": True},
        embedder=MODEL,
        revision=revision,
        passages=len(texts),
        created_at=_MADE,
        updated_at=_CHANGED,
    )


class DocumentMoveTests(Suite):
    async def test_some_documents_alone_are_searched(self, store: Store) -> None:
        docs = self.with_documents(store)
        for n in range(60):
            await add(docs, f"d{n}", f"acorn acorn acorn {n}")
        await add(docs, "long", "an acorn among so many other words that it is the last of all that are found")
        await add(docs, "long", "an acorn among others", owner=BEN)
        assert "long" not in {hit.document for hit in await docs.search_passages([SCOPE], "acorn", limit=5)}
        for any_word in (True, False):

            async def search(scopes: list[Scope], only: dict[Scope, Any], any_word: bool = any_word) -> list[str]:
                hits = await docs.search_passages(scopes, "acorn", limit=3, any_word=any_word, only=only)
                return [hit.document for hit in hits]

            assert await search([SCOPE], {SCOPE: ["long"]}) == ["long"]
            assert set(await search([SCOPE], {SCOPE: {"d3", "long", "none"}})) == {"d3", "long"}
            assert await search([SCOPE], {SCOPE: []}) == []
            assert await search([SCOPE, _THERE], {SCOPE: []}) == ["long"]
            assert len(await search([SCOPE], {_THERE: []})) == 3

    async def test_vectors_of_some_documents_alone_are_searched(self, store: Store) -> None:
        docs = self.with_documents(store)
        self.needs_vectors()
        for n in range(300):
            stored = await docs.put_document(document(f"d{n}"))
            await docs.stage_passages(ANN, "c", f"d{n}", "r", [passage(0, f"p{n}", [1, n / 1000, 0, 0])])
            await docs.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)
        near = await docs.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL, limit=2, only={SCOPE: ["d299", "d298"]})
        assert said(near) == ["p298", "p299"]
        assert await docs.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL, only={SCOPE: []}) == []

    @pytest.mark.parametrize("only", [{SCOPE: [""]}, {("ann", ""): ["d"]}, [SCOPE]])
    async def test_wrong_ones_are_refused(self, store: Store, only: Any) -> None:
        docs = self.with_documents(store)
        with pytest.raises(InvalidInput):
            await docs.search_passages([SCOPE], "x", only=only)

    async def test_metadata_keeps_its_types(self, store: Store) -> None:
        docs = self.with_documents(store)
        given = {"s": "3", "i": 3, "f": 3.0, "yes": True, "no": False, "less": -0.5}
        kept = (await docs.put_document(document(metadata=given))).metadata
        assert kept == (await docs.get_document(ANN, "c", "d")).metadata == given
        assert [type(value) for value in kept.values()] == [str, int, float, bool, bool, float]
        for wrong in (math.nan, math.inf, 1 << 60, None, ["a"], {"a": 1}):
            with pytest.raises(InvalidInput):
                await docs.put_document(document(metadata={"a": wrong}))

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_all_documents_of_everybody_are_scanned(self, store: Store, limit: int) -> None:
        docs = self.with_documents(store)
        for owner, collection, id in ((BEN, "c", "b"), (ANN, "x", "a"), (ANN, "c", "b"), (ANN, "c", "a")):
            await docs.put_document(document(id, owner=owner, collection=collection))

        async def page(cursor: str | None) -> Page[Document]:
            return await docs.scan_documents(limit=limit, cursor=cursor)

        found = {(d.owner, d.collection, d.id) for items in await pages(page) for d in items}
        assert found == {(BEN, "c", "b"), (ANN, "x", "a"), (ANN, "c", "b"), (ANN, "c", "a")}

    async def test_vectors_are_read_back(self, store: Store) -> None:
        docs = self.with_documents(store)
        with pytest.raises(NotFound):
            await docs.passage_vectors(ANN, "c", "d")
        wanted = await _staged(docs, "r", "one", "two", "three")
        assert await docs.passage_vectors(ANN, "c", "d") == []
        there = await docs.get_document(ANN, "c", "d")
        await docs.load_document(wanted, expect=there.etag)
        found = await docs.passage_vectors(ANN, "c", "d")
        given = [passage(i, "", [1, i, 0, 0]).vector for i in range(3)]
        assert found == [PassageVector(i, MODEL, vector) for i, vector in enumerate(given) if vector is not None]
        assert await docs.passage_vectors(ANN, "c", "d", after=0, limit=1) == found[1:2]

    async def test_a_document_is_loaded_as_it_was(self, store: Store) -> None:
        docs = self.with_documents(store)
        wanted = await _staged(docs, "r", "one acorn", "two")
        there = await docs.get_document(ANN, "c", "d")
        with pytest.raises(Conflict):
            await docs.load_document(wanted, expect=None)
        with pytest.raises(Conflict, match="3 passages, but 2"):
            await docs.load_document(structs.replace(wanted, passages=3), expect=there.etag)
        assert await docs.get_document(ANN, "c", "d") == there
        loaded = await docs.load_document(wanted, expect=there.etag)
        assert loaded == structs.replace(wanted, etag=loaded.etag)
        assert await docs.get_document(ANN, "c", "d") == loaded
        assert said(await docs.search_passages([SCOPE], "acorn")) == ["one acorn"]
        # Another state of it with the same passages, and then another revision.
        renamed = structs.replace(wanted, name="new", updated_at=datetime.now(UTC), embedder=None)
        renamed = await docs.load_document(renamed, expect=loaded.etag)
        assert (renamed.name, renamed.passages, renamed.embedder) == ("new", 2, MODEL)
        await docs.stage_passages(ANN, "c", "d", "next", [passage(0, "later")])
        later = structs.replace(wanted, revision="next", passages=1)
        later = await docs.load_document(later, expect=renamed.etag)
        assert (later.revision, later.embedder, later.created_at) == ("next", None, _MADE)
        assert said(await docs.search_passages([SCOPE], "acorn later")) == ["later"]
        # One that was never read takes the passages away.
        waiting = structs.replace(wanted, revision=None, passages=0, embedder=None, state="waiting")
        waiting = await docs.load_document(waiting, expect=later.etag)
        assert (waiting.revision, waiting.passages, waiting.state) == (None, 0, "waiting")
        assert await docs.search_passages([SCOPE], "later") == []

    async def test_a_new_one_is_loaded_where_there_is_none(self, store: Store) -> None:
        docs = self.with_documents(store)
        new = document("n", owner=BEN, state="failed", error="no", created_at=_MADE, updated_at=_CHANGED)
        loaded = await docs.load_document(new, expect=None)
        assert loaded == structs.replace(new, etag=loaded.etag)
        with pytest.raises(InvalidInput):
            await docs.load_document(structs.replace(new, created_at=None), expect=loaded.etag)
        with pytest.raises(InvalidInput):
            await docs.load_document(structs.replace(new, passages=2), expect=loaded.etag)
