-- For `daram check`: documents and their passages, a page at a time, and what puts them right. {schema} becomes the
-- quoted name of the schema. Each statement sees one moment, and each repair looks again at what it takes away.

-- name: check_documents
SELECT d.owner, d.collection, d.id,
       d.passages = (SELECT count(*) FROM {schema}.passage p WHERE p.revision = d.live)
       AND (CASE WHEN d.live IS NULL THEN d.revision IS NULL
            ELSE EXISTS (SELECT FROM {schema}.revision r
                         WHERE r.id = d.live AND NOT r.staged AND r.name = d.revision AND r.owner = d.owner
                               AND r.collection = d.collection AND r.document = d.id) END),
       d.embedder IS NULL OR d.passages = (
           SELECT count(*) FROM {schema}.revision r JOIN {schema}.passage_vector v ON v.place = r.place AND v.revision = r.id
           WHERE r.id = d.live AND coalesce(v.embedder, r.embedder) = d.embedder)
FROM {schema}.document d
WHERE (d.owner, d.collection, d.id) > ($1, $2, $3) ORDER BY d.owner, d.collection, d.id LIMIT $4;

-- name: check_revisions
-- Whose document is gone or has another one published; and those that a purge should have removed.
SELECT r.id, d.id IS NULL OR (NOT r.staged AND d.live IS DISTINCT FROM r.id),
       r.staged AND r.staged_at < {schema}.micros() - $3::bigint * 1000000
FROM {schema}.revision r
LEFT JOIN {schema}.document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document
WHERE r.id > $1 ORDER BY r.id LIMIT $2;

-- name: check_passages
SELECT p.revision, p.seq, r.owner, r.collection, p.text, p.length, tsvector_to_array(p.terms)
FROM {schema}.passage p LEFT JOIN {schema}.revision r ON r.id = p.revision
WHERE (p.revision, p.seq) > ($1, $2) ORDER BY p.revision, p.seq LIMIT $3;

-- name: check_vectors
-- Of no passage, not at the place of their revision, or damaged.
SELECT v.place, v.revision, v.seq,
       p.seq IS NULL OR r.place IS DISTINCT FROM v.place OR octet_length(v.value) <> 4 * length(v.bits)
FROM {schema}.passage_vector v
LEFT JOIN {schema}.passage p ON p.revision = v.revision AND p.seq = v.seq
LEFT JOIN {schema}.revision r ON r.id = v.revision
WHERE (v.place, v.revision, v.seq) > ($1, $2, $3) ORDER BY v.place, v.revision, v.seq LIMIT $4;

-- name: drop_orphan_revisions
WITH changed AS (
    DELETE FROM {schema}.revision r
    WHERE r.id = ANY ($1::bigint[])
      AND NOT EXISTS (SELECT FROM {schema}.document d WHERE d.owner = r.owner AND d.collection = r.collection
                      AND d.id = r.document AND (r.staged OR d.live = r.id))
    RETURNING 1
)
SELECT count(*) FROM changed;

-- name: drop_old_staged
SELECT {schema}.purge_staged($1);

-- name: drop_orphan_passages
WITH changed AS (
    DELETE FROM {schema}.passage p
    WHERE p.revision = ANY ($1::bigint[]) AND NOT EXISTS (SELECT FROM {schema}.revision r WHERE r.id = p.revision)
    RETURNING 1
)
SELECT count(*) FROM changed;

-- name: drop_wrong_vectors
WITH changed AS (
    DELETE FROM {schema}.passage_vector v
    USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (place, revision, seq)
    WHERE v.place = w.place AND v.revision = w.revision AND v.seq = w.seq
      AND (octet_length(v.value) <> 4 * length(v.bits)
           OR NOT EXISTS (SELECT FROM {schema}.passage p JOIN {schema}.revision r ON r.id = p.revision
                          WHERE p.revision = v.revision AND p.seq = v.seq AND r.place = v.place))
    RETURNING 1
)
SELECT count(*) FROM changed;

-- name: index_passages_anew
WITH changed AS (
    UPDATE {schema}.passage p SET terms = array_to_tsvector(string_to_array(n.terms, ' ')), length = n.length
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[]) AS n (revision, seq, text, terms, length)
    WHERE p.revision = n.revision AND p.seq = n.seq AND p.text = n.text
    RETURNING 1
)
SELECT count(*) FROM changed;

-- name: forget_embedders
-- Their passages get vectors again, by the next sweep.
WITH changed AS (
    UPDATE {schema}.document d SET embedder = NULL
    FROM unnest($1::text[], $2::text[], $3::text[]) AS w (owner, collection, id)
    WHERE d.owner = w.owner AND d.collection = w.collection AND d.id = w.id AND d.embedder IS NOT NULL
      AND d.passages <> (SELECT count(*) FROM {schema}.revision r JOIN {schema}.passage_vector v
                             ON v.place = r.place AND v.revision = r.id
                         WHERE r.id = d.live AND coalesce(v.embedder, r.embedder) = d.embedder)
    RETURNING 1
)
SELECT count(*) FROM changed;
