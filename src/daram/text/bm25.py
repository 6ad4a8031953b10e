"""BM25 over documents whose terms are at hand (Robertson and Zaragoza 2009, with the inverse document frequency of
Lucene, which is never negative)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

K1: Final = 1.2
B: Final = 0.75


def idf(documents: float, having: float) -> float:
    """The weight of a term that ``having`` of ``documents`` have."""
    return math.log(1 + (documents - having + 0.5) / (having + 0.5))


def saturation(count: float, length: float, average: float) -> float:
    """What ``count`` times a term are worth in a document of so many terms, from 0 to ``K1 + 1``."""
    return count * (K1 + 1) / (count + K1 * (1 - B + B * length / average))


def scores(wanted: Iterable[tuple[str, bool]], documents: Sequence[Sequence[str]]) -> list[float]:
    """The score of each document (its terms, in order); ``wanted``: terms, each with whether it is a beginning."""
    found = [0.0] * len(documents)
    average = max(1.0, sum(map(len, documents)) / max(1, len(documents)))
    for term, prefix in wanted:
        counts = [sum(t.startswith(term) if prefix else t == term for t in terms) for terms in documents]
        weight = idf(len(documents), sum(1 for count in counts if count))
        for i, count in enumerate(counts):
            if count:
                found[i] += weight * saturation(count, len(documents[i]), average)
    return found
