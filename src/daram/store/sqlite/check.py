"""Is a file whole? What its tables, its indexes and the search index say of each other."""

from __future__ import annotations

from typing import Literal

import apsw
import msgspec

from daram.model import Problem
from daram.store.documents import Scope
from daram.store.queries import load_queries
from daram.store.sqlite.index import terms
from daram.store.sqlite.passages import scope_term
from daram.store.sqlite.rows import Row
from daram.store.sqlite.rows import run as run_query
from daram.text.analyzer import index_terms

Q = load_queries("daram.store.sqlite", "check.sql")
Kind = Literal["damage", "orphans", "index", "passages"]
_ORPHANS = {
    "message": "check_orphan_messages",
    "leaf": "check_orphan_leaves",
    "answer": "check_orphan_answers",
    "doc": "check_orphan_docs",
    "revision": "check_orphan_revisions",
    "passage": "check_orphan_passages",
    "vector": "check_orphan_vectors",
    "vector_page": "check_orphan_vector_pages",
}
_PARENT = {"doc": "message", "vector": "passage"} | dict.fromkeys(("revision", "passage", "vector_page"), "document")
_DELETE = {
    "message": "delete_orphan_messages",
    "leaf": "delete_orphan_leaves",
    "answer": "delete_orphan_answers",
    "doc": "delete_orphan_docs",
    "revision": "kill_orphan_revisions",
    "passage": "delete_orphan_passages",
    "vector": "delete_orphan_vectors",
    "vector_page": "delete_orphan_vector_pages",
}
_TERMS = 8  # of a document that are looked up in the index


class Found(msgspec.Struct, frozen=True):
    """A problem, and its kind: what to do about it."""

    where: str
    what: str
    kind: Kind

    @property
    def mendable(self) -> bool:
        """Whether it can be put right without a guess."""
        return self.kind != "damage"

    def public(self, *, repaired: bool = False) -> Problem:
        """As callers see it."""
        return Problem(where=self.where, what=self.what, repaired=repaired)


def look(db: apsw.Connection) -> list[Found]:
    """Everything that is wrong. Reads the whole file."""
    found = [
        Found("the file", str(line), "damage") for (line,) in db.execute("PRAGMA integrity_check(20)") if line != "ok"
    ]
    for table, query in _ORPHANS.items():
        count = _count(db, query)
        if count:
            what = _PARENT.get(table, "conversation")
            found.append(Found(f"table {table}", f"{count:,} rows belong to no {what}", "orphans"))
    return [*found, *_index(db), *_documents(db)]


def _documents(db: apsw.Connection) -> list[Found]:
    where = "the index of documents"
    found = []
    count = _count(db, "check_documents")
    if count:
        found.append(Found("table document", f"{count:,} documents lack passages: read them again", "damage"))
    for query, what in (
        ("check_passages_not_indexed", "passages are missing"),
        ("check_passages_only_indexed", "passages are in it that are not stored"),
    ):
        count = _count(db, query)
        if count:
            found.append(Found(where, f"{count:,} {what}", "passages"))
    wrong = 0
    for id, owner, collection, text in db.execute(Q["check_passages"]):
        wanted = [scope_term(Scope(owner, collection)), *list(dict.fromkeys(index_terms(text).split()))[:_TERMS]]
        if db.execute(Q["check_passage_match"], (_all(wanted), id)).get is None:
            wrong += 1
    if wrong:
        found.append(Found(where, f"{wrong:,} passages are in it with other words", "passages"))
    return found


def _all(terms: list[str]) -> str:
    return " AND ".join('"' + term.replace('"', '""') + '"' for term in terms)


def _index(db: apsw.Connection) -> list[Found]:
    found = []
    for query, what in (
        ("check_without_doc", "messages with text are not to be found by a search"),
        ("check_not_indexed", "messages are missing"),
        ("check_only_indexed", "messages are in it that are not stored"),
    ):
        count = _count(db, query)
        if count:
            found.append(Found("the search index", f"{count:,} {what}", "index"))
    wrong = 0
    for doc, owner, key, text in db.execute(Q["check_docs"]):
        wanted = list(dict.fromkeys(terms(owner, key, text).split()))[: _TERMS + 2]
        if db.execute(Q["check_match"], (_all(wanted), doc)).get is None:
            wrong += 1
    if wrong:
        found.append(Found("the search index", f"{wrong:,} messages are in it with other words", "index"))
    return found


def repair_all(db: apsw.Connection, found: list[Found]) -> None:
    """Drop what belongs to nothing; make the search index anew (it is fed afterwards)."""
    if any(problem.kind == "orphans" for problem in found):
        for query in _DELETE.values():  # all: what goes may leave others behind without what they belong to
            db.execute(Q[query])
    if any(problem.kind in ("index", "orphans") for problem in found):
        db.execute(Q["forget_docs"])
        db.execute(Q["forget_message_docs"])
        for key, seq in db.execute(Q["check_texts"]).fetchall():
            run_query(db, "insert_doc", (key, seq))
            db.execute(Q["set_message_doc"], (db.last_insert_rowid(), key, seq))
        db.execute(Q["forget_index"])
        run_query(db, "set_mark", (0,))
    if any(problem.kind in ("passages", "orphans") for problem in found):
        _index_passages_anew(db)


def _index_passages_anew(db: apsw.Connection) -> None:
    db.execute(Q["forget_passage_index"])
    db.execute(Q["forget_passage_total"])
    found: list[Row] = db.execute(Q["all_passages"]).fetchall()
    for id, owner, collection, text in found:
        terms = f"{scope_term(Scope(owner, collection))} {index_terms(text)}"
        run_query(db, "index_passage", (id, terms))
        run_query(db, "add_to_total", (1, terms.count(" ") + 1))


def _count(db: apsw.Connection, name: str) -> int:
    count = db.execute(Q[name]).get
    assert isinstance(count, int)
    return count
