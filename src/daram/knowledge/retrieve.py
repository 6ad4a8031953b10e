"""Finding the passages that bear on a question: by words and by meaning, fused; and whether any does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain
from typing import Final, Protocol, runtime_checkable

import msgspec

from daram.errors import DaramError, InvalidInput, Unsupported
from daram.knowledge.base import Library
from daram.knowledge.embedding import name_of
from daram.knowledge.filters import Passes, matching
from daram.knowledge.fuse import (
    Found,
    Place,
    fused,
    merged,
    place_of,
    ranked,
)
from daram.knowledge.relevance import across, confidence, coverages, sought, terms_of
from daram.llm.base import Embedder
from daram.store.documents import MOST_SCOPES, Only, PassageHit, Scope
from daram.text.analyzer import parse_query

log = logging.getLogger(__name__)

_QUERY_CHARS: Final = 900
_BESIDE: Final = 2  # how many hits a passage may be made of


class Retrieval(msgspec.Struct, frozen=True, kw_only=True):
    """How to search. ``words`` and ``vectors`` weigh the two rankings, ``k`` is that of the fusion.

    ``candidates``: how many hits are taken of each ranking; ``passages``: how many passages are given at most;
    ``threshold``: the score from which a passage counts as bearing on the question; ``three_ways``: whether the
    question is also asked for its concept, its usage and its code; ``rerank``: whether the re-ranker, where there is
    one, has its say.
    """

    words: float = 0.7
    vectors: float = 0.3
    k: int = 10
    candidates: int = 20
    passages: int = 5
    threshold: float = 0.5
    three_ways: bool = False
    rerank: bool = True

    def check(self) -> None:
        """Raises ``InvalidInput``."""
        if not (self.words >= 0 and self.vectors >= 0 and self.words + self.vectors > 0):
            raise InvalidInput("weights", "must not be negative, and one of them above 0")
        if not 1 <= self.k <= 10_000:
            raise InvalidInput("k", "must be between 1 and 10,000")
        if not 1 <= self.passages <= self.candidates <= 200:
            raise InvalidInput("candidates", "must be between the number of passages (at least 1) and 200")
        if not 0 <= self.threshold <= 1:
            raise InvalidInput("threshold", "must be between 0 and 1")


TUTORIAL: Final = Retrieval(words=0.3, vectors=0.7, k=60, three_ways=True)
"""The ensemble of the tutorial that Daram grew from: mostly vectors, and the question asked in three ways."""


class Query(msgspec.Struct, frozen=True):
    """One wording of a question, and how much its rankings count; ``judged``: whether a passage that bears on it bears
    on the question."""

    text: str
    weight: float = 1.0
    judged: bool = True


class Result(msgspec.Struct, frozen=True):
    """What a search found, the best first; ``score``: that of the best, 0 where nothing was found; ``answers``: whether
    it reaches the threshold. Below it the documents do not say."""

    passages: list[Found]
    score: float
    answers: bool


@runtime_checkable
class Reranker(Protocol):
    """A model that looks at question and passage together."""

    async def rerank(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        """How well each text answers the question: the higher, the better."""
        ...


class Retriever:
    """Searches a store. Without an ``embedder``, or where vectors cannot be searched, by words alone."""

    def __init__(self, store: Library, embedder: Embedder | None = None, *, reranker: Reranker | None = None) -> None:
        self._store = store
        self._embedder = embedder
        self._reranker = reranker

    async def search(
        self,
        scopes: Sequence[Scope],
        queries: Sequence[Query] | str,
        how: Retrieval = Retrieval(),
        *,
        passes: Passes | None = None,
    ) -> Result:
        """The passages of these collections that bear on a question, in one wording or several.

        ``passes``: only of the documents whose metadata it is true of (see ``daram.knowledge.filters``).

        Raises ``InvalidInput``, and what the store raises.
        """
        how.check()
        asked = [Query(queries)] if isinstance(queries, str) else list(queries)
        # What holds no term at all (an emoji, "?!") finds nothing, by meaning neither.
        asked = [
            msgspec.structs.replace(q, text=q.text.strip()[:_QUERY_CHARS]) for q in asked if parse_query(q.text).words
        ]
        if not asked or not scopes:
            return Result([], 0.0, False)
        only = None if passes is None else await matching(self._store, scopes, passes)
        worded_task = asyncio.gather(*(self._by_words(scopes, query, how, only) for query in asked))
        try:
            near = await self._by_meaning(scopes, asked, how, only)
            worded = await worded_task
        except BaseException:
            worded_task.cancel()
            raise
        hits: dict[Place, PassageHit] = {}
        cosines: dict[Place, float] = {}
        rankings: list[tuple[list[tuple[Place, float]], float]] = []
        for query, found in zip(asked, near, strict=True):
            for hit in found:
                cosines[place_of(hit)] = max(hit.score, cosines.get(place_of(hit), -1.0))
            rankings.append((ranked(found, 1.0), how.vectors * query.weight))
        for query, found in zip(asked, worded, strict=True):
            best = max((hit.score for hit in found), default=0.0)
            rankings.append((ranked(found, best), how.words * query.weight))
        for found in (*near, *worded):
            hits.update((place_of(hit), hit) for hit in found)
        order = list(fused(rankings, how.k))
        has_vectors = bool(cosines)
        least = min(cosines.values(), default=0.0)
        texts = [terms_of(_whole(hit)) for hit in hits.values()]
        judged = [coverages(sought(query.text), texts) for query in asked if query.judged]
        covered = {place: max(shares) for place, shares in zip(hits, zip(*judged, strict=True), strict=False)}
        order = order[: how.candidates]
        question = asked[0].text
        other = {place: across(question, hits[place].passage.text) for place in order}
        scores = {
            place: confidence(
                covered.get(place, 0.0),
                # A hit of the words alone is farther than the farthest of those by meaning.
                cosines.get(place, least) if has_vectors else None,
                across=other[place],
            )
            for place in order
        }
        order = _with_other_scripts(order, other, {place for place in order if scores[place] >= how.threshold})
        if self._reranker is not None and how.rerank and order:
            order = await self._reranked(self._reranker, question, order, hits)
        best = max((scores[place] for place in order), default=0.0)
        chosen = merged([(hits[place], scores[place]) for place in order[: how.passages * _BESIDE]])[: how.passages]
        return Result(chosen, best, best >= how.threshold)

    async def _by_words(
        self, scopes: Sequence[Scope], query: Query, how: Retrieval, only: Only | None
    ) -> list[PassageHit]:
        if not how.words:
            return []

        def ask(some: Sequence[Scope]) -> Awaitable[list[PassageHit]]:
            return self._store.search_passages(some, query.text, limit=how.candidates, only=only)

        return await _in_parts(scopes, ask, how.candidates)

    async def _by_meaning(
        self, scopes: Sequence[Scope], queries: Sequence[Query], how: Retrieval, only: Only | None
    ) -> list[list[PassageHit]]:
        """For each query; nothing where that cannot be had: search goes on by words."""
        if self._embedder is None or not how.vectors:
            return [[] for _ in queries]
        try:
            made = await self._embedder.embed([query.text for query in queries])
            name = name_of(self._embedder)

            def ask(vector: Sequence[float]) -> Awaitable[list[PassageHit]]:
                return _in_parts(
                    scopes,
                    lambda some: self._store.nearest_passages(some, vector, name, limit=how.candidates, only=only),
                    how.candidates,
                )

            return list(await asyncio.gather(*map(ask, made)))
        except Unsupported as error:
            log.debug("no search by meaning: %s", error)
        except DaramError as error:
            log.warning("the search by meaning failed, words are searched alone: %s", error)
        return [[] for _ in queries]

    async def _reranked(
        self, reranker: Reranker, question: str, order: list[Place], hits: dict[Place, PassageHit]
    ) -> list[Place]:
        try:
            points = await reranker.rerank(question, [hits[place].passage.text for place in order])
        except DaramError as error:
            log.warning("the re-ranker failed, the order stays as it was: %s", error)
            return order
        if len(points) != len(order):
            log.warning("the re-ranker gave %d scores for %d passages; the order stays", len(points), len(order))
            return order
        best_first = sorted(range(len(order)), key=lambda place: -points[place])  # stable: ties keep their order
        return [order[place] for place in best_first]


async def _in_parts(
    scopes: Sequence[Scope], ask: Callable[[Sequence[Scope]], Awaitable[list[PassageHit]]], limit: int
) -> list[PassageHit]:
    """The best hits in any number of collections: an engine takes so many at a time."""
    parts = [scopes[start : start + MOST_SCOPES] for start in range(0, len(scopes), MOST_SCOPES)]
    found = await asyncio.gather(*map(ask, parts))
    return found[0] if len(found) == 1 else sorted(chain(*found), key=lambda hit: -hit.score)[:limit]


def _whole(hit: PassageHit) -> str:
    """What a passage is judged by: its text with what stands above it."""
    return " ".join((hit.title or hit.name, *hit.passage.heading, hit.passage.text))


def _with_other_scripts(order: list[Place], other: Mapping[Place, bool], bearing: set[Place]) -> list[Place]:
    """The order, with the passages of another script than the question's behind those of its own that bear on it.

    They share no words with it, so that passages with some word by chance would else all stand before them.
    """
    own = [place for place in order if not other[place]]
    last = max((number for number, place in enumerate(own, 1) if place in bearing), default=0)
    good = [place for place in order if other[place] and place in bearing]
    rest = [place for place in order if other[place] and place not in bearing]
    return [*own[:last], *good, *own[last:], *rest]
