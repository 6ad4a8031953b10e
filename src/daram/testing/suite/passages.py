"""``SupportsDocuments``: finding passages, by words and by vectors."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from daram.errors import InvalidInput
from daram.store.base import Store
from daram.store.documents import Passage, Scope, SupportsDocuments
from daram.testing.suite.base import ANN, BEN, Suite
from daram.testing.suite.documents import MODEL, SCOPE, add, document, found, passage, said

_OTHER = "other:4"


class PassageTests(Suite):
    async def test_a_hit_says_where_it_is(self, store: Store) -> None:
        docs = self.with_documents(store)
        stored = await docs.put_document(document(title="On squirrels"))
        there = Passage(seq=3, text="An acorn.", start=10, end=19, page=2, heading=("Food", "Nuts"))
        await docs.stage_passages(ANN, "c", "d", "r", [there])
        await docs.publish_document(stored, "r", expect=stored.etag)
        (hit,) = await docs.search_passages([SCOPE], "acorns")
        assert (hit.scope, hit.document, hit.name, hit.title) == (SCOPE, "d", "d.txt", "On squirrels")
        assert hit.revision == "r"
        assert hit.passage == there
        assert hit.score > 0

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("squirrels", "A squirrel hides its food in autumn."),
            ("hiding food", "A squirrel hides its food in autumn."),
            ("Müller", "Herr Muller mag Nüsse."),
            ("다람쥐", "다람쥐는 도토리를 숨긴다."),
            ("도토리", "다람쥐는 도토리를 숨긴다."),
            ("겨울에 무엇을 하나요", "겨울에는 잠을 잔다."),
            ("リス", "リスは木の実を食べる。"),
            ("getName", "Call getNameOf(user) first."),
        ],
    )
    async def test_words_are_found_in_every_script(self, store: Store, query: str, expected: str) -> None:
        docs = self.with_documents(store)
        texts = {
            "A squirrel hides its food in autumn.",
            "Herr Muller mag Nüsse.",
            "다람쥐는 도토리를 숨긴다.",
            "겨울에는 잠을 잔다.",
            "リスは木の実を食べる。",
            "Call getNameOf(user) first.",
        }
        await add(docs, "d", *sorted(texts))
        assert (await found(docs, query))[0] == expected

    async def test_any_word_or_all(self, store: Store) -> None:
        docs = self.with_documents(store)
        await add(docs, "d", "red acorn", "green acorn", "green leaf", "다람쥐의 도토리", "다람쥐의 낙엽")
        assert set(await found(docs, "green acorn", any_word=False)) == {"green acorn"}
        assert set(await found(docs, "green acorn")) == {"red acorn", "green acorn", "green leaf"}
        assert (await found(docs, "green acorn"))[0] == "green acorn"
        assert await found(docs, "다람쥐 도토리", any_word=False) == ["다람쥐의 도토리"]
        assert (await found(docs, "다람쥐 도토리"))[0] == "다람쥐의 도토리"
        # Where nothing has all words, those that have any.
        assert set(await found(docs, "acorn nowhere", any_word=False)) == {"red acorn", "green acorn"}
        assert await found(docs, "nowhere") == []
        assert await found(docs, "?!") == []

    async def test_rare_words_and_short_passages_come_first(self, store: Store) -> None:
        docs = self.with_documents(store)
        filler = " ".join(["meanwhile the rest of the forest slept"] * 10)
        await add(docs, "d", "common walnut " + filler, "common " * 5, "walnut", *(f"common {i}" for i in range(9)))
        assert (await found(docs, "common walnut"))[:2] == ["walnut", "common walnut " + filler]

    async def test_only_the_named_collections_are_searched(self, store: Store) -> None:
        docs = self.with_documents(store)
        for owner, collection in ((ANN, "c"), (ANN, "x"), (BEN, "c")):
            await add(docs, "d", f"acorn {owner} {collection}", owner=owner, collection=collection)
        assert await found(docs, "acorn", SCOPE) == ["acorn ann c"]
        both = [SCOPE, Scope(BEN, "c"), SCOPE, Scope(BEN, "none")]
        assert set(await found(docs, "acorn", *both)) == {"acorn ann c", "acorn ben c"}
        assert await docs.search_passages([], "acorn") == []
        # Words of the fences that an engine may put into its index find nothing.
        for query in ("§c", "o", ANN.encode().hex()):
            assert await found(docs, query) in ([], ["acorn ann c"])

    async def test_the_limit_holds_whatever_was_replaced(self, store: Store) -> None:
        docs = self.with_documents(store)
        stored = await add(docs, "d", *(f"acorn {i}" for i in range(30)))
        for revision in ("r1", "r2"):
            await docs.stage_passages(ANN, "c", "d", revision, [passage(i, f"acorn {i}") for i in range(40)])
        for limit in (1, 7, 30, 100):
            hits = await docs.search_passages([SCOPE], "acorn", limit=limit)
            assert len({hit.passage.seq for hit in hits}) == len(hits) == min(limit, 30)
            assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
        await docs.publish_document(stored, "r2", expect=stored.etag)
        assert len(await docs.search_passages([SCOPE], "acorn", limit=100)) == 40

    @pytest.mark.parametrize(
        ("field", "given"),
        [
            ("query", {"query": " "}),
            ("query", {"query": "x" * 1001}),
            ("query", {"query": None}),
            ("owner", {"scopes": [Scope("", "c")]}),
            ("scopes", {"scopes": [Scope(ANN, str(i)) for i in range(101)]}),
            ("limit", {"limit": 0}),
            ("any_word", {"any_word": 1}),
        ],
    )
    async def test_bad_searches_are_answered(self, store: Store, field: str, given: dict[str, Any]) -> None:
        docs = self.with_documents(store)
        call: dict[str, Any] = {"scopes": [SCOPE], "query": "acorn"}
        with pytest.raises(InvalidInput) as caught:
            await docs.search_passages(**(call | given))
        assert caught.value.field == field

    async def test_the_nearest_vectors(self, store: Store) -> None:
        docs = self.with_documents(store)
        self.needs_vectors()
        await _embedded(docs, "d", [1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [-1, 0, 0, 0])
        await _embedded(docs, "d", [1, 0, 0, 0], owner=BEN)
        hits = await docs.nearest_passages([SCOPE], [3.0, 1.0, 0.0, 0.0], MODEL)
        assert [hit.passage.seq for hit in hits] == [0, 1, 2, 3]
        assert [hit.score for hit in hits] == pytest.approx([0.948683, 0.894427, 0.316228, -0.948683], abs=1e-4)
        assert all(hit.scope == SCOPE and hit.passage.vector is None for hit in hits)
        assert len(await docs.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL, limit=2)) == 2
        assert len(await docs.nearest_passages([SCOPE, Scope(BEN, "c")], [1, 0, 0, 0], MODEL)) == 5
        assert await docs.nearest_passages([Scope(ANN, "x")], [1, 0, 0, 0], MODEL) == []
        assert await docs.nearest_passages([], [1, 0, 0, 0], MODEL) == []

    async def test_vectors_of_other_models_are_not_looked_at(self, store: Store) -> None:
        docs = self.with_documents(store)
        self.needs_vectors()
        done = await _embedded(docs, "d", [1, 0, 0, 0])
        assert done.embedder == MODEL
        assert await docs.nearest_passages([SCOPE], [1, 0, 0, 0], _OTHER) == []
        assert await docs.nearest_passages([SCOPE], [1, 0], MODEL) == []

    async def test_vectors_come_and_go_with_their_revision(self, store: Store) -> None:
        docs = self.with_documents(store)
        self.needs_vectors()
        done = await _embedded(docs, "d", [1, 0, 0, 0], [0, 1, 0, 0])
        await docs.stage_passages(ANN, "c", "d", "next", [passage(5, "new", [1, 0, 0, 0])])
        near = [hit.passage.seq for hit in await docs.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL)]
        assert near == [0, 1]
        done = await docs.publish_document(structs.replace(done, embedder=_OTHER), "next", expect=done.etag)
        assert done.embedder == _OTHER
        assert await docs.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL) == []
        assert said(await docs.nearest_passages([SCOPE], [1, 0, 0, 0], _OTHER)) == ["new"]
        await docs.delete_document(ANN, "c", "d")
        assert await docs.nearest_passages([SCOPE], [1, 0, 0, 0], _OTHER) == []

    async def test_a_model_is_changed_while_words_are_found(self, store: Store) -> None:
        docs = self.with_documents(store)
        self.needs_vectors()
        done = await _embedded(docs, "d", [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])
        await add(docs, "plain", "no vector yet")
        await docs.stage_passages(ANN, "c", "plain", "next", [passage(0, "never published")])
        left = await docs.unembedded(_OTHER)
        assert sorted((u.document, u.seq, u.text) for u in left) == [
            ("d", 0, "nut 0"),
            ("d", 1, "nut 1"),
            ("d", 2, "nut 2"),
            ("plain", 0, "no vector yet"),
        ]
        assert len(await docs.unembedded(_OTHER, limit=3)) == 3
        assert [u.document for u in await docs.unembedded(MODEL)] == ["plain"]
        of_d = [u for u in left if u.document == "d"]
        await docs.put_vectors(_OTHER, [(u, _unit(u.seq)) for u in of_d[:2]])
        half = await docs.get_document(ANN, "c", "d")
        assert half.embedder != _OTHER
        near = await docs.nearest_passages([SCOPE], [1, 0, 0, 0], _OTHER)
        assert {hit.passage.seq for hit in near} == {u.seq for u in of_d[:2]}
        assert [h.passage.seq for h in await docs.nearest_passages([SCOPE], [0, 0, 1, 0], MODEL)] == [of_d[2].seq]
        assert len(await found(docs, "nut")) == 3
        await docs.put_vectors(_OTHER, [(of_d[2], _unit(2))])
        whole = await docs.get_document(ANN, "c", "d")
        assert whole.embedder == _OTHER
        assert whole.etag == done.etag
        assert [u.document for u in await docs.unembedded(_OTHER)] == ["plain"]
        # What is said of a document does not undo it.
        put = await docs.put_document(structs.replace(done, title="said"), expect=done.etag)
        assert put.embedder == _OTHER

    async def test_vectors_for_what_is_gone_are_left_out(self, store: Store) -> None:
        docs = self.with_documents(store)
        self.needs_vectors()
        done = await add(docs, "d", "one", "two")
        await add(docs, "e", "three")
        left = await docs.unembedded(MODEL)
        await docs.stage_passages(ANN, "c", "d", "next", [passage(0, "new")])
        await docs.publish_document(done, "next", expect=done.etag)
        await docs.delete_document(ANN, "c", "e")
        await docs.put_vectors(MODEL, [(u, _unit(0)) for u in left])
        assert await docs.nearest_passages([SCOPE], [1, 0, 0, 0], MODEL) == []
        assert (await docs.get_document(ANN, "c", "d")).embedder is None
        assert [u.text for u in await docs.unembedded(MODEL)] == ["new"]

    @pytest.mark.parametrize("vector", [[], [0.0, 0.0], [float("nan")], [float("inf"), 1.0], ["x"], [1.0] * 4097])
    async def test_bad_vectors_are_answered(self, store: Store, vector: list[Any]) -> None:
        docs = self.with_documents(store)
        with pytest.raises(InvalidInput) as caught:
            await docs.nearest_passages([SCOPE], vector, MODEL)
        assert caught.value.field == "vector"


async def _embedded(docs: SupportsDocuments, id: str, *vectors: list[float], owner: str = ANN) -> Any:
    stored = await docs.put_document(document(id, owner=owner))
    await docs.stage_passages(owner, "c", id, "r", [passage(i, f"nut {i}", vector) for i, vector in enumerate(vectors)])
    return await docs.publish_document(structs.replace(stored, embedder=MODEL), "r", expect=stored.etag)


def _unit(place: int) -> bytes:
    made = passage(0, "", [float(i == place) for i in range(4)]).vector
    assert made is not None
    return made
