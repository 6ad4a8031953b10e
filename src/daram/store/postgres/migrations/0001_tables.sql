-- The tables. Run with the schema first in search_path (see schema.py).
--
-- Moments are microseconds since 1970 (UTC) by the server's clock; 0 as a parent or a head is none. Names compare by
-- their bytes (COLLATE "C"): equal only where identical, sorted by code points, safe from changes of the C library.

CREATE TABLE conversation (
    key        bytea PRIMARY KEY,                 -- 16 bytes, digest of (owner, id)
    owner      text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    title      text,
    metadata   bytea,                             -- MessagePack, NULL when empty
    pinned     boolean NOT NULL DEFAULT false,
    archived   boolean NOT NULL DEFAULT false,
    version    bigint NOT NULL,
    etag       text COLLATE "C" NOT NULL,
    last_seq   bigint NOT NULL,
    head       bigint NOT NULL,
    head_id    text COLLATE "C",                  -- the id of the message that head numbers
    branched   boolean NOT NULL,                  -- once a message followed one that had been followed already
    erased     boolean NOT NULL DEFAULT false,    -- once a message was deleted
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    expires_at bigint
);

CREATE INDEX conversation_list ON conversation (owner, updated_at DESC, key DESC);
CREATE INDEX conversation_expiry ON conversation (expires_at) WHERE expires_at IS NOT NULL;

-- What was deleted in the last 24 hours; etag: what the deletion drew, by which its repetition is recognised.
CREATE TABLE tombstone (
    key        bytea PRIMARY KEY,
    etag       text COLLATE "C" NOT NULL,
    deleted_at bigint NOT NULL
);

CREATE INDEX tombstone_age ON tombstone (deleted_at);

CREATE TABLE message (
    conversation bytea NOT NULL,
    seq          bigint NOT NULL,
    id           text COLLATE "C" NOT NULL,
    parent       bigint NOT NULL,
    question     bigint,                          -- of an answer that does not stand directly behind its question: that
    role         text NOT NULL,
    text         text NOT NULL,
    body         bytea,                           -- parts, metadata, usage: codec.encode_body
    status       text NOT NULL,
    model        text,
    tokens       bigint,
    created_at   bigint NOT NULL,
    deleted      boolean NOT NULL DEFAULT false,
    terms        tsvector,                        -- see index.py; NULL when there is nothing to find
    PRIMARY KEY (conversation, seq)
);

CREATE UNIQUE INDEX message_id ON message (conversation, id);

-- A branch is a chain of runs of consecutive seq; the runs begin where a message does not follow the one before it.
-- Few rows: only forks. One index finds the run that a seq is in, the other the siblings.
CREATE INDEX message_fork ON message (conversation, seq, parent) WHERE parent <> seq - 1;
CREATE INDEX message_sibling ON message (conversation, parent, seq) WHERE parent <> seq - 1;
CREATE INDEX message_erased ON message (conversation, seq) WHERE deleted;
CREATE INDEX message_question ON message (conversation, question, seq) WHERE question IS NOT NULL;

-- A short list of pending entries: a search reads all of it, whoever wrote them.
CREATE INDEX message_terms ON message USING gin (terms) WITH (gin_pending_list_limit = 256);

-- The ends of the branches, only for conversations that have branched; used: the version at which it was the head last.
CREATE TABLE leaf (
    conversation bytea NOT NULL,
    seq          bigint NOT NULL,
    used         bigint NOT NULL,
    PRIMARY KEY (conversation, seq)
);

-- Answers that are being made. They change once a second: half-empty pages let most of that happen in place.
CREATE TABLE answer (
    conversation bytea NOT NULL,
    id           text COLLATE "C" NOT NULL,
    question     bigint NOT NULL,                 -- seq of the message that it answers
    sibling      boolean NOT NULL,                -- goes beside earlier answers; else to the end of its branch
    text         text NOT NULL,
    model        text,
    token        text COLLATE "C" NOT NULL,       -- fencing token of the lease
    process      text NOT NULL,                   -- boot id, pid and start time of the maker
    cancel       boolean NOT NULL DEFAULT false,
    created_at   bigint NOT NULL,
    lease_until  bigint NOT NULL,
    PRIMARY KEY (conversation, id)
) WITH (fillfactor = 50);

CREATE TABLE record (
    owner      text COLLATE "C" NOT NULL,
    namespace  text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    value      bytea NOT NULL,
    etag       text COLLATE "C" NOT NULL,
    expires_at bigint,
    PRIMARY KEY (owner, namespace, key)
);

CREATE INDEX record_expiry ON record (expires_at) WHERE expires_at IS NOT NULL;

-- What the functions answer with: rows of several kinds. The first says what happened ("appended", "missing", …) and
-- what the conversation is now; messages and answers follow. See rows.py.
CREATE TYPE reply AS (
    kind          text,
    version       bigint,
    etag          text,
    previous_etag text,
    seq           bigint,
    id            text,
    parent        bigint,
    parent_id     text,
    role          text,
    text          text,
    body          bytea,
    status        text,
    model         text,
    tokens        bigint,
    created_at    bigint,
    token         text,
    process       text,
    cancel        boolean,
    lease_until   bigint
);

CREATE FUNCTION micros() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;
