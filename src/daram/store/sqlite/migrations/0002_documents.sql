-- Documents. A revision's number is never given again; a passage's is (revision << 24) + seq, in all tables alike.

CREATE TABLE document (
    owner      TEXT NOT NULL,
    collection TEXT NOT NULL,
    id         TEXT NOT NULL,
    name       TEXT NOT NULL,
    title      TEXT,
    media_type TEXT,
    source     TEXT,
    digest     TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    state      TEXT NOT NULL,
    error      TEXT,
    metadata   BLOB,                       -- MessagePack, NULL when empty
    embedder   TEXT,                       -- the model of which all passages have a vector
    revision   TEXT,                       -- the name of the published revision
    live       INTEGER,                    -- and its number
    passages   INTEGER NOT NULL,
    etag       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (owner, collection, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX document_list ON document (owner, collection, created_at DESC, id DESC);
CREATE INDEX document_unfinished ON document (created_at, owner, collection, id)
    WHERE state IN ('waiting', 'reading');
CREATE INDEX document_embedder ON document (embedder) WHERE passages > 0;

CREATE TABLE revision (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    owner      TEXT NOT NULL,
    collection TEXT NOT NULL,
    document   TEXT NOT NULL,
    name       TEXT NOT NULL,
    state      INTEGER NOT NULL,           -- 0: staged, 1: published, 2: nobody sees it, and it is being removed
    staged_at  INTEGER NOT NULL,
    passages   INTEGER NOT NULL DEFAULT 0,
    vectors    INTEGER NOT NULL DEFAULT 0, -- staged with it
    embedder   INTEGER NOT NULL DEFAULT 0  -- that made these
) STRICT;

CREATE INDEX revision_document ON revision (owner, collection, document, name);
CREATE INDEX revision_staged ON revision (staged_at) WHERE state = 0;
CREATE INDEX revision_dead ON revision (id) WHERE state = 2;

CREATE TABLE passage (
    id      INTEGER PRIMARY KEY,
    text    TEXT NOT NULL,
    begins  INTEGER NOT NULL,
    ends    INTEGER NOT NULL,
    page    INTEGER,
    heading BLOB,                          -- MessagePack, NULL when empty
    length  INTEGER NOT NULL               -- in terms
) STRICT;

-- As the index of messages, with one term for the collection. What is staged is in it too: publishing is then a matter
-- of one row. stale: as in search_mark.
CREATE VIRTUAL TABLE passage_search USING fts5 (terms, content = '', contentless_delete = 1, tokenize = 'ascii');

CREATE TABLE passage_total (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    passages INTEGER NOT NULL,
    length   INTEGER NOT NULL,
    stale    INTEGER NOT NULL
) STRICT;

INSERT INTO passage_total (one, passages, length, stale) VALUES (1, 0, 0, 0);

CREATE TABLE embedder (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Vectors, exactly; and one bit of each number, those of up to 256 passages together, because a search looks at all of
-- a collection's: a hundred thousand rows would take it ten times as long. embedder: 0 for the revision's.
CREATE TABLE vector (
    id       INTEGER PRIMARY KEY,
    embedder INTEGER NOT NULL,
    value    BLOB NOT NULL                 -- float32, little-endian, unit length
) STRICT;

CREATE TABLE vector_page (
    revision INTEGER NOT NULL,
    embedder INTEGER NOT NULL,
    width    INTEGER NOT NULL,             -- bytes of one passage in bits
    page     INTEGER NOT NULL,             -- seq >> 8
    slots    BLOB NOT NULL,                -- seq & 255 of each passage
    bits     BLOB NOT NULL,
    PRIMARY KEY (revision, embedder, width, page)
) STRICT, WITHOUT ROWID;

-- What was read of the vectors of published passages still holds while this is the same: random, so that no database
-- that is restored comes back to a value that meant something else.
CREATE TABLE near_mark (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    value INTEGER NOT NULL
) STRICT;

INSERT INTO near_mark (one, value) VALUES (1, random());

CREATE TRIGGER near_document_stored AFTER INSERT ON document WHEN NEW.live IS NOT NULL
BEGIN UPDATE near_mark SET value = random(); END;
CREATE TRIGGER near_document_changed AFTER UPDATE OF live ON document WHEN NEW.live IS NOT OLD.live
BEGIN UPDATE near_mark SET value = random(); END;
CREATE TRIGGER near_document_deleted AFTER DELETE ON document WHEN OLD.live IS NOT NULL
BEGIN UPDATE near_mark SET value = random(); END;
CREATE TRIGGER near_revision_changed AFTER UPDATE OF embedder ON revision WHEN NEW.embedder <> OLD.embedder
BEGIN UPDATE near_mark SET value = random(); END;
CREATE TRIGGER near_page_stored AFTER INSERT ON vector_page
WHEN EXISTS (SELECT 1 FROM revision WHERE id = NEW.revision AND state = 1)
BEGIN UPDATE near_mark SET value = random(); END;
CREATE TRIGGER near_page_changed AFTER UPDATE ON vector_page
WHEN EXISTS (SELECT 1 FROM revision WHERE id = NEW.revision AND state = 1)
BEGIN UPDATE near_mark SET value = random(); END;
CREATE TRIGGER near_page_deleted AFTER DELETE ON vector_page
WHEN EXISTS (SELECT 1 FROM revision WHERE id = OLD.revision AND state = 1)
BEGIN UPDATE near_mark SET value = random(); END;
