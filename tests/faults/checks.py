"""What must hold of every Daram file, looked at from below: with SQLite alone, not through the engine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import apsw

from daram import ids
from daram.text.analyzer import index_terms


def check_file(path: Path) -> None:
    """Raise AssertionError unless the database is sound in itself and the search index says what the messages say."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("INSERT INTO search (search) VALUES ('integrity-check')")
        _check_conversations(db)
        _check_index(db)
    finally:
        db.close()


def _check_conversations(db: apsw.Connection) -> None:
    known = {key: (last, head) for key, last, head in db.execute("SELECT key, last_seq, head FROM conversation")}
    found: dict[bytes, list[tuple[int, int]]] = {key: [] for key in known}
    for key, seq, parent in db.execute("SELECT conversation, seq, parent FROM message ORDER BY conversation, seq"):
        assert key in found, "a message without its conversation"
        found[key].append((seq, parent))
    for key, (last, head) in known.items():
        assert [seq for seq, _ in found[key]] == list(range(1, last + 1)), "the numbers of the messages have a gap"
        assert all(0 <= parent < seq for seq, parent in found[key]), "a message in front of its parent"
        assert 0 <= head <= last
    for table in ("answer", "leaf", "doc"):
        rest = db.execute(f"SELECT count(*) FROM {table} WHERE conversation NOT IN (SELECT key FROM conversation)").get
        assert rest == 0, f"{rest} rows of {table} without their conversation"


def _check_index(db: apsw.Connection) -> None:
    mark = db.execute("SELECT mark FROM search_mark").get
    wanted: Counter[tuple[int, str]] = Counter()
    documents = 0
    for doc, owner, key, text in db.execute(
        "SELECT d.id, c.owner, c.key, m.text FROM doc d JOIN message m ON m.conversation = d.conversation"
        " AND m.seq = d.seq AND m.doc = d.id JOIN conversation c ON c.key = d.conversation WHERE d.id <= ?",
        (mark,),
    ):
        documents += 1
        owner_term, conversation_term = "§o" + ids.owner_key(owner).hex(), "§c" + key.hex()
        wanted.update((doc, term) for term in (owner_term, conversation_term, *index_terms(text).split()))
    assert db.execute("SELECT count(*) FROM doc WHERE id <= ?", (mark,)).get == documents
    unlinked = "SELECT count(*) FROM message WHERE text <> '' AND doc NOT IN (SELECT id FROM doc)"
    assert db.execute(unlinked).get == 0, "a message that the search will never find"
    db.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, search, 'instance')")
    have = Counter((doc, term) for term, doc in db.execute("SELECT term, doc FROM temp.terms"))
    assert have == wanted, f"the index has {have - wanted} too much and lacks {wanted - have}"


def check_passages(path: Path) -> None:
    """Raise AssertionError unless passages, their index and their vectors say the same, and all belong to something."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.execute("INSERT INTO passage_search (passage_search) VALUES ('integrity-check')")
        revisions = {row[0]: row for row in db.execute("SELECT id, owner, collection, document, state FROM revision")}
        live = {row[3]: row[:3] for row in db.execute("SELECT owner, collection, id, live FROM document") if row[3]}
        published = {number: row[1:4] for number, row in revisions.items() if row[4] == 1}
        assert live == published
        wanted: Counter[tuple[int, str]] = Counter()
        length = count = 0
        for id, text, terms in db.execute("SELECT id, text, length FROM passage"):
            fence = "§d" + ids.conversation_key(*revisions[id >> 24][1:3]).hex()
            wanted.update((id, term) for term in (fence, *index_terms(text).split()))
            length, count = length + terms, count + 1
        db.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, passage_search, 'instance')")
        have = Counter((doc, term) for term, doc in db.execute("SELECT term, doc FROM temp.terms"))
        assert have == wanted, f"the index has {have - wanted} too much and lacks {wanted - have}"
        assert db.execute("SELECT passages, length FROM passage_total").fetchall() == [(count, length)]
        orphans = "SELECT count(*) FROM vector WHERE id NOT IN (SELECT id FROM passage)"
        assert db.execute(orphans).get == 0
        slots = {
            (revision << 24) + (page << 8) + slot
            for revision, page, some in db.execute("SELECT revision, page, slots FROM vector_page")
            for slot in some
        }
        assert slots == {id for (id,) in db.execute("SELECT id FROM vector")}
    finally:
        db.close()
