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
