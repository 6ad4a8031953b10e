-- The first schema. Numbers: created_at and the like are microseconds since 1970 (UTC); 0 as a parent or head is none.

CREATE TABLE conversation (
    key        BLOB PRIMARY KEY,           -- 16 bytes, digest of (owner, id)
    owner      TEXT NOT NULL,
    id         TEXT NOT NULL,
    title      TEXT,
    metadata   BLOB,                       -- MessagePack, NULL when empty
    pinned     INTEGER NOT NULL DEFAULT 0,
    archived   INTEGER NOT NULL DEFAULT 0,
    version    INTEGER NOT NULL,
    etag       TEXT NOT NULL,
    last_seq   INTEGER NOT NULL,
    head       INTEGER NOT NULL,
    branched   INTEGER NOT NULL,           -- 1 once a message followed one that had been followed already
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX conversation_list ON conversation (owner, updated_at DESC, key DESC);
CREATE INDEX conversation_expiry ON conversation (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE tombstone (
    key        BLOB PRIMARY KEY,
    deleted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX tombstone_age ON tombstone (deleted_at);

CREATE TABLE message (
    conversation BLOB NOT NULL,
    seq          INTEGER NOT NULL,
    id           TEXT NOT NULL,
    parent       INTEGER NOT NULL,
    role         TEXT NOT NULL,
    text         TEXT NOT NULL,
    body         BLOB,                     -- parts, metadata, usage: codec.encode_body
    status       TEXT NOT NULL,
    model        TEXT,
    tokens       INTEGER,
    created_at   INTEGER NOT NULL,
    doc          INTEGER,                  -- its document in the search index, NULL when it has no text
    question     INTEGER,                  -- of an answer that does not follow its question directly: that one's seq
    deleted      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX message_id ON message (conversation, id);

-- A branch is a chain of runs of consecutive seq; the runs begin where a message does not follow the one before it.
-- Few rows: only forks. One index finds the run that a seq is in, the other the siblings.
CREATE INDEX message_fork ON message (conversation, seq, parent) WHERE parent <> seq - 1;
CREATE INDEX message_sibling ON message (conversation, parent, seq) WHERE parent <> seq - 1;

CREATE INDEX message_question ON message (conversation, question) WHERE question IS NOT NULL;

-- The ends of the branches, only for conversations that have branched; used: the version at which it was the head last.
CREATE TABLE leaf (
    conversation BLOB NOT NULL,
    seq          INTEGER NOT NULL,
    used         INTEGER NOT NULL,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;

-- Answers that are being made.
CREATE TABLE answer (
    conversation BLOB NOT NULL,
    id           TEXT NOT NULL,
    question     INTEGER NOT NULL,         -- seq of the message that it answers
    sibling      INTEGER NOT NULL,         -- 1: goes beside earlier answers; 0: to the end of its branch
    text         TEXT NOT NULL,
    model        TEXT,
    token        TEXT NOT NULL,            -- fencing token of the lease
    process      TEXT NOT NULL,            -- boot id, pid and start time of the maker
    cancel       INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    lease_until  INTEGER NOT NULL,
    PRIMARY KEY (conversation, id)
) STRICT, WITHOUT ROWID;

-- Search. Documents get rising numbers; those above search_mark are not in the index yet (it is fed in groups,
-- because a commit with a single document costs twice the fsync).
CREATE TABLE doc (
    id           INTEGER PRIMARY KEY,
    conversation BLOB NOT NULL,
    seq          INTEGER NOT NULL
) STRICT;

CREATE TABLE search_mark (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    mark  INTEGER NOT NULL,
    stale INTEGER NOT NULL                 -- 1: something was deleted since the index was merged; 2: it is being merged
) STRICT;

INSERT INTO search_mark (one, mark, stale) VALUES (1, 0, 0);

-- Terms come from daram.text.analyzer, separated by spaces, with one term for the owner and one for the conversation.
CREATE VIRTUAL TABLE search USING fts5 (terms, content = '', contentless_delete = 1, tokenize = 'ascii');

CREATE TABLE record (
    owner      TEXT NOT NULL,
    namespace  TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      BLOB NOT NULL,
    etag       TEXT NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (owner, namespace, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX record_expiry ON record (expires_at) WHERE expires_at IS NOT NULL;
