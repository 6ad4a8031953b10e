"""Feeding the search index, and searching it.

The index is contentless FTS5: SQLite keeps the terms, not the text a second time. Taking a document out needs its terms
again, so the analyzer of a schema version must not change (a new analyzer is a migration that builds the index anew).
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from daram import ids
from daram.model import Hit
from daram.store.sqlite import rows
from daram.store.sqlite.rows import Stored, fetch, one, run, value
from daram.store.template import Ref
from daram.text.analyzer import fts5_match, index_terms

# How many documents one transaction takes into the index.
GROUP = 500


# "§" keeps them out of reach of what users write: the analyzer makes no term that has it.
def _owner_term(owner: str) -> str:
    return "§o" + ids.owner_key(owner).hex()


def _conversation_term(key: bytes) -> str:
    return "§c" + key.hex()


def terms(owner: str, key: bytes, text: str) -> str:
    """The terms of one document, with one for its owner and one for its conversation."""
    return f"{_owner_term(owner)} {_conversation_term(key)} {index_terms(text)}"


def feed(db: apsw.Connection, limit: int = GROUP) -> int:
    """Index the documents that are not indexed yet, at most ``limit``; returns how many were."""
    mark = value(db, "mark")
    todo = fetch(db, "unindexed", (mark, limit))
    for doc, owner, key, text in todo:
        run(db, "index_doc", (doc, terms(owner, key, text)))
    if todo:
        run(db, "set_mark", (todo[-1][0],))
    return len(todo)


def unindex(db: apsw.Connection, ref: Ref, docs: Iterable[tuple[int, str]]) -> None:
    """Take documents (number, text) out again; what the index did not have yet is only forgotten."""
    mark = value(db, "mark")
    assert isinstance(mark, int)
    top = False
    for doc, text in docs:
        if doc <= mark:
            run(db, "unindex_doc", (doc, terms(ref.owner, ref.key, text)))
            top = True
        run(db, "delete_doc", (doc,))
    if top:
        # Numbers at the top may be given again: what is given from now on must count as not indexed.
        run(db, "lower_mark")


def search(db: apsw.Connection, owner: str, query: str, within: Ref | None, now: int, limit: int) -> list[Hit]:
    """All words first; any word where nothing has all (Korean endings differ, questions hold words of their own)."""
    scope = [_owner_term(owner)]
    if within is not None:
        scope.append(_conversation_term(within.key))
    for all_words in (True, False):
        match = fts5_match(query, all_words=all_words, scope=scope)
        if match is None:
            return []
        if hits := _matching(db, owner, match, now, limit):
            return hits
    return []


def _matching(db: apsw.Connection, owner: str, match: str, now: int, limit: int) -> list[Hit]:
    hits = []
    known: dict[bytes, Stored | None] = {}
    for key, seq, score in fetch(db, "search", (match, limit)):
        if key not in known:
            row = one(db, "find_conversation", (key,))
            known[key] = None if row is None else Stored(*row)
        found = known[key]
        # The index was asked for this owner already; what expired is still in it until the purge.
        if found is None or found.owner != owner or (found.expires_at is not None and found.expires_at <= now):
            continue
        row = one(db, "message_by_seq", (key, seq))
        if row is not None and not row[10]:
            message = rows.to_message(row, rows.name_of(db, key, row[2]))
            hits.append(Hit(message=message, conversation=found.id, title=found.title, score=score))
    return hits
