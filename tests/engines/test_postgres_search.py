"""Search in PostgreSQL finds what the analyzer says that it finds, whatever people write and ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.postgres import Databases

from daram import ids
from daram.model import user
from daram.store.postgres.engine import PostgresStore
from daram.store.postgres.index import MAX_BYTES, Search, terms
from daram.store.primitives import Ref
from daram.text.analyzer import index_terms, matches, parse_query

OWNER = "ann"
REF = Ref(OWNER, "c", ids.conversation_key(OWNER, "c"))

_ODD = r"naïve 🐿️ foo_bar getHTTPName 42 4 it's \ ' '' ''' \' :* & | ! ( <-> § abc§def a:b"
_WORDS = st.sampled_from(
    [
        *("squirrel", "squirrels", "tuna", "the", "a", "Tuna"),
        *("다람쥐", "다람쥐를", "람쥐", "쥐다람", "다랑어라고", "マグロ", "リス"),
        *_ODD.split(" "),
    ]
)
_TEXTS = st.lists(_WORDS, min_size=1, max_size=6).map(" ".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20
)


@pytest.fixture
async def store(databases: Databases) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(databases.url("search")) as made:
        yield made


def reference(texts: dict[str, str], query: str) -> set[str]:
    """The ids of what a search for ``query`` finds."""
    parsed = parse_query(query)
    for all_words in (True, False):
        found = {id for id, t in texts.items() if matches(parsed, index_terms(t).split(" "), all_words=all_words)}
        if found:
            return found
    return set()


async def test_it_finds_what_the_analyzer_says(store: PostgresStore) -> None:
    @given(st.lists(_TEXTS, min_size=1, max_size=8), st.lists(_TEXTS, min_size=1, max_size=4))
    def examples(texts: list[str], queries: list[str]) -> None:
        cases.append((texts, queries))

    cases: list[tuple[list[str], list[str]]] = []
    examples()
    assert len(cases) > 50
    for number, (texts, queries) in enumerate(cases):
        stored = {f"m{i}": text for i, text in enumerate(texts)}
        owner = f"owner{number}"
        batch = [user(text, id=id) for id, text in stored.items()]
        await store.append(owner, "c", batch, create=True)
        for query in [*queries, *texts]:
            if query.strip():
                found = await store.search(owner, query, limit=100)
                assert {hit.id for hit in found} == reference(stored, query), (query, stored)
                inside = await store.search(owner, query, conversation="c", limit=100)
                assert {hit.id for hit in inside} == {hit.id for hit in found}


async def test_pairs_that_do_not_follow_one_another_are_no_word(store: PostgresStore) -> None:
    texts = [f"람쥐{n} 다람 밭에서 {n}" for n in range(60)]
    await store.append(OWNER, "c", [user(text) for text in texts], create=True)
    await store.append(OWNER, "c", [user("우리 집 다람쥐가 오늘도 도토리를 찾아서 숲으로 갔다", id="right")])
    assert [hit.id for hit in await store.search(OWNER, "다람쥐", limit=5)] == ["right"]


async def test_a_rare_word_counts_for_more(store: PostgresStore) -> None:
    batch = [user(f"my squirrel ate a nut on day {i}", id=f"d{i}") for i in range(50)]
    await store.append(OWNER, "c", [*batch, user("the tuna was asleep in the garden", id="rare")], create=True)
    hits = await store.search(OWNER, "does my squirrel know what the tuna did?", limit=3)
    assert hits[0].id == "rare"


async def test_words_that_nearly_everything_has_do_not_hide_the_rare(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daram.store.postgres.engine.COMMON", 10)
    await store.append(OWNER, "c", [user("the tuna sleeps", id="first")], create=True)
    await store.append(OWNER, "c", [user(f"squirrel number {i}") for i in range(60)])
    assert [h.id for h in await store.search(OWNER, "squirrel tuna garden")] == ["first"]
    assert len(await store.search(OWNER, "squirrel garden", limit=5)) == 5


@pytest.mark.parametrize("text", ["".join(f"{i:x} " for i in range(120_000)), "가나다라마바사아자차카타파하" * 20_000])
async def test_very_long_messages_are_stored_and_found(store: PostgresStore, text: str) -> None:
    text = text[: 1_000_000 // (3 if text[0] == "가" else 1)]
    stored = terms(REF, text)
    assert stored is not None
    assert len(stored.encode()) <= MAX_BYTES
    await store.append(OWNER, "c", [user(text, id="long")], create=True)
    assert [hit.id for hit in await store.search(OWNER, text[:30].strip())] == ["long"]


async def test_owners_whose_terms_begin_alike_are_nothing_to_each_other(
    store: PostgresStore, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what the other wrote nor how much of it there is changes what is found, or its score."""
    monkeypatch.setattr("daram.store.postgres.engine.COMMON", 10)
    mine, other = "user-8388", "user-12762"
    assert Search(mine, "tuna", None).any_word() == Search(other, "tuna", None).any_word()

    async def found(where: PostgresStore) -> list[tuple[str, float]]:
        return [(hit.id, hit.score) for hit in await where.search(mine, "squirrel tuna garden", limit=100)]

    batch = [user(f"the squirrel eats nut number {i}", id=f"s{i}") for i in range(6)]
    batch += [user("my squirrel", id="short"), user("a tuna", id="rare")]
    await store.append(other, "c", [user(f"squirrel, tuna: number {i}") for i in range(60)], create=True)
    assert await found(store) == []
    await store.append(mine, "c", batch, create=True)
    async with PostgresStore(databases.url("mine alone")) as alone:
        await alone.append(mine, "c", batch, create=True)
        wanted = await found(alone)
    assert len(wanted) == len(batch)
    assert await found(store) == wanted


def test_nobody_shares_a_term() -> None:
    mine = set((terms(REF, "squirrel tuna") or "").split())
    theirs = set((terms(Ref("ben", "c", ids.conversation_key("ben", "c")), "squirrel tuna") or "").split())
    assert len(mine) == len(theirs) == 3
    assert not mine & theirs
    assert Search("ben", "squirrel", None).all_words() not in Search(OWNER, "squirrel", None).all_words()
    assert terms(REF, "") is None
    assert terms(REF, "?!") is None
