"""Rankings into one, hits into passages as they are quoted. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from daram.store.documents import PassageHit, Scope

Place = tuple[Scope, str, int]
"""A passage: the collection, the document, its ``seq``."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that bears on a question: one of a document, or several that stand side by side.

    ``score``: from 0 to 1, how surely it does (see ``daram.knowledge.relevance``), comparable from search to search.
    ``start`` and ``end`` are characters of the document's text, ``first`` and ``last`` the ``seq`` of its passages.
    """

    scope: Scope
    document: str
    revision: str
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
    if (first.scope, first.document, first.revision, first.passage.page, first.passage.heading) != (
        hit.scope,
        hit.document,
        hit.revision,
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
        revision=hit.revision,
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
