-- Named queries; {schema} becomes the quoted name of the schema. See store/queries.py for how they are read.
-- Every one is a whole transaction. Those on one conversation name its key.

-- name: create_conversation
SELECT r.kind, (r.c).* FROM {schema}.create_conversation($1, $2, $3, $4, $5, $6, $7) AS r;

-- name: find_conversation
SELECT key, owner, id, title, metadata, pinned, archived, version, etag, last_seq, head, head_id, branched, erased,
       created_at, updated_at, expires_at
FROM {schema}.conversation
WHERE key = $1 AND owner = $2 AND id = $3 AND (expires_at IS NULL OR expires_at > {schema}.micros());

-- name: list_conversations
SELECT key, owner, id, title, metadata, pinned, archived, version, etag, last_seq, head, head_id, branched, erased,
       created_at, updated_at, expires_at
FROM {schema}.conversation
WHERE owner = $1 AND (expires_at IS NULL OR expires_at > {schema}.micros())
ORDER BY updated_at DESC, key DESC LIMIT $2;

-- name: list_conversations_before
SELECT key, owner, id, title, metadata, pinned, archived, version, etag, last_seq, head, head_id, branched, erased,
       created_at, updated_at, expires_at
FROM {schema}.conversation
WHERE owner = $1 AND (updated_at, key) < ($3, $4) AND (expires_at IS NULL OR expires_at > {schema}.micros())
ORDER BY updated_at DESC, key DESC LIMIT $2;

-- name: update_conversation
UPDATE {schema}.conversation
SET version = CASE WHEN etag = $4 THEN version ELSE version + 1 END,
    etag = $4,
    title = CASE WHEN $5 THEN $6 ELSE title END,
    metadata = CASE WHEN $7 THEN $8 ELSE metadata END,
    pinned = coalesce($9, pinned),
    archived = coalesce($10, archived),
    expires_at = CASE WHEN $11 THEN $12 ELSE expires_at END
WHERE key = $1 AND owner = $2 AND id = $3 AND (expires_at IS NULL OR expires_at > {schema}.micros())
RETURNING key, owner, id, title, metadata, pinned, archived, version, etag, last_seq, head, head_id, branched, erased,
          created_at, updated_at, expires_at;

-- name: delete_conversation
SELECT {schema}.delete_conversation($1, $2, $3, $4);

-- name: delete_owner
SELECT {schema}.delete_owner($1, $2);

-- name: purge
SELECT {schema}.purge($1);

-- name: append_one
SELECT * FROM {schema}.append_one(
    $1, $2, $3, $4, $5, $6, $7, $8, $9,
    $10, $11, $12, $13, $14, $15, $16, $17, $18);

-- name: append_many
SELECT * FROM {schema}.append_messages(
    $1, $2, $3, $4, $5, $6, $7, $8, $9,
    $10::text[], $11::text[], $12::text[], $13::bytea[], $14::text[], $15::text[], $16::bigint[], $17::bigint[],
    $18::text[]);

-- name: tail
SELECT * FROM {schema}.tail($1, $2, $3, $4);

-- name: page
SELECT * FROM {schema}.page($1, $2, $3, $4, $5, $6, $7);

-- name: message
SELECT m.seq, m.id, m.parent, {schema}.name_of(c.key, m.parent), m.role, m.text, m.body, m.status, m.model, m.tokens,
       m.created_at
FROM {schema}.conversation c
LEFT JOIN {schema}.message m ON m.conversation = c.key AND m.id = $4 AND NOT m.deleted
WHERE c.key = $1 AND c.owner = $2 AND c.id = $3 AND (c.expires_at IS NULL OR c.expires_at > {schema}.micros());

-- name: delete_message
SELECT r.kind, (r.c).* FROM {schema}.delete_message($1, $2, $3, $4, $5) AS r;

-- name: siblings
SELECT * FROM {schema}.siblings($1, $2, $3, $4);

-- name: use_branch
SELECT r.kind, (r.c).* FROM {schema}.use_branch($1, $2, $3, $4, $5) AS r;

-- name: begin_one
SELECT * FROM {schema}.begin_one(
    $1, $2, $3, $4, $5, $6, $7, $8, $9,
    $10, $11, $12, $13, $14, $15, $16, $17, $18,
    $19, $20, $21, $22, $23, $24);

-- name: begin_many
SELECT * FROM {schema}.begin_turn(
    $1, $2, $3, $4, $5, $6, $7, $8, $9,
    $10::text[], $11::text[], $12::text[], $13::bytea[], $14::text[], $15::text[], $16::bigint[], $17::bigint[],
    $18::text[],
    $19, $20, $21, $22, $23, $24);

-- name: checkpoint
UPDATE {schema}.answer SET text = $4, lease_until = {schema}.micros() + $5
WHERE conversation = $1 AND id = $2 AND token = $3
  AND EXISTS (SELECT FROM {schema}.conversation
              WHERE key = $1 AND (expires_at IS NULL OR expires_at > {schema}.micros()))
RETURNING cancel;

-- name: finish_turn
SELECT * FROM {schema}.finish_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: cancel_turn
WITH found AS (
    SELECT key FROM {schema}.conversation
    WHERE key = $1 AND owner = $2 AND id = $3 AND (expires_at IS NULL OR expires_at > {schema}.micros())
), asked AS (
    UPDATE {schema}.answer a SET cancel = true FROM found
    WHERE a.conversation = found.key AND a.conversation = $1 AND ($4::text IS NULL OR a.id = $4)
    RETURNING a.id
)
SELECT (SELECT count(*) FROM found), (SELECT count(*) FROM asked);

-- name: answers
SELECT a.id, q.id, a.text, a.model, a.cancel, a.created_at, a.lease_until
FROM {schema}.conversation c
LEFT JOIN {schema}.answer a ON a.conversation = c.key
LEFT JOIN {schema}.message q ON q.conversation = a.conversation AND q.seq = a.question
WHERE c.key = $1 AND c.owner = $2 AND c.id = $3 AND (c.expires_at IS NULL OR c.expires_at > {schema}.micros())
ORDER BY a.created_at, a.id;

-- name: answers_of
SELECT conversation, id, token, lease_until, process, lease_until <= {schema}.micros()
FROM {schema}.answer WHERE conversation = $1 ORDER BY created_at, id;

-- name: all_answers
SELECT conversation, id, token, lease_until, process, lease_until <= {schema}.micros()
FROM {schema}.answer ORDER BY lease_until, conversation, id;

-- name: claim_answers
WITH claimed AS (
    UPDATE {schema}.answer a SET token = $5, process = $6, lease_until = {schema}.micros() + $7
    FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[]) AS dead (conversation, id, token, lease_until)
    WHERE a.conversation = dead.conversation AND a.id = dead.id
      AND (a.token = dead.token AND a.lease_until = dead.lease_until OR a.token = $5)
      AND EXISTS (SELECT FROM {schema}.conversation c
                  WHERE c.key = a.conversation AND (c.expires_at IS NULL OR c.expires_at > {schema}.micros()))
    RETURNING a.*
)
SELECT c.owner, c.id, a.id, q.id, a.text, a.model, a.cancel, a.created_at, a.lease_until
FROM claimed a
JOIN {schema}.conversation c ON c.key = a.conversation
LEFT JOIN {schema}.message q ON q.conversation = a.conversation AND q.seq = a.question
ORDER BY a.created_at, a.id;

-- name: search_all
SELECT * FROM {schema}.search_all($1, $2, $3::tsquery, $4);

-- name: search_any
SELECT * FROM {schema}.search_any($1, $2, $3::text[]::tsquery[], $4, $5);

-- name: get_record
SELECT namespace, key, value, etag, expires_at FROM {schema}.record
WHERE owner = $1 AND namespace = $2 AND key = $3 AND (expires_at IS NULL OR expires_at > {schema}.micros());

-- name: put_record
INSERT INTO {schema}.record AS r (owner, namespace, key, value, etag, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (owner, namespace, key) DO UPDATE
SET value = excluded.value, etag = excluded.etag, expires_at = excluded.expires_at
RETURNING etag;

-- name: put_record_if_absent
INSERT INTO {schema}.record AS r (owner, namespace, key, value, etag, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (owner, namespace, key) DO UPDATE
SET value = excluded.value, etag = excluded.etag, expires_at = excluded.expires_at
WHERE r.etag = $5 OR r.expires_at <= {schema}.micros()
RETURNING etag;

-- name: put_record_if_same
UPDATE {schema}.record SET value = $4, etag = $5, expires_at = $6
WHERE owner = $1 AND namespace = $2 AND key = $3 AND etag IN ($5, $7)
  AND (etag = $5 OR expires_at IS NULL OR expires_at > {schema}.micros())
RETURNING etag;

-- name: delete_record
WITH found AS (
    SELECT etag FROM {schema}.record
    WHERE owner = $1 AND namespace = $2 AND key = $3 AND (expires_at IS NULL OR expires_at > {schema}.micros())
), gone AS (
    DELETE FROM {schema}.record
    WHERE owner = $1 AND namespace = $2 AND key = $3
      AND ($4::text IS NULL OR etag = $4 OR expires_at <= {schema}.micros())
    RETURNING key
)
SELECT EXISTS (SELECT FROM found), EXISTS (SELECT FROM gone);

-- name: scan_records
SELECT namespace, key, value, etag, expires_at FROM {schema}.record
WHERE owner = $1 AND namespace = $2 AND key > $3 AND key >= $4 AND key < $5
  AND (expires_at IS NULL OR expires_at > {schema}.micros())
ORDER BY key LIMIT $6;

-- name: describe
SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync'),
       current_setting('full_page_writes'), pg_is_in_recovery(),
       (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND relkind IN ('r', 'p')),
       (SELECT max(number) FROM {schema}.migration);
