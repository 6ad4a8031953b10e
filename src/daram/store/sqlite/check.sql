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
