-- What documents ask. Numbers of passages: see migration 0002.

-- name: find_document
SELECT owner, collection, id, name, title, media_type, source, digest, bytes, state, error, metadata, embedder, revision,
       passages, etag, created_at, updated_at, live
FROM document WHERE owner = ? AND collection = ? AND id = ?;

-- name: count_documents
SELECT count(*) FROM document;

-- name: put_document
INSERT INTO document (owner, collection, id, name, title, media_type, source, digest, bytes, state, error, metadata,
                      embedder, revision, passages, etag, created_at, updated_at, live)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (owner, collection, id) DO UPDATE
SET name = excluded.name, title = excluded.title, media_type = excluded.media_type, source = excluded.source,
    digest = excluded.digest, bytes = excluded.bytes, state = excluded.state, error = excluded.error,
    metadata = excluded.metadata, embedder = excluded.embedder, revision = excluded.revision,
    passages = excluded.passages, etag = excluded.etag, created_at = excluded.created_at,
    updated_at = excluded.updated_at, live = excluded.live;

-- name: list_documents
SELECT owner, collection, id, name, title, media_type, source, digest, bytes, state, error, metadata, embedder, revision,
       passages, etag, created_at, updated_at, live
FROM document WHERE owner = ? AND collection = ? ORDER BY created_at DESC, id DESC LIMIT ?;

-- name: list_documents_before
SELECT owner, collection, id, name, title, media_type, source, digest, bytes, state, error, metadata, embedder, revision,
       passages, etag, created_at, updated_at, live
FROM document WHERE owner = ? AND collection = ? AND (created_at, id) < (?, ?)
ORDER BY created_at DESC, id DESC LIMIT ?;

-- name: unfinished_documents
SELECT owner, collection, id, name, title, media_type, source, digest, bytes, state, error, metadata, embedder, revision,
       passages, etag, created_at, updated_at, live
FROM document INDEXED BY document_unfinished
WHERE state IN ('waiting', 'reading') AND (created_at, owner, collection, id) > (?, ?, ?, ?)
ORDER BY created_at, owner, collection, id LIMIT ?;

-- name: scan_documents
SELECT owner, collection, id, name, title, media_type, source, digest, bytes, state, error, metadata, embedder, revision,
       passages, etag, created_at, updated_at, live
FROM document WHERE (owner, collection, id) > (?, ?, ?) ORDER BY owner, collection, id LIMIT ?;

-- name: delete_document
DELETE FROM document WHERE owner = ? AND collection = ? AND id = ? RETURNING 1;

-- name: collection_documents
SELECT id FROM document WHERE owner = ? AND collection = ? LIMIT ?;

-- name: delete_owner_documents
DELETE FROM document WHERE owner = ?;

-- name: kill_owner_revisions
UPDATE revision SET state = 2 WHERE owner = ?;

-- name: kill_revisions
-- All of a document but one (0: all).
UPDATE revision SET state = 2 WHERE owner = ? AND collection = ? AND document = ? AND id <> ?;

-- name: kill_staged
UPDATE revision SET state = 2 WHERE owner = ? AND collection = ? AND document = ? AND name = ? AND state = 0;

-- name: kill_old_staged
UPDATE revision SET state = 2 WHERE state = 0 AND staged_at < ?;

-- name: staged_revision
SELECT id FROM revision WHERE owner = ? AND collection = ? AND document = ? AND name = ? AND state = 0;

-- name: insert_revision
INSERT INTO revision (owner, collection, document, name, state, staged_at) VALUES (?, ?, ?, ?, 0, ?) RETURNING id;

-- name: touch_revision
UPDATE revision SET staged_at = ?, passages = passages + ?, vectors = vectors + ? WHERE id = ?;

-- name: publish_revision
UPDATE revision SET state = 1, embedder = ? WHERE id = ? RETURNING passages, vectors;

-- name: dead_revision
SELECT id FROM revision INDEXED BY revision_dead WHERE state = 2 ORDER BY id LIMIT 1;

-- name: delete_revision
DELETE FROM revision WHERE id = ?;

-- name: put_passage
INSERT INTO passage (id, text, begins, ends, page, heading, length) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: passages_between
SELECT id, length FROM passage WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?;

-- name: delete_passage
DELETE FROM passage WHERE id = ?;

-- name: index_passage
INSERT INTO passage_search (rowid, terms) VALUES (?, ?);

-- name: unindex_passage
DELETE FROM passage_search WHERE rowid = ?;

-- name: add_to_total
UPDATE passage_total SET passages = passages + ?, length = length + ? WHERE one = 1;

-- name: passages_removed
UPDATE passage_total SET passages = passages - ?, length = length - ?, stale = 1 WHERE one = 1;

-- name: passage_total
SELECT passages, length FROM passage_total WHERE one = 1;

-- name: stale_passages
SELECT stale FROM passage_total WHERE one = 1;

-- name: set_stale_passages
UPDATE passage_total SET stale = ? WHERE one = 1;

-- name: merge_passages
INSERT INTO passage_search (passage_search, rank) VALUES ('merge', ?);

-- name: documents_upkeep
SELECT EXISTS (SELECT 1 FROM revision INDEXED BY revision_dead WHERE state = 2), stale FROM passage_total WHERE one = 1;

-- name: passages_after
SELECT id, text, begins, ends, page, heading FROM passage WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?;

-- name: hit
SELECT d.owner, d.collection, d.id, d.name, d.title, p.id, p.text, p.begins, p.ends, p.page, p.heading, d.revision
FROM passage p CROSS JOIN revision r ON r.id = p.id >> 24
               CROSS JOIN document d ON (d.owner, d.collection, d.id) = (r.owner, r.collection, r.document)
                                        AND d.live = r.id
WHERE p.id = ?;

-- name: collection_size
-- Documents and their passages, as far as it matters.
SELECT count(*), coalesce(sum(passages), 0)
FROM (SELECT passages FROM document INDEXED BY document_list WHERE owner = ? AND collection = ? LIMIT ?);

-- name: collection_documents_counted
SELECT count(*)
FROM (SELECT 1 FROM document INDEXED BY document_list WHERE owner = ? AND collection = ? LIMIT ?);

-- name: term_passages
-- How many passages have a term, and which of those that were counted was the last.
SELECT count(*), max(rowid) FROM (SELECT rowid FROM passage_search WHERE passage_search MATCH ? LIMIT ?);

-- name: last_revision
SELECT max(id) FROM revision;

-- name: revision_sizes
SELECT id, passages FROM revision WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id;

-- name: search_passages
SELECT rowid FROM passage_search
WHERE passage_search MATCH ? AND EXISTS (SELECT 1 FROM revision r WHERE r.id = passage_search.rowid >> 24 AND r.state = 1)
ORDER BY bm25(passage_search), rowid LIMIT ?;

-- name: search_passages_of
-- Of these revisions (a JSON array of published ones).
SELECT rowid FROM passage_search
WHERE passage_search MATCH ? AND rowid >> 24 IN (SELECT value FROM json_each(?))
ORDER BY bm25(passage_search), rowid LIMIT ?;

-- name: live_among
SELECT d.live, d.passages
FROM json_each(?3) AS wanted CROSS JOIN document d ON d.owner = ?1 AND d.collection = ?2 AND d.id = wanted.value
WHERE d.live IS NOT NULL;

-- name: live_of_collection
SELECT live, passages FROM document INDEXED BY document_list WHERE owner = ? AND collection = ? AND live IS NOT NULL;

-- name: find_embedder
SELECT id FROM embedder WHERE name = ?;

-- name: insert_embedder
INSERT INTO embedder (name) VALUES (?) RETURNING id;

-- name: put_vector
INSERT INTO vector (id, embedder, value) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET embedder = excluded.embedder, value = excluded.value;

-- name: vector_of
SELECT embedder, length(value) FROM vector WHERE id = ?;

-- name: vector_values
SELECT id, value FROM vector WHERE id IN (SELECT value FROM json_each(?));

-- name: near_mark
SELECT value FROM near_mark WHERE one = 1;

-- name: vectors_after
SELECT v.id, e.name, v.value
FROM vector v CROSS JOIN revision r ON r.id = v.id >> 24
              CROSS JOIN embedder e ON e.id = iif(v.embedder = 0, r.embedder, v.embedder)
WHERE v.id BETWEEN ? AND ? ORDER BY v.id LIMIT ?;

-- name: delete_vector
DELETE FROM vector WHERE id = ? RETURNING embedder, length(value);

-- name: vector_page
SELECT slots, bits FROM vector_page WHERE revision = ? AND embedder = ? AND width = ? AND page = ?;

-- name: put_vector_page
INSERT INTO vector_page (revision, embedder, width, page, slots, bits) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (revision, embedder, width, page) DO UPDATE SET slots = excluded.slots, bits = excluded.bits;

-- name: delete_vector_page
DELETE FROM vector_page WHERE revision = ? AND embedder = ? AND width = ? AND page = ?;

-- name: delete_vector_pages
DELETE FROM vector_page WHERE revision = ?;

-- name: vectors_by
-- How many passages of a revision have a vector of a model.
SELECT coalesce(sum(length(v.slots)), 0)
FROM revision r JOIN vector_page v ON v.revision = r.id
WHERE r.id = ? AND (v.embedder = ? OR (v.embedder = 0 AND r.embedder = ?));

-- name: near_pages
SELECT v.revision, v.page, v.slots, v.bits
FROM document d INDEXED BY document_list
     CROSS JOIN revision r ON r.id = d.live
     CROSS JOIN vector_page v ON v.revision = r.id
WHERE d.owner = ? AND d.collection = ? AND v.width = ? AND (v.embedder = ? OR (v.embedder = 0 AND r.embedder = ?));

-- name: unembedded
SELECT d.owner, d.collection, d.id, d.revision, p.id, p.text
FROM (SELECT owner, collection, id, revision, live FROM document INDEXED BY document_embedder
      WHERE passages > 0 AND embedder IS NULL
      UNION ALL
      SELECT owner, collection, id, revision, live FROM document INDEXED BY document_embedder
      WHERE passages > 0 AND embedder < ?
      UNION ALL
      SELECT owner, collection, id, revision, live FROM document INDEXED BY document_embedder
      WHERE passages > 0 AND embedder > ?) d
     CROSS JOIN revision r ON r.id = d.live
     CROSS JOIN passage p ON p.id BETWEEN d.live << 24 AND (d.live << 24) + 16777215
     LEFT JOIN vector v ON v.id = p.id
WHERE v.id IS NULL OR iif(v.embedder = 0, r.embedder, v.embedder) <> ?
LIMIT ?;

-- name: set_embedder
UPDATE document SET embedder = ? WHERE owner = ? AND collection = ? AND id = ?;
