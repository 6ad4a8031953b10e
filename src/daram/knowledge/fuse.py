"""Rankings into one, hits into passages as they are quoted. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from daram.store.documents import PassageHit, Scope
from daram.text.analyzer import index_terms, loose_terms, parse_query
from daram.text.telling import telling

Place = tuple[Scope, str, int]
"""A passage: the collection, the document, its ``seq``."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that bears on a question: one of a document, or several that stand side by side.

    ``score``: from 0 to 1, how surely it does (see ``confidence``), comparable from search to search. ``start`` and
    ``end`` are characters of the document's text, ``first`` and ``last`` the ``seq`` of its passages.
    """

    scope: Scope
    document: str
    name: str
    title: str | None
    text: str
    start: int
    end: int
    first: int
    last: int
    page: int | None = None
    heading: tuple[str, ...] = ()
    score: float = 0.0
    revision: str | None = None


def place_of(hit: PassageHit) -> Place:
    """Where a hit stands."""
    return hit.scope, hit.document, hit.passage.seq


def ranked(hits: Sequence[PassageHit], best: float) -> list[tuple[Place, float]]:
    """The places of hits, the best first, with what part of ``best`` their scores reach (0 to 1)."""
    return [(place_of(hit), min(1.0, max(0.0, hit.score / best)) if best > 0 else 0.0) for hit in hits]


def fused(rankings: Iterable[tuple[Sequence[tuple[Place, float]], float]], k: int = 10) -> dict[Place, float]:
    """Reciprocal-rank fusion: each ranking gives its n-th place weight / (k + n), times the part of the best score that
    it reaches. The best first; ties by place.

    G. V. Cormack, C. L. A. Clarke, S. Büttcher, Reciprocal Rank Fusion outperforms Condorcet …, SIGIR 2009. By ranks
    alone a passage that has all the words of a question would stand hardly higher than one that has half of them, and
    where the vectors tell little, they would put second what was first.
    """
    points: dict[Place, float] = {}
    for ranking, weight in rankings:
        for rank, (place, part) in enumerate(ranking, 1):
            points[place] = points.get(place, 0.0) + weight * part / (k + rank)
    return dict(sorted(points.items(), key=lambda item: (-item[1], item[0])))


# --- how surely a passage bears on a question ---


def term_weights(question: str, texts: Sequence[str]) -> dict[str, float]:
    """How much each term of a question tells: the rarer among what was found, the more. ``texts``: ``terms_of`` them.

    A term is written as it stands in ``terms_of`` a text: between blanks, a beginning without the second one.
    """
    weights: dict[str, float] = {}
    for term, is_beginning in loose_terms(parse_query(question)):
        written = f" {term}" if is_beginning else f" {term} "
        frequency = sum(written in text for text in texts)
        weights[written] = math.log(1 + (len(texts) + 1) / (frequency + 0.5)) * telling(term)
    return weights


def coverage(text: str, weights: Mapping[str, float]) -> float:
    """What part of the question, by weight, a text speaks of (0 to 1). ``text``: ``terms_of`` it."""
    whole = math.fsum(weights.values())
    if not whole:
        return 0.0
    return math.fsum(weight for written, weight in weights.items() if written in text) / whole


def terms_of(text: str) -> str:
    """The terms of a passage, each between blanks."""
    return f" {index_terms(text)} "


class Calibration(msgspec.Struct, frozen=True):
    """A logistic regression of "this passage answers this question" on what a search measures.

    Fitted by ``python -m bench.grounding`` on the questions of ``bench/data/grounding.json``, English and Korean; see
    docs/explanation/retrieval.md.
    """

    covered: float
    cosine: float
    constant: float


WORDS_ONLY: Final = Calibration(covered=12.06, cosine=0.0, constant=-3.87)
WITH_VECTORS: Final = Calibration(covered=10.72, cosine=2.97, constant=-4.66)
ACROSS: Final = Calibration(covered=10.72, cosine=14.09, constant=-3.03)
"""For a question in one script about a passage in another: they share few words, if any. The constant stands a little
lower than the fit says: what is refused rightly counts for more than what is found."""


def confidence(covered: float, cosine: float | None, *, across: bool = False) -> float:
    """How surely a passage bears on a question, from 0 to 1.

    ``covered``: as ``coverage`` says; ``cosine``: of their vectors, None where there are none; ``across``: whether they
    are of different scripts.
    """
    by = WORDS_ONLY if cosine is None else ACROSS if across else WITH_VECTORS
    return 1 / (1 + math.exp(-(by.covered * covered + by.cosine * (cosine or 0.0) + by.constant)))


_WIDE: Final = re.compile("[\u1100-\u11ff\u3041-\u30ff\u3131-\u318e\u3400-\u9fff\uac00-\ud7a3]")
_NARROW: Final = re.compile("[A-Za-z\u00c0-\u052f]")
_LETTERS_OF_A_SYLLABLE: Final = 2.5


def across(question: str, text: str) -> bool:
    """Whether two texts are of different scripts, for the most part: Hangul, Han or Kana, and letters."""
    return _is_wide(question) != _is_wide(text)


def _is_wide(text: str) -> bool:
    text = text[:2000]
    return len(_WIDE.findall(text)) * _LETTERS_OF_A_SYLLABLE > len(_NARROW.findall(text))


# --- hits into passages ---


def merged(hits: Sequence[tuple[PassageHit, float]]) -> list[Found]:
    """Hits as passages, in their order: those that stand side by side become one, the same text is given once."""
    groups: list[list[tuple[PassageHit, float]]] = []
    for hit, score in hits:
        neighbour = next((group for group in groups if _beside(group, hit)), None)
        if neighbour is None:
            groups.append([(hit, score)])
        else:
            neighbour.append((hit, score))
    found: list[Found] = []
    seen: set[str] = set()
    for group in groups:
        made = _joined(group)
        said = " ".join(made.text.split())
        if said not in seen:
            seen.add(said)
            found.append(made)
    return found


def _beside(group: list[tuple[PassageHit, float]], hit: PassageHit) -> bool:
    first = group[0][0]
    if (first.scope, first.document, first.passage.page, first.passage.heading) != (
        hit.scope,
        hit.document,
        hit.passage.page,
        hit.passage.heading,
    ):
        return False
    return any(abs(other.passage.seq - hit.passage.seq) <= 1 for other, _ in group)


def _joined(group: list[tuple[PassageHit, float]]) -> Found:
    ordered = sorted({hit.passage.seq: hit for hit, _ in group}.values(), key=lambda hit: hit.passage.seq)
    first, last = ordered[0].passage, ordered[-1].passage
    text, end = first.text, first.end
    for hit in ordered[1:]:
        passage = hit.passage
        shared = end - passage.start
        if 0 < shared <= len(passage.text):
            text += passage.text[shared:]
        else:
            text += "\n" + passage.text
        end = passage.end
    hit = ordered[0]
    return Found(
        scope=hit.scope,
        document=hit.document,
        name=hit.name,
        title=hit.title,
        text=text,
        start=first.start,
        end=last.end,
        first=first.seq,
        last=last.seq,
        page=first.page,
        heading=first.heading,
        score=max(score for _, score in group),
    )
