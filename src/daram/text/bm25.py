"""BM25 over documents whose terms are at hand (Robertson and Zaragoza 2009, with the inverse document frequency of
Lucene, which is never negative)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from daram.text.telling import telling

K1: Final = 1.2
B: Final = 0.75


def idf(documents: float, having: float) -> float:
    """The weight of a term that ``having`` of ``documents`` have."""
    return math.log(1 + (documents - having + 0.5) / (having + 0.5))


def saturation(count: float, length: float, average: float) -> float:
    """What ``count`` times a term are worth in a document of so many terms, from 0 to ``K1 + 1``."""
    return count * (K1 + 1) / (count + K1 * (1 - B + B * length / average))


class Statistics(NamedTuple):
    """What is known of a whole index: how many documents, of how many terms each, and how many have each term."""

    documents: float
    average: float
    having: Sequence[float]


def rank(wanted: Sequence[tuple[str, bool]], documents: Sequence[Sequence[str]], statistics: Statistics) -> list[float]:
    """The scores of some documents of an index; ``statistics.having`` is of the terms ``wanted``, in their order.

    What any question may have weighs less (``telling``), so that a passage is not found by the endings of a verb.
    """
    weights = [
        idf(statistics.documents, having) * telling(term)
        for (term, _), having in zip(wanted, statistics.having, strict=True)
    ]
    has_prefix = any(prefix for _, prefix in wanted)
    found = []
    for terms in documents:
        counts = Counter(terms)
        together = f" {' '.join(terms)}" if has_prefix else ""
        score = 0.0
        for (term, prefix), weight in zip(wanted, weights, strict=True):
            count = together.count(f" {term}") if prefix else counts[term]
            if count:
                score += weight * saturation(count, len(terms), statistics.average)
        found.append(score)
    return found


def scores(wanted: Sequence[tuple[str, bool]], documents: Sequence[Sequence[str]]) -> list[float]:
    """The score of each document (its terms, in order) where these are all; ``wanted``: terms, each with whether it is
    a beginning."""
    average = max(1.0, sum(map(len, documents)) / max(1, len(documents)))
    having = [
        float(sum(any(t.startswith(term) if prefix else t == term for t in terms) for terms in documents))
        for term, prefix in wanted
    ]
    return rank(wanted, documents, Statistics(len(documents), average, having))
