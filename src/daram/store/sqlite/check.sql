-- For `daram check`: these read everything, so they are kept apart from what a turn asks.

-- name: check_orphan_messages
SELECT count(*) FROM message WHERE conversation NOT IN (SELECT key FROM conversation);

-- name: check_orphan_leaves
SELECT count(*) FROM leaf l
WHERE NOT EXISTS (SELECT 1 FROM conversation c WHERE c.key = l.conversation)
   OR NOT EXISTS (SELECT 1 FROM message m WHERE m.conversation = l.conversation AND m.seq = l.seq);

-- name: check_orphan_answers
SELECT count(*) FROM answer a
WHERE NOT EXISTS (SELECT 1 FROM conversation c WHERE c.key = a.conversation)
   OR NOT EXISTS (SELECT 1 FROM message m WHERE m.conversation = a.conversation AND m.seq = a.question);

-- name: check_orphan_docs
SELECT count(*) FROM doc d
WHERE NOT EXISTS (SELECT 1 FROM message m WHERE m.conversation = d.conversation AND m.seq = d.seq AND m.doc = d.id);

-- name: delete_orphan_messages
DELETE FROM message WHERE conversation NOT IN (SELECT key FROM conversation);

-- name: delete_orphan_leaves
DELETE FROM leaf
WHERE NOT EXISTS (SELECT 1 FROM conversation c WHERE c.key = leaf.conversation)
   OR NOT EXISTS (SELECT 1 FROM message m WHERE m.conversation = leaf.conversation AND m.seq = leaf.seq);

-- name: delete_orphan_answers
DELETE FROM answer
WHERE NOT EXISTS (SELECT 1 FROM conversation c WHERE c.key = answer.conversation)
   OR NOT EXISTS (SELECT 1 FROM message m WHERE m.conversation = answer.conversation AND m.seq = answer.question);

-- name: delete_orphan_docs
DELETE FROM doc
WHERE NOT EXISTS (SELECT 1 FROM message m WHERE m.conversation = doc.conversation AND m.seq = doc.seq AND m.doc = doc.id);

-- name: check_without_doc
SELECT count(*) FROM message WHERE text <> '' AND (doc IS NULL OR doc NOT IN (SELECT id FROM doc));

-- name: check_not_indexed
SELECT count(*) FROM doc
WHERE id <= (SELECT mark FROM search_mark WHERE one = 1) AND id NOT IN (SELECT id FROM search_docsize);

-- name: check_only_indexed
SELECT count(*) FROM search_docsize WHERE id NOT IN (SELECT id FROM doc);

-- name: check_docs
SELECT d.id, c.owner, c.key, m.text
FROM doc d JOIN message m ON m.conversation = d.conversation AND m.seq = d.seq
           JOIN conversation c ON c.key = d.conversation
WHERE d.id <= (SELECT mark FROM search_mark WHERE one = 1) AND d.id IN (SELECT id FROM search_docsize);

-- name: check_match
SELECT 1 FROM search WHERE search MATCH ? AND rowid = ?;

-- name: check_texts
SELECT conversation, seq FROM message WHERE text <> '';

-- name: forget_docs
DELETE FROM doc;

-- name: forget_message_docs
UPDATE message SET doc = NULL WHERE doc IS NOT NULL;

-- name: set_message_doc
UPDATE message SET doc = ? WHERE conversation = ? AND seq = ?;

-- name: forget_index
INSERT INTO search (search) VALUES ('delete-all');

-- name: check_orphan_revisions
-- Published, but not of a document.
SELECT count(*) FROM revision r
WHERE r.state = 1 AND NOT EXISTS (SELECT 1 FROM document d WHERE d.live = r.id AND d.owner = r.owner
                                  AND d.collection = r.collection AND d.id = r.document);

-- name: kill_orphan_revisions
UPDATE revision SET state = 2
WHERE state = 1 AND NOT EXISTS (SELECT 1 FROM document d WHERE d.live = revision.id AND d.owner = revision.owner
                                AND d.collection = revision.collection AND d.id = revision.document);

-- name: check_orphan_passages
SELECT count(*) FROM passage WHERE id >> 24 NOT IN (SELECT id FROM revision);

-- name: delete_orphan_passages
DELETE FROM passage WHERE id >> 24 NOT IN (SELECT id FROM revision);

-- name: check_orphan_vectors
SELECT count(*) FROM vector WHERE id NOT IN (SELECT id FROM passage);

-- name: delete_orphan_vectors
DELETE FROM vector WHERE id NOT IN (SELECT id FROM passage);

-- name: check_orphan_vector_pages
SELECT count(*) FROM vector_page WHERE revision NOT IN (SELECT id FROM revision);

-- name: delete_orphan_vector_pages
DELETE FROM vector_page WHERE revision NOT IN (SELECT id FROM revision);

-- name: check_documents
SELECT count(*) FROM document d
WHERE d.live IS NOT NULL
  AND d.passages <> (SELECT count(*) FROM passage p
                     WHERE p.id BETWEEN d.live << 24 AND (d.live << 24) + 16777215);

-- name: check_passages_not_indexed
SELECT count(*) FROM passage WHERE id NOT IN (SELECT id FROM passage_search_docsize);

-- name: check_passages_only_indexed
SELECT count(*) FROM passage_search_docsize WHERE id NOT IN (SELECT id FROM passage);

-- name: check_passages
SELECT p.id, r.owner, r.collection, p.text FROM passage p JOIN revision r ON r.id = p.id >> 24
WHERE p.id IN (SELECT id FROM passage_search_docsize);

-- name: all_passages
SELECT p.id, r.owner, r.collection, p.text FROM passage p JOIN revision r ON r.id = p.id >> 24;

-- name: check_passage_match
SELECT 1 FROM passage_search WHERE passage_search MATCH ? AND rowid = ?;

-- name: forget_passage_index
INSERT INTO passage_search (passage_search) VALUES ('delete-all');

-- name: forget_passage_total
UPDATE passage_total SET passages = 0, length = 0 WHERE one = 1;
