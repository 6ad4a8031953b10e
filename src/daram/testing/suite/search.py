"""Lexical search: every script, nobody else's messages, nothing that was deleted."""

from __future__ import annotations

import pytest

from daram.errors import InvalidInput, Unsupported
from daram.model import assistant, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, BEN, LONG, Suite, begin, finish, names, say, search

_SAID = {
    "tuna": "From now on, a squirrel is called a tuna.",
    "다랑어": "앞으로 다람쥐를 다랑어라고 부르기로 해요.",
    "code": "The function getHTTPName lives in foo_bar.py",
    "naïve": "A naïve café in Zürich",
    "かな": "リスはマグロと呼びます。",
    "emoji": "I like 🐿️ and 🍣",
    "number": "call 555 1234 at 10:30",
}

_ODD = ['"', "*", "tuna*", '"tuna', "(", "tuna AND (", "NOT tuna", "tuna NEAR/3 x", "a:b", "-tuna", "^tuna", "%", "_"]
_ODD += ["';--", "\\", "{terms}:tuna", "…", "\x01", "🐿" * 300, "가" * 1000, "a " * 500, "\u202e"]


async def _tell(store: Store) -> None:
    await store.append(ANN, "c", [user(text, id=id) for id, text in _SAID.items()], create=True)


class SearchTests(Suite):
    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("squirrel", "tuna"),
            ("SQUIRREL", "tuna"),
            ("squir", "tuna"),
            ("tuna squirrel", "tuna"),
            ("squirrels", "tuna"),
            ("What is the squirrel called?", "tuna"),
            ("다람쥐", "다랑어"),
            ("람쥐", "다랑어"),
            ("다랑", "다랑어"),
            ("다랑어 다람쥐", "다랑어"),
            ("다람쥐는 뭐라고 부르나요?", "다랑어"),
            ("マグロ", "かな"),
            ("http", "code"),
            ("foo_bar", "code"),
            ("bar.py", "code"),
            ("cafe", "naïve"),
            ("zurich", "naïve"),
            ("NAÏVE", "naïve"),
            ("🍣", "emoji"),
            ("1234", "number"),
        ],
    )
    async def test_finds(self, store: Store, query: str, found: str) -> None:
        await _tell(store)
        hits = await search(store, query)
        assert hits[0].id == found

    async def test_a_missing_conversation_has_nothing_to_find(self, store: Store) -> None:
        assert await store.search(ANN, "tuna", conversation="nowhere") == []

    async def test_any_word_finds_more_than_what_has_every_word(self, store: Store) -> None:
        await _tell(store)
        question = "What is the squirrel called?"
        await store.append(ANN, "c", [user(question, id="question")])
        assert names([hit.message for hit in await search(store, question)]) == ["question"]
        found = names([hit.message for hit in await search(store, question, any_word=True)])
        assert found[0] == "question"
        assert "tuna" in found
        with pytest.raises(InvalidInput):
            await store.search(ANN, question, any_word="yes")  # type: ignore[arg-type]  # that is what is tested

    @pytest.mark.parametrize("query", ["elephant", "uirrel", "코끼리", "elephant zebra", "🐘"])
    async def test_does_not_find(self, store: Store, query: str) -> None:
        await _tell(store)
        assert await search(store, query) == []

    @pytest.mark.parametrize(
        "query",
        _ODD,
    )
    async def test_odd_queries_are_answered(self, store: Store, query: str) -> None:
        await _tell(store)
        for hit in await search(store, query):
            assert hit.id in _SAID

    async def test_a_hit_says_where_it_is(self, store: Store) -> None:
        await _tell(store)
        await store.update(ANN, "c", title="Animals")
        hit = (await search(store, "tuna"))[0]
        assert hit.message == await store.message(ANN, "c", "tuna")
        assert (hit.conversation, hit.title, hit.text) == ("c", "Animals", _SAID["tuna"])

    async def test_all_words_are_wanted_where_that_finds_anything(self, store: Store) -> None:
        await store.append(
            ANN, "c", [user("red apple", id="1"), user("green apple", id="2"), user("red car", id="3")], create=True
        )
        assert [h.id for h in await search(store, "red apple")] == ["1"]
        assert {h.id for h in await search(store, "red banana")} == {"1", "3"}

    async def test_best_first(self, store: Store) -> None:
        filler = "and many other words that have nothing to do with it at all " * 5
        await store.append(
            ANN, "c", [user(f"squirrel {filler}", id="long"), user("squirrel, squirrel!", id="short")], create=True
        )
        hits = await search(store, "squirrel")
        assert [h.id for h in hits] == ["short", "long"]
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)

    async def test_limit(self, store: Store) -> None:
        for i in range(30):
            await store.append(ANN, f"c{i}", [user(f"squirrel {i}")], create=True)
        assert len(await search(store, "squirrel")) == 20
        assert len(await search(store, "squirrel", limit=7)) == 7
        assert len({h.conversation for h in await search(store, "squirrel", limit=100)}) == 30

    async def test_only_the_owners_own(self, store: Store) -> None:
        await store.append(ANN, "c", [user("squirrel of ann", id="a")], create=True)
        await store.append(BEN, "c", [user("squirrel of ben", id="b")], create=True)
        await store.append("an", "c", [user("squirrel of an", id="n")], create=True)
        assert [h.id for h in await search(store, "squirrel")] == ["a"]
        assert [h.id for h in await store.search(BEN, "squirrel", conversation="c")] == ["b"]
        assert await search(store, "squirrel", owner="nobody") == []

    async def test_in_one_conversation(self, store: Store) -> None:
        for id in ("c1", "c2"):
            await store.append(ANN, id, [user("squirrel", id=id)], create=True)
        assert [h.id for h in await store.search(ANN, "squirrel", conversation="c2")] == ["c2"]

    async def test_what_the_engine_says_of_its_search_is_true(self, store: Store) -> None:
        await _tell(store)
        if self.searches_everywhere:
            assert [hit.id for hit in await store.search(ANN, "tuna")] == ["tuna"]
        else:
            with pytest.raises(Unsupported, match="conversation="):
                await store.search(ANN, "tuna")
        assert [hit.id for hit in await store.search(ANN, "tuna", conversation="c")] == ["tuna"]

    async def test_strictness_is_decided_where_one_searches(self, store: Store) -> None:
        self.needs_search_everywhere()
        await store.append(ANN, "c1", [user("red apple", id="1")], create=True)
        await store.append(ANN, "c2", [user("green apple", id="2")], create=True)
        await store.append(BEN, "c3", [user("red banana", id="3")], create=True)
        assert [h.id for h in await store.search(ANN, "red apple", conversation="c2")] == ["2"]
        assert [h.id for h in await search(store, "red banana")] == ["1"]

    async def test_every_finished_append_is_seen_at_once(self, store: Store) -> None:
        for i in range(40):
            await store.append(ANN, "c", [user(f"squirrel{i}x", id=f"m{i}")], create=True)
            assert [h.id for h in await search(store, f"squirrel{i}x")] == [f"m{i}"]

    async def test_every_role_and_branch_is_searched(self, store: Store) -> None:
        await store.append(ANN, "c", [user("squirrel", id="a"), assistant("squirrel", id="b")], create=True)
        await store.append(ANN, "c", [user("squirrel", id="x")], parent="a")
        assert {h.id for h in await search(store, "squirrel")} == {"a", "b", "x"}

    async def test_an_answer_is_found_once_it_is_finished(self, store: Store) -> None:
        answer = await begin(store, "q")
        await store.checkpoint(ANN, "c", answer.id, answer.token, "a squirrel", lease=LONG)
        assert await search(store, "squirrel") == []
        await finish(store, answer, "a squirrel")
        assert [h.id for h in await search(store, "squirrel")] == [answer.id]

    async def test_nothing_that_was_deleted_is_found(self, store: Store) -> None:
        for id in ("c1", "c2", "c3"):
            await store.append(ANN, id, [user("squirrel", id=f"{id}a"), user("squirrel", id=f"{id}b")], create=True)
        await store.delete_message(ANN, "c1", "c1a")
        await store.delete(ANN, "c2")
        assert {h.id for h in await search(store, "squirrel")} == {"c1b", "c3a", "c3b"}
        await store.create(ANN, id="c2")
        await say(store, "other", id="c2")
        assert {h.id for h in await search(store, "squirrel")} == {"c1b", "c3a", "c3b"}

    async def test_the_deleted_does_not_count_against_the_limit(self, store: Store) -> None:
        done = await say(store, *(f"squirrel {i}" for i in range(50)))
        for id in names(done.messages)[5:]:
            await store.delete_message(ANN, "c", id)
        assert len(await search(store, "squirrel", limit=5)) == 5

    @pytest.mark.parametrize("query", ["", " ", "\n\t"])
    async def test_an_empty_query_is_refused(self, store: Store, query: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            await search(store, query)
        assert caught.value.field == "query"

    @pytest.mark.parametrize("query", ["?!", "—", "()"])
    async def test_a_query_without_words_finds_nothing(self, store: Store, query: str) -> None:
        await _tell(store)
        assert await search(store, query) == []
