-- Reading and writing conversations as a whole; {schema} becomes the quoted name of the schema.

-- name: scan
SELECT key, owner, id, title, metadata, pinned, archived, version, etag, last_seq, head, head_id, branched, erased,
       created_at, updated_at, expires_at
FROM {schema}.conversation
WHERE key > $1 AND (expires_at IS NULL OR expires_at > {schema}.micros())
ORDER BY key LIMIT $2;

-- name: log
SELECT m.seq, m.id, m.parent, {schema}.name_of(m.conversation, m.parent), m.role, m.text, m.body, m.status, m.model,
       m.tokens, m.created_at, m.question, m.deleted
FROM {schema}.message m
WHERE m.conversation = $1 AND m.seq > $2
ORDER BY m.seq LIMIT $3;

-- name: leaves
SELECT seq FROM {schema}.leaf WHERE conversation = $1 ORDER BY used DESC, seq DESC;

-- name: place
SELECT owner, id, etag, last_seq, branched, erased, expires_at, (expires_at IS NULL OR expires_at > {schema}.micros()), head
FROM {schema}.conversation WHERE key = $1;

-- name: locked_place
SELECT owner, id, etag, last_seq, branched, erased, expires_at, (expires_at IS NULL OR expires_at > {schema}.micros()), head
FROM {schema}.conversation WHERE key = $1 FOR UPDATE;

-- name: clear_messages
DELETE FROM {schema}.message WHERE conversation = $1;

-- name: clear_leaves
DELETE FROM {schema}.leaf WHERE conversation = $1;

-- name: clear_answers
DELETE FROM {schema}.answer WHERE conversation = $1;

-- name: clear_tombstone
DELETE FROM {schema}.tombstone WHERE key = $1;

-- name: begin
INSERT INTO {schema}.conversation (key, owner, id, title, metadata, pinned, archived, version, etag, last_seq, head, head_id,
                                   branched, erased, created_at, updated_at, expires_at)
VALUES ($1, $2, $3, NULL, NULL, false, false, 0, '', 0, 0, NULL, false, false, 0, 0, $4);

-- name: load_messages
INSERT INTO {schema}.message (conversation, seq, id, parent, question, role, text, body, status, model, tokens, created_at,
                              deleted, terms)
SELECT $1, m.seq, m.id, m.parent, m.question, m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at, m.deleted,
       array_to_tsvector(string_to_array(m.terms, ' '))
FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::bytea[], $9::text[],
            $10::text[], $11::bigint[], $12::bigint[], $13::boolean[], $14::text[])
    AS m (seq, id, parent, question, role, text, body, status, model, tokens, created_at, deleted, terms);

-- name: load_leaves
INSERT INTO {schema}.leaf (conversation, seq, used)
SELECT $1, l.seq, l.used FROM unnest($2::bigint[], $3::bigint[]) AS l (seq, used);

-- name: put
UPDATE {schema}.conversation
SET title = $2, metadata = $3, pinned = $4, archived = $5, version = $6, etag = $7, last_seq = $8, head = $9,
    head_id = (SELECT m.id FROM {schema}.message m WHERE m.conversation = $1 AND m.seq = $9),
    branched = $10, erased = $11, created_at = $12, updated_at = $13, expires_at = $14
WHERE key = $1
RETURNING key, owner, id, title, metadata, pinned, archived, version, etag, last_seq, head, head_id, branched, erased,
          created_at, updated_at, expires_at;

-- name: scan_all_records
SELECT owner, namespace, key, value, etag, expires_at FROM {schema}.record
WHERE (owner, namespace, key) > ($1, $2, $3) AND (expires_at IS NULL OR expires_at > {schema}.micros())
ORDER BY owner, namespace, key LIMIT $4;
