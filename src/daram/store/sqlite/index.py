"""Feeding the search index, and searching it.

The index is contentless FTS5: SQLite keeps the terms, not the text a second time. A deleted document is left out of
every search at once; its terms leave the file when the index is merged (``wipe``). FTS5 can do that at once too
(``secure-delete``), but then every document takes a millisecond, and needs its terms once more, exactly.
"""

from __future__ import annotations

import time

import apsw

from daram import ids
from daram.model import Hit
from daram.store.primitives import Ref
from daram.store.sqlite import rows
from daram.store.sqlite.rows import Q, Stored, fetch, one, run, value
from daram.text.analyzer import Query, fts5_match, index_terms, matches, parse_query

# How many documents one transaction takes into the index, and how many characters of text (a few tens of milliseconds).
GROUP = 500
CHARACTERS = 1_000_000
# How many pages of the index are merged at once, and for how long one transaction goes on, in seconds.
_PAGES = 200
_WIPING = 0.03


# "§" keeps them out of reach of what users write: the analyzer makes no term that has it.
def _owner_term(owner: str) -> str:
    return "§o" + ids.owner_key(owner).hex()


def _conversation_term(key: bytes) -> str:
    return "§c" + key.hex()


def terms(owner: str, key: bytes, text: str) -> str:
    """The terms of one document, with one for its owner and one for its conversation."""
    return f"{_owner_term(owner)} {_conversation_term(key)} {index_terms(text)}"


def feed(db: apsw.Connection) -> tuple[int, bool]:
    """Index documents that are not indexed yet; returns how many were, and whether that was all."""
    mark = value(db, "mark")
    last, count, size = mark, 0, 0
    for doc, owner, key, text in db.execute(Q["unindexed"], (mark, GROUP)):
        run(db, "index_doc", (doc, terms(owner, key, text)))
        last, count, size = doc, count + 1, size + len(text)
        if size > CHARACTERS:
            break
    if count:
        run(db, "set_mark", (last,))
    return count, count < GROUP and size <= CHARACTERS


def unindex_message(db: apsw.Connection, doc: int) -> None:
    """Take one document out."""
    for name in ("unindex_doc", "delete_doc"):
        run(db, name, (doc,))
    run(db, "after_unindexing")


def unindex_conversation(db: apsw.Connection, key: bytes) -> None:
    """Take all documents of a conversation out."""
    for name in ("unindex_conversation", "delete_conversation_docs"):
        run(db, name, (key,))
    run(db, "after_unindexing")


def wipe(db: apsw.Connection) -> bool:
    """Merge a part of the index, so that what was deleted leaves the file; returns whether more is to be done.

    https://sqlite.org/fts5.html#the_merge_command: a negative number begins a merge of everything, positive ones go on,
    and it is complete when one changes nothing. That must be reached within one transaction: where others write without
    end, the next one finds new pieces to merge.
    """
    stale: int = value(db, "stale")
    deadline = time.monotonic() + _WIPING
    while stale:
        before = db.total_changes()
        run(db, "merge", (-_PAGES if stale == 1 else _PAGES,))
        stale = 0 if stale == 2 and db.total_changes() - before < 2 else 2
        if time.monotonic() >= deadline:
            break
    run(db, "set_stale", (stale,))
    return stale != 0


def search(
    db: apsw.Connection, owner: str, query: str, within: Ref | None, now: int, limit: int, any_word: bool
) -> list[Hit]:
    """All words first; any word where nothing has all (Korean endings differ, questions hold words of their own)."""
    scope = [_owner_term(owner)]
    if within is not None:
        scope.append(_conversation_term(within.key))
    parsed = parse_query(query)
    for all_words in (False,) if any_word else (True, False):
        match = fts5_match(query, all_words=all_words, scope=scope)
        if match is None:
            return []
        found = _matching(db, owner, match, now, limit)
        found += _waiting(db, owner, parsed, all_words, within, now)
        if found:
            return found[:limit]
    return []


def _matching(db: apsw.Connection, owner: str, match: str, now: int, limit: int) -> list[Hit]:
    """What the index finds, best first."""
    hits: list[Hit] = []
    known: dict[bytes, Stored | None] = {}
    asked = limit
    while True:
        found = fetch(db, "search", (match, asked))
        hits = [hit for key, seq, score in found if (hit := _hit(db, owner, key, seq, score, now, known)) is not None]
        if len(hits) >= limit or len(found) < asked:
            return hits[:limit]
        asked *= 4  # what has expired is in the index until the purge, and took the place of others


def _waiting(db: apsw.Connection, owner: str, query: Query, all_words: bool, within: Ref | None, now: int) -> list[Hit]:
    """What is not in the index yet (few documents, and none where the index could be fed before), the newest first."""
    hits: list[Hit] = []
    known: dict[bytes, Stored | None] = {}
    for key, seq, text in fetch(db, "waiting", (owner,)):
        is_within = within is None or within.key == key
        if is_within and matches(query, index_terms(text).split(), all_words=all_words):
            hit = _hit(db, owner, key, seq, 0.0, now, known)
            if hit is not None:
                hits.append(hit)
    return hits


def _hit(
    db: apsw.Connection, owner: str, key: bytes, seq: int, score: float, now: int, known: dict[bytes, Stored | None]
) -> Hit | None:
    if key not in known:
        row = one(db, "find_conversation", (key,))
        known[key] = None if row is None else Stored(*row)
    found = known[key]
    if found is None or found.owner != owner or (found.expires_at is not None and found.expires_at <= now):
        return None
    row = one(db, "message_by_seq", (key, seq))
    if row is None or row[10]:
        return None
    message = rows.to_message(row, rows.name_of(db, key, row[2]))
    return Hit(message=message, conversation=found.id, title=found.title, score=score)
