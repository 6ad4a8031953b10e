-- Named queries; ? are positional. See store/queries.py for how they are read.

-- name: find_conversation
SELECT c.key, c.owner, c.id, c.title, c.metadata, c.pinned, c.archived, c.version, c.etag, c.last_seq, c.head, c.branched,
       c.created_at, c.updated_at, c.expires_at,
       (SELECT m.id FROM message m WHERE m.conversation = c.key AND m.seq = c.head),
       EXISTS (SELECT 1 FROM answer a WHERE a.conversation = c.key)
FROM conversation c WHERE c.key = ?;

-- name: list_conversations
SELECT c.key, c.owner, c.id, c.title, c.metadata, c.pinned, c.archived, c.version, c.etag, c.last_seq, c.head, c.branched,
       c.created_at, c.updated_at, c.expires_at,
       (SELECT m.id FROM message m WHERE m.conversation = c.key AND m.seq = c.head)
FROM conversation c
WHERE c.owner = ? AND (c.expires_at IS NULL OR c.expires_at > ?)
ORDER BY c.updated_at DESC, c.key DESC LIMIT ?;

-- name: list_conversations_before
SELECT c.key, c.owner, c.id, c.title, c.metadata, c.pinned, c.archived, c.version, c.etag, c.last_seq, c.head, c.branched,
       c.created_at, c.updated_at, c.expires_at,
       (SELECT m.id FROM message m WHERE m.conversation = c.key AND m.seq = c.head)
FROM conversation c
WHERE c.owner = ? AND (c.updated_at, c.key) < (?, ?) AND (c.expires_at IS NULL OR c.expires_at > ?)
ORDER BY c.updated_at DESC, c.key DESC LIMIT ?;

-- name: insert_conversation
INSERT INTO conversation (key, owner, id, title, metadata, version, etag, last_seq, head, branched,
                          created_at, updated_at, expires_at)
VALUES (?, ?, ?, ?, ?, 0, ?, 0, 0, 0, ?, ?, ?);

-- name: touch_conversation
UPDATE conversation SET version = ?, etag = ?, last_seq = ?, head = ?, branched = ?, updated_at = ? WHERE key = ?;

-- name: update_conversation
UPDATE conversation SET version = ?, etag = ?, title = ?, metadata = ?, pinned = ?, archived = ?, expires_at = ?
WHERE key = ?;

-- name: move_head
UPDATE conversation SET version = ?, etag = ?, head = ? WHERE key = ?;

-- name: delete_conversation
DELETE FROM conversation WHERE key = ?;

-- name: delete_messages
DELETE FROM message WHERE conversation = ?;

-- name: delete_leaves
DELETE FROM leaf WHERE conversation = ?;

-- name: delete_answers
DELETE FROM answer WHERE conversation = ?;

-- name: owner_conversations
SELECT key, owner, id, last_seq FROM conversation WHERE owner = ? LIMIT ?;

-- name: expired_conversations
SELECT key, owner, id, last_seq FROM conversation WHERE expires_at <= ? ORDER BY expires_at LIMIT ?;

-- name: find_tombstone
SELECT 1 FROM tombstone WHERE key = ? AND deleted_at > ?;

-- name: put_tombstone
INSERT INTO tombstone (key, deleted_at) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET deleted_at = excluded.deleted_at;

-- name: delete_tombstone
DELETE FROM tombstone WHERE key = ?;

-- name: delete_old_tombstones
DELETE FROM tombstone WHERE deleted_at <= ?;

-- name: message_by_id
SELECT seq, id, parent, role, text, body, status, model, tokens, created_at, deleted
FROM message WHERE conversation = ? AND id = ?;

-- name: message_by_seq
SELECT seq, id, parent, role, text, body, status, model, tokens, created_at, deleted
FROM message WHERE conversation = ? AND seq = ?;

-- name: message_name
SELECT id FROM message WHERE conversation = ? AND seq = ?;

-- name: run_desc
SELECT seq, id, parent, role, text, body, status, model, tokens, created_at, deleted
FROM message WHERE conversation = ? AND seq BETWEEN ? AND ? AND deleted = 0 ORDER BY seq DESC LIMIT ?;

-- name: run_asc
SELECT seq, id, parent, role, text, body, status, model, tokens, created_at, deleted
FROM message WHERE conversation = ? AND seq BETWEEN ? AND ? AND deleted = 0 ORDER BY seq LIMIT ?;

-- name: fork_at_or_before
SELECT seq, parent FROM message WHERE conversation = ? AND seq <= ? AND parent <> seq - 1 ORDER BY seq DESC LIMIT 1;

-- name: first_child
SELECT seq, id, parent, role, text, body, status, model, tokens, created_at, deleted
FROM message WHERE conversation = ? AND seq = ? AND parent = seq - 1;

-- name: later_children
-- (INDEXED BY: left to itself, SQLite takes the primary key and reads the whole conversation.)
SELECT seq, id, parent, role, text, body, status, model, tokens, created_at, deleted
FROM message INDEXED BY message_sibling WHERE conversation = ? AND parent = ? AND parent <> seq - 1 ORDER BY seq;

-- name: insert_message
INSERT INTO message (conversation, seq, id, parent, role, text, body, status, model, tokens, created_at, doc, question)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: distant_answers
SELECT seq, id, parent, role, text, body, status, model, tokens, created_at, deleted
FROM message INDEXED BY message_question WHERE conversation = ? AND question = ? ORDER BY seq;

-- name: distant_question
SELECT question FROM message WHERE conversation = ? AND seq = ?;

-- name: erase_message
UPDATE message SET text = '', body = NULL, model = NULL, tokens = NULL, doc = NULL, deleted = 1
WHERE conversation = ? AND seq = ?;

-- name: message_doc
SELECT doc FROM message WHERE conversation = ? AND seq = ?;

-- name: leaves
SELECT seq, used FROM leaf WHERE conversation = ? ORDER BY used DESC, seq DESC;

-- name: delete_leaf
DELETE FROM leaf WHERE conversation = ? AND seq = ? RETURNING used;

-- name: put_leaf
INSERT INTO leaf (conversation, seq, used) VALUES (?, ?, ?)
ON CONFLICT (conversation, seq) DO UPDATE SET used = excluded.used;

-- name: answers
SELECT id, question, text, model, token, process, cancel, created_at, lease_until
FROM answer WHERE conversation = ? ORDER BY created_at, id;

-- name: all_answers
SELECT c.owner, c.id, c.key, a.id, a.lease_until, a.process
FROM answer a JOIN conversation c ON c.key = a.conversation ORDER BY a.lease_until;

-- name: insert_answer
INSERT INTO answer (conversation, id, question, sibling, text, model, token, process, created_at, lease_until)
VALUES (?, ?, ?, ?, '', ?, ?, ?, ?, ?);

-- name: held_answer
SELECT question, sibling FROM answer WHERE conversation = ? AND id = ? AND token = ?;

-- name: delete_answer
DELETE FROM answer WHERE conversation = ? AND id = ?;

-- name: checkpoint
UPDATE answer SET text = ?, lease_until = ? WHERE conversation = ? AND id = ? AND token = ? RETURNING cancel;

-- name: claim_answer
UPDATE answer SET token = ?, process = ?, lease_until = ? WHERE conversation = ? AND id = ?
RETURNING id, question, text, model, token, process, cancel, created_at, lease_until;

-- name: cancel_answer
UPDATE answer SET cancel = 1 WHERE conversation = ? AND id = ?;

-- name: cancel_answers
UPDATE answer SET cancel = 1 WHERE conversation = ?;

-- name: insert_doc
INSERT INTO doc (conversation, seq) VALUES (?, ?);

-- name: delete_doc
DELETE FROM doc WHERE id = ?;

-- name: delete_conversation_docs
DELETE FROM doc WHERE id IN (SELECT m.doc FROM message m WHERE m.conversation = ? AND m.doc IS NOT NULL);

-- name: mark
SELECT mark FROM search_mark WHERE one = 1;

-- name: set_mark
UPDATE search_mark SET mark = ? WHERE one = 1;

-- name: after_unindexing
-- Numbers at the top are given again: what is given from now on must count as not indexed.
UPDATE search_mark SET mark = min(mark, (SELECT coalesce(max(id), 0) FROM doc)), stale = 1 WHERE one = 1;

-- name: stale
SELECT stale FROM search_mark WHERE one = 1;

-- name: set_stale
UPDATE search_mark SET stale = ? WHERE one = 1;

-- name: merge
INSERT INTO search (search, rank) VALUES ('merge', ?);

-- name: unindexed
SELECT d.id, c.owner, c.key, m.text
FROM doc d JOIN message m ON m.conversation = d.conversation AND m.seq = d.seq
           JOIN conversation c ON c.key = d.conversation
WHERE d.id > ? ORDER BY d.id LIMIT ?;

-- name: waiting
SELECT d.conversation, d.seq, m.text
FROM doc d JOIN message m ON m.conversation = d.conversation AND m.seq = d.seq
           JOIN conversation c ON c.key = d.conversation
WHERE d.id > (SELECT mark FROM search_mark WHERE one = 1) AND c.owner = ? ORDER BY d.id DESC;

-- name: upkeep
SELECT (SELECT count(*) FROM doc WHERE id > mark), stale FROM search_mark WHERE one = 1;

-- name: index_doc
INSERT INTO search (rowid, terms) VALUES (?, ?);

-- name: unindex_doc
DELETE FROM search WHERE rowid = ?;

-- name: unindex_conversation
DELETE FROM search WHERE rowid IN (SELECT m.doc FROM message m WHERE m.conversation = ? AND m.doc IS NOT NULL);

-- name: search
SELECT d.conversation, d.seq, -bm25(search) AS score
FROM search JOIN doc d ON d.id = search.rowid
WHERE search MATCH ? ORDER BY bm25(search), d.id DESC LIMIT ?;

-- name: get_record
SELECT namespace, key, value, etag, expires_at FROM record
WHERE owner = ? AND namespace = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?);

-- name: put_record
INSERT INTO record (owner, namespace, key, value, etag, expires_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (owner, namespace, key) DO UPDATE
SET value = excluded.value, etag = excluded.etag, expires_at = excluded.expires_at;

-- name: delete_record
DELETE FROM record WHERE owner = ? AND namespace = ? AND key = ?;

-- name: scan_records
SELECT namespace, key, value, etag, expires_at FROM record
WHERE owner = ? AND namespace = ? AND key > ? AND key >= ? AND key < ? AND (expires_at IS NULL OR expires_at > ?)
ORDER BY key LIMIT ?;

-- name: delete_owner_records
DELETE FROM record WHERE owner = ?;

-- name: delete_expired_records
DELETE FROM record WHERE expires_at <= ?;

-- name: has_unindexed
SELECT 1 WHERE EXISTS (SELECT 1 FROM doc WHERE id > (SELECT mark FROM search_mark WHERE one = 1));


-- name: scan
SELECT c.key, c.owner, c.id, c.title, c.metadata, c.pinned, c.archived, c.version, c.etag, c.last_seq, c.head, c.branched,
       c.created_at, c.updated_at, c.expires_at,
       (SELECT m.id FROM message m WHERE m.conversation = c.key AND m.seq = c.head)
FROM conversation c
WHERE c.key > ? AND (c.expires_at IS NULL OR c.expires_at > ?) ORDER BY c.key LIMIT ?;

-- name: log
SELECT m.seq, m.id, m.parent, m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at, m.deleted, m.question,
       (SELECT p.id FROM message p WHERE p.conversation = m.conversation AND p.seq = m.parent)
FROM message m WHERE m.conversation = ? AND m.seq > ? ORDER BY m.seq LIMIT ?;

-- name: put_conversation
INSERT INTO conversation (key, owner, id, title, metadata, pinned, archived, version, etag, last_seq, head, branched,
                          created_at, updated_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE
SET title = excluded.title, metadata = excluded.metadata, pinned = excluded.pinned, archived = excluded.archived,
    version = excluded.version, etag = excluded.etag, last_seq = excluded.last_seq, head = excluded.head,
    branched = excluded.branched, created_at = excluded.created_at, updated_at = excluded.updated_at,
    expires_at = excluded.expires_at;

-- name: load_message
INSERT INTO message (conversation, seq, id, parent, role, text, body, status, model, tokens, created_at, doc, question,
                     deleted)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: scan_all_records
SELECT owner, namespace, key, value, etag, expires_at FROM record
WHERE (owner, namespace, key) > (?, ?, ?) AND (expires_at IS NULL OR expires_at > ?)
ORDER BY owner, namespace, key LIMIT ?;
