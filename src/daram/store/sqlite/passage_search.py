"""Finding passages by words.

FTS5 scores every passage that has any term of a question, and in a large collection the commonest terms are in half of
them. So the rarest terms choose the candidates, as many as a bounded number of passages has (the idea of MaxScore:
Turtle and Flood 1995), and BM25 by all terms puts these in order. In a small collection all terms choose.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from daram.store.document_rows import to_passage
from daram.store.documents import Only, PassageHit, Scope
from daram.store.documents_engine import MAX_SEQ
from daram.store.sqlite.passages import SHIFT, scope_term
from daram.store.sqlite.rows import fetch, one, value
from daram.text.analyzer import fts5_match, fts5_terms, index_terms, loose_terms, parse_query
from daram.text.bm25 import Statistics, rank
from daram.text.telling import telling

# So many passages that have a term are counted at most; how many the terms that choose have together; how many more
# candidates than asked for are put in order; and from so many revisions the sizes of all are judged.
_COUNTED = 2000
_CHOSEN = 10_000
_SPARE = 30
_SAMPLE = 64
# Of so many documents the passages are counted, of more they are judged.
_DOCUMENTS = 1000
# Collections that hold so much of all are not asked for.
_MOST = 0.5


def search(
    db: apsw.Connection, scopes: Sequence[Scope], query: str, limit: int, any_word: bool, only: Only | None = None
) -> list[PassageHit]:
    """Any word, or all words first and any where nothing has all."""
    wanted = loose_terms(parse_query(query))
    if not wanted:
        return []
    statistics = _statistics(db, wanted)
    among = None if only is None else chosen(db, scopes, only)
    size = _size(db, scopes) if among is None else sum(passages for _, passages in among)
    fence = " OR ".join(f'"{scope_term(scope)}"' for scope in scopes)
    # To ask of each passage whether it is of these collections costs more than to leave out those few that are not.
    is_most = among is None and size > _MOST * statistics.documents

    def matching(body: str) -> list[tuple[Any, ...]]:
        if is_most:
            found = fetch(db, "search_passages", (body, limit + _SPARE))
            hits = _hits(db, scopes, found)
            if len(hits) >= limit or len(found) < limit + _SPARE:
                return hits
        match = f"({fence}) AND ({body})"
        if among is None:
            return _hits(db, scopes, fetch(db, "search_passages", (match, limit + _SPARE)))
        numbers = json.dumps([number for number, _ in among])
        return _hits(db, scopes, fetch(db, "search_passages_of", (match, numbers, limit + _SPARE)))

    hits: list[tuple[Any, ...]] = []
    if not any_word:
        hits = matching(fts5_match(query) or fts5_terms(wanted))
    if not hits:
        choosing = _choosing(size, wanted, statistics)
        hits = matching(fts5_terms(choosing))
        if among is not None and len(hits) < limit and len(choosing) < len(wanted):
            hits = matching(fts5_terms(wanted))  # what is rare in all may be in none of these
    scores = rank(wanted, [index_terms(row[6]).split() for row in hits], statistics)
    best = sorted(zip(scores, hits, strict=True), key=lambda pair: (-pair[0], pair[1][2], pair[1][5]))
    return [to_hit(row, score) for score, row in best[:limit]]


def _hits(db: apsw.Connection, scopes: Sequence[Scope], found: Sequence[tuple[int]]) -> list[tuple[Any, ...]]:
    """Rows of the query ``hit``, of these collections."""
    rows = [row for (id,) in found if (row := one(db, "hit", (id,))) is not None]
    return [row for row in rows if row[:2] in scopes]


def to_hit(row: tuple[Any, ...], score: float) -> PassageHit:
    """A row of the query ``hit``."""
    owner, collection, id, name, title = row[:5]
    return PassageHit(
        scope=Scope(owner, collection),
        document=id,
        revision=row[11],
        name=name,
        title=title,
        passage=to_passage(row[5] & MAX_SEQ, row[6:11]),
        score=score,
    )


def _statistics(db: apsw.Connection, wanted: Sequence[tuple[str, bool]]) -> Statistics:
    """How many passages have each term, of all that the index holds, as far as it is worth counting."""
    row = one(db, "passage_total")
    assert row is not None
    passages, length = row
    counted = [one(db, "term_passages", (fts5_terms([term]), _COUNTED)) or (0, 0) for term in wanted]
    sample: list[tuple[int, int]] = []
    if any(count == _COUNTED for count, _ in counted):
        last = value(db, "last_revision") or 1
        some = sorted({1 + place * (last - 1) // (_SAMPLE - 1) for place in range(_SAMPLE)})
        sample = fetch(db, "revision_sizes", (json.dumps(some),))
    # They are counted in the order of their making: how far it came tells how many there are.
    having = [
        float(count) if count < _COUNTED else min(passages, max(count, count / _part_before(sample, id)))
        for count, id in counted
    ]
    return Statistics(max(1, passages), max(1.0, length / max(1, passages)), having)


def _part_before(sample: Sequence[tuple[int, int]], id: int) -> float:
    """About what part of all passages comes before this one, judged by some revisions and their sizes."""
    revision, seq = id >> SHIFT, id & MAX_SEQ
    before = sum(size if number < revision else min(size, seq + 1) for number, size in sample if number <= revision)
    return max(before, 1) / max(1, sum(size for _, size in sample))


def chosen(db: apsw.Connection, scopes: Sequence[Scope], only: Only) -> list[tuple[int, int]]:
    """The published revisions of the documents that are meant, and how many passages each has."""
    found: list[tuple[int, int]] = []
    for scope in scopes:
        if scope in only:
            found += fetch(db, "live_among", (*scope, json.dumps(list(only[scope]))))
        else:
            found += fetch(db, "live_of_collection", scope)
    return found


def _size(db: apsw.Connection, scopes: Sequence[Scope]) -> float:
    """About how many passages these collections have."""
    size = 0.0
    for scope in scopes:
        row = one(db, "collection_size", (*scope, _DOCUMENTS))
        assert row is not None
        documents, passages = row
        if documents == _DOCUMENTS:
            passages *= value(db, "collection_documents_counted", (*scope, _DOCUMENTS * 100)) / documents
        size += passages
    return size


def _choosing(size: float, wanted: Sequence[tuple[str, bool]], statistics: Statistics) -> list[tuple[str, bool]]:
    """The terms that choose the candidates of so many passages."""
    if size <= _CHOSEN:
        return list(wanted)
    rarest: list[tuple[str, bool]] = []
    total = 0.0
    by_worth = sorted(zip(statistics.having, wanted, strict=True), key=lambda pair: (telling(pair[1][0]) < 0.5, *pair))
    for having, term in by_worth:
        total += having
        if rarest and total > _CHOSEN and having:
            break
        if having:
            rarest.append(term)
    return rarest or list(wanted)
