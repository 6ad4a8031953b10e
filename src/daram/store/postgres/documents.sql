-- name: put_document
SELECT * FROM {schema}.put_document($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: get_document
SELECT * FROM {schema}.document WHERE owner = $1 AND collection = $2 AND id = $3;

-- name: list_documents
SELECT * FROM {schema}.document WHERE owner = $1 AND collection = $2
ORDER BY created_at DESC, id DESC LIMIT $3;

-- name: list_documents_before
SELECT * FROM {schema}.document WHERE owner = $1 AND collection = $2 AND (created_at, id) < ($4, $5)
ORDER BY created_at DESC, id DESC LIMIT $3;

-- name: unfinished_documents
SELECT * FROM {schema}.document
WHERE state IN ('waiting', 'reading') AND (created_at, owner, collection, id) > ($2, $3, $4, $5)
ORDER BY created_at, owner, collection, id LIMIT $1;

-- name: scan_documents
SELECT * FROM {schema}.document WHERE (owner, collection, id) > ($2, $3, $4) ORDER BY owner, collection, id LIMIT $1;

-- name: vectors_after
SELECT v.seq, v.embedder, v.value
FROM {schema}.document d LEFT JOIN LATERAL (
    SELECT v.seq, coalesce(v.embedder, r.embedder) AS embedder, v.value
    FROM {schema}.revision r JOIN {schema}.passage_vector v ON v.place = r.place AND v.revision = r.id
    WHERE r.id = d.live AND v.seq > $4 AND coalesce(v.embedder, r.embedder) IS NOT NULL
    ORDER BY v.seq LIMIT $5) v ON true
WHERE d.owner = $1 AND d.collection = $2 AND d.id = $3;

-- name: drop_revisions
SELECT {schema}.drop_revisions($1, $2, $3, 0);

-- name: set_document_times
UPDATE {schema}.document
SET created_at = $4, updated_at = $5,
    revision = CASE WHEN $6 THEN NULL ELSE revision END, live = CASE WHEN $6 THEN NULL ELSE live END,
    passages = CASE WHEN $6 THEN 0 ELSE passages END, embedder = CASE WHEN $6 THEN NULL ELSE embedder END
WHERE owner = $1 AND collection = $2 AND id = $3 RETURNING *;

-- name: stage_passages
SELECT {schema}.stage_passages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);

-- name: publish_document
SELECT kind, (d).*
FROM {schema}.publish_document($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17);

-- name: discard_revision
SELECT {schema}.discard_revision($1, $2, $3, $4);

-- name: delete_documents
SELECT {schema}.delete_documents($1, $2, $3);

-- name: passages
SELECT p.seq, p.text, p.begins, p.ends, p.page, p.heading
FROM {schema}.document d LEFT JOIN LATERAL (
    SELECT * FROM {schema}.passage p WHERE p.revision = d.live AND p.seq > $4 ORDER BY p.seq LIMIT $5) p ON true
WHERE d.owner = $1 AND d.collection = $2 AND d.id = $3;

-- name: passages_with_all
SELECT * FROM {schema}.passages_with_all($1, $2, $3::text[]::tsquery[], $4);

-- name: passages_with_any
SELECT * FROM {schema}.passages_with_any($1, $2, $3, $4::text[]::tsquery[], $5, $6, $7, $8, $9);

-- name: live_among
-- The documents with these ids, or all ($3 is NULL).
SELECT live FROM {schema}.document
WHERE owner = $1 AND collection = $2 AND live IS NOT NULL AND ($3::text[] IS NULL OR id = ANY ($3));

-- name: passages_with_all_of
-- As passages_with_all, in the passages of these revisions.
SELECT d.owner, d.collection, d.id, d.name, d.title, p.seq, p.text, p.begins, p.ends, p.page, p.heading, d.revision
FROM unnest($1::text[]::tsquery[]) AS q (query)
CROSS JOIN LATERAL (
    SELECT p.* FROM {schema}.passage p WHERE p.terms @@ q.query AND p.revision = ANY ($2::bigint[]) LIMIT $3) p
JOIN {schema}.revision r ON r.id = p.revision
JOIN {schema}.document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = r.id;

-- name: passages_with_any_of
-- As passages_with_any, in the passages of these revisions.
WITH hit AS MATERIALIZED (
    SELECT q.term, p.revision, p.seq, p.length
    FROM unnest($1::text[]::tsquery[], $2::bigint[]) AS q (query, term)
    CROSS JOIN LATERAL (
        SELECT p.revision, p.seq, p.length FROM {schema}.passage p
        WHERE p.terms @@ q.query AND p.revision = ANY ($3::bigint[]) LIMIT $4::bigint + 1) p
), frequency AS (
    SELECT term, count(*) AS df FROM hit GROUP BY term
), chosen AS (
    SELECT term, df FROM frequency WHERE df <= $4 OR NOT EXISTS (SELECT FROM frequency WHERE df <= $4)
), corpus AS (
    SELECT greatest(avg(length), 1)::double precision AS length, count(*)::double precision AS hits FROM hit
), best AS (
    SELECT h.revision, h.seq,
           sum(ln(1 + w.hits / f.df) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * h.length / w.length))) AS score
    FROM hit h JOIN chosen f ON f.term = h.term CROSS JOIN corpus w
    GROUP BY h.revision, h.seq
    ORDER BY score DESC, h.revision, h.seq LIMIT $5
), sized AS (  -- a common word, which was not counted to the end, is taken for one in a third of all
    SELECT coalesce(sum(d.passages), 0)::bigint AS passages
    FROM {schema}.revision r
    JOIN {schema}.document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = r.id
    WHERE r.id = ANY ($3)
)
SELECT d.owner, d.collection, d.id, d.name, d.title, p.seq, p.text, p.begins, p.ends, p.page, p.heading,
       d.revision, f.terms, f.having_term, w.length, z.passages
FROM best b
JOIN {schema}.passage p ON p.revision = b.revision AND p.seq = b.seq
JOIN {schema}.revision r ON r.id = p.revision
JOIN {schema}.document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = r.id
CROSS JOIN corpus w
CROSS JOIN (
    SELECT array_agg(term) AS terms,
           array_agg(CASE WHEN df <= $4 THEN df ELSE greatest(df, passages / 3) END) AS having_term
    FROM frequency CROSS JOIN sized) f
CROSS JOIN sized z;

-- name: near_passages_of
-- As near_passages, in the passages of these revisions.
SELECT d.owner, d.collection, d.id, d.name, d.title, p.seq, p.text, p.begins, p.ends, p.page, p.heading,
       d.revision, v.value
FROM (
    SELECT v.place, v.revision, v.seq
    FROM unnest($1::bigint[]) AS q (live)
    CROSS JOIN LATERAL (SELECT r.embedder, r.place FROM {schema}.revision r WHERE r.id = q.live OFFSET 0) r
    CROSS JOIN LATERAL (
        SELECT v.place, v.revision, v.seq, v.embedder, v.bits FROM {schema}.passage_vector v
        WHERE v.place = r.place AND v.revision = q.live OFFSET 0) v
    WHERE coalesce(v.embedder, r.embedder) = $3 AND length(v.bits) = length($2::text::varbit)
    ORDER BY CASE WHEN length(v.bits) = length($2::text::varbit) THEN bit_count(v.bits # $2::text::varbit) END LIMIT $4
) n
JOIN {schema}.passage_vector v ON v.place = n.place AND v.revision = n.revision AND v.seq = n.seq
JOIN {schema}.passage p ON p.revision = n.revision AND p.seq = n.seq
JOIN {schema}.revision r ON r.id = n.revision
JOIN {schema}.document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = r.id;

-- name: near_passages
SELECT * FROM {schema}.near_passages($1, $2, $3, $4::text::varbit, $5, $6);

-- name: unembedded
SELECT d.owner, d.collection, d.id, d.revision, p.seq, p.text
FROM {schema}.document d
JOIN {schema}.revision r ON r.id = d.live
JOIN {schema}.passage p ON p.revision = d.live
LEFT JOIN {schema}.passage_vector v ON v.place = r.place AND v.revision = p.revision AND v.seq = p.seq
WHERE d.passages > 0 AND d.embedder IS DISTINCT FROM $1
  AND (v.seq IS NULL OR coalesce(v.embedder, r.embedder) IS DISTINCT FROM $1)
LIMIT $2;

-- name: put_vectors
SELECT {schema}.put_vectors($1, $2, $3, $4, $5, $6, $7, $8);
