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

from daram.store.documents import Only, PassageHit, Scope
from daram.store.sqlite.passages import SHIFT, scope_term, to_passage
from daram.store.sqlite.rows import fetch, one, value
from daram.text.analyzer import fts5_match, fts5_terms, index_terms, loose_terms, parse_query
from daram.text.bm25 import Statistics, rank

# So many occurrences of a term are counted at most; how many passages the terms that choose have together; and how many
# more candidates than asked for are put in order.
_COUNTED = 2000
_CHOSEN = 20_000
_SPARE = 80
_TOP = "\U0010ffff"


def search(
    db: apsw.Connection, scopes: Sequence[Scope], query: str, limit: int, any_word: bool, only: Only | None = None
) -> list[PassageHit]:
    """Any word, or all words first and any where nothing has all."""
    wanted = loose_terms(parse_query(query))
    if not wanted:
        return []
    fence = " OR ".join(f'"{scope_term(scope)}"' for scope in scopes)
    statistics = _statistics(db, wanted)
    among = None if only is None else chosen(db, scopes, only)

    def matching(body: str) -> list[tuple[Any, ...]]:
        match = f"({fence}) AND ({body})"
        if among is None:
            return fetch(db, "search_passages", (match, limit + _SPARE))
        numbers = json.dumps([number for number, _ in among])
        return fetch(db, "search_passages_of", (match, numbers, limit + _SPARE))

    for all_words in (False,) if any_word else (True, False):
        if all_words:
            found = matching(fts5_match(query) or fts5_terms(wanted))
        else:
            size = _size(db, scopes) if among is None else sum(passages for _, passages in among)
            choosing = _choosing(size, wanted, statistics)
            found = matching(fts5_terms(choosing))
            if among is not None and len(found) < limit and len(choosing) < len(wanted):
                found = matching(fts5_terms(wanted))  # what is rare in all may be in none of these
        if found:
            hits = [row for (id,) in found if (row := one(db, "hit", (id,))) is not None]
            terms = [index_terms(row[6]).split() for row in hits]
            scores = rank(wanted, terms, statistics)
            best = sorted(zip(scores, hits, strict=True), key=lambda pair: (-pair[0], pair[1][2], pair[1][5]))
            return [to_hit(row, score) for score, row in best[:limit] if Scope(*row[:2]) in scopes]
    return []


def to_hit(row: tuple[Any, ...], score: float) -> PassageHit:
    """A row of the query ``hit``."""
    owner, collection, id, name, title = row[:5]
    return PassageHit(
        scope=Scope(owner, collection),
        document=id,
        revision=row[11],
        name=name,
        title=title,
        passage=to_passage(row[5:11]),
        score=score,
    )


def _statistics(db: apsw.Connection, wanted: Sequence[tuple[str, bool]]) -> Statistics:
    """How many passages have each term, of all that the index holds, as far as it is worth counting."""
    row = one(db, "passage_total")
    assert row is not None
    passages, length = row
    last = (value(db, "last_revision") or 0) + 1
    having: list[float] = []
    for term, prefix in wanted:
        if prefix:
            counted = one(db, "prefix_instances", (term, term + _TOP, _COUNTED))
        else:
            counted = one(db, "term_instances", (term, _COUNTED))
        assert counted is not None
        count = float(counted[0])
        if counted[1] == _COUNTED:
            # They are counted in the order of their making: how far it came tells how many there are.
            seen = ((counted[2] >> SHIFT) + 1) / last if not prefix else 0.2
            count = min(passages / 2 if prefix else passages, max(count, count / seen))
        having.append(count)
    return Statistics(max(1, passages), max(1.0, length / max(1, passages)), having)


def chosen(db: apsw.Connection, scopes: Sequence[Scope], only: Only) -> list[tuple[int, int]]:
    """The published revisions of the documents that are meant, and how many passages each has."""
    found: list[tuple[int, int]] = []
    for scope in scopes:
        if scope in only:
            found += fetch(db, "live_among", (*scope, json.dumps(list(only[scope]))))
        else:
            found += fetch(db, "live_of_collection", scope)
    return found


def _size(db: apsw.Connection, scopes: Sequence[Scope]) -> int:
    return sum(int(value(db, "collection_size", scope) or 0) for scope in scopes)


def _choosing(size: int, wanted: Sequence[tuple[str, bool]], statistics: Statistics) -> list[tuple[str, bool]]:
    """The terms that choose the candidates of so many passages."""
    if size <= _CHOSEN:
        return list(wanted)
    rarest: list[tuple[str, bool]] = []
    total = 0.0
    for having, term in sorted(zip(statistics.having, wanted, strict=True)):
        total += having
        if rarest and total > _CHOSEN and having:
            break
        if having:
            rarest.append(term)
    return rarest or list(wanted)
