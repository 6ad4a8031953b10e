-- Changes of conversations. Each function is one call, one transaction, one round trip, contended or not: it takes the
-- conversation's row lock first, and its later statements get snapshots of their own (READ COMMITTED), so that what was
-- committed while it waited is seen. Under a stricter isolation the server refuses instead (40001) and the client tries
-- again.
--
-- Expected refusals are kinds of rows, not exceptions: an exception would put a line into the server's log.
--
-- p_etag is drawn by the client before its first try: where it is stored already, an earlier try of the same call was
-- committed although its answer was lost.

CREATE FUNCTION lock_conversation(p_key bytea, p_owner text, p_id text) RETURNS conversation
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    v conversation;
BEGIN
    SELECT * INTO v FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros())
    FOR NO KEY UPDATE;
    RETURN v;
END
$$;

-- The same for whoever may make it: creators of one conversation go one after the other.
CREATE FUNCTION lock_place(p_key bytea, p_owner text, p_id text) RETURNS conversation LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    v conversation := lock_conversation(p_key, p_owner, p_id);
BEGIN
    IF v.key IS NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(encode(p_key, 'hex'), 0));
        v := lock_conversation(p_key, p_owner, p_id);
    END IF;
    RETURN v;
END
$$;

CREATE FUNCTION was_deleted(p_key bytea) RETURNS boolean LANGUAGE sql VOLATILE AS
$$ SELECT EXISTS (SELECT FROM tombstone WHERE key = p_key AND deleted_at > micros() - 86400000000) $$;

-- Remove everything of a conversation.
CREATE FUNCTION clear_conversation(p_key bytea) RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
    DELETE FROM message WHERE conversation = p_key;
    DELETE FROM leaf WHERE conversation = p_key;
    DELETE FROM answer WHERE conversation = p_key;
    DELETE FROM conversation WHERE key = p_key;
END
$$;

CREATE FUNCTION bury_conversation(p_key bytea, p_etag text) RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
    PERFORM clear_conversation(p_key);
    INSERT INTO tombstone (key, etag, deleted_at) VALUES (p_key, p_etag, micros())
    ON CONFLICT (key) DO UPDATE SET etag = excluded.etag, deleted_at = excluded.deleted_at;
END
$$;

CREATE FUNCTION insert_conversation(v conversation) RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
    DELETE FROM tombstone WHERE key = v.key;
    INSERT INTO conversation SELECT (v).*;
END
$$;

-- A conversation that is not stored yet. Where one has expired in its place, that is removed now.
CREATE FUNCTION new_conversation(p_key bytea, p_owner text, p_id text, p_etag text) RETURNS conversation
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    v conversation;
BEGIN
    IF EXISTS (SELECT FROM conversation WHERE key = p_key) THEN
        PERFORM clear_conversation(p_key);
    END IF;
    v.key := p_key;
    v.owner := p_owner;
    v.id := p_id;
    v.pinned := false;
    v.archived := false;
    v.version := 0;
    v.etag := p_etag;
    v.last_seq := 0;
    v.head := 0;
    v.branched := false;
    v.erased := false;
    v.created_at := micros();
    v.updated_at := v.created_at;
    RETURN v;
END
$$;

CREATE FUNCTION create_conversation(
    p_key bytea, p_owner text, p_id text, p_etag text, p_title text, p_metadata bytea, p_expires_at bigint,
    OUT kind text, OUT c conversation
)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
BEGIN
    c := lock_place(p_key, p_owner, p_id);
    kind := CASE WHEN c.key IS NULL OR c.etag = p_etag THEN 'created' ELSE 'exists' END;
    IF c.key IS NULL THEN
        c := new_conversation(p_key, p_owner, p_id, p_etag);
        c.title := p_title;
        c.metadata := p_metadata;
        c.expires_at := p_expires_at;
        PERFORM insert_conversation(c);
    END IF;
END
$$;

CREATE FUNCTION delete_conversation(p_key bytea, p_owner text, p_id text, p_etag text) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v conversation := lock_conversation(p_key, p_owner, p_id);
BEGIN
    IF v.key IS NOT NULL THEN
        PERFORM bury_conversation(p_key, p_etag);
    ELSIF NOT EXISTS (SELECT FROM tombstone WHERE key = p_key AND etag = p_etag) THEN
        RETURN 'missing';
    END IF;
    RETURN 'deleted';
END
$$;

-- Everything of one owner; returns how many conversations there were.
CREATE FUNCTION delete_owner(p_owner text, p_etag text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v_key bytea;
    v_count bigint := 0;
BEGIN
    FOR v_key IN SELECT key FROM conversation WHERE owner = p_owner ORDER BY key FOR UPDATE LOOP
        PERFORM bury_conversation(v_key, p_etag);
        v_count := v_count + 1;
    END LOOP;
    DELETE FROM record WHERE owner = p_owner;
    RETURN v_count;
END
$$;

-- At most p_limit expired conversations (they leave no tombstone: their id is free), all old tombstones and expired
-- records; returns how many conversations. What another sweep is at is left to it.
CREATE FUNCTION purge(p_limit bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v_key bytea;
    v_count bigint := 0;
    v_now bigint := micros();
BEGIN
    FOR v_key IN SELECT key FROM conversation WHERE expires_at <= v_now ORDER BY expires_at, key LIMIT p_limit
                 FOR UPDATE SKIP LOCKED LOOP
        PERFORM clear_conversation(v_key);
        v_count := v_count + 1;
    END LOOP;
    DELETE FROM tombstone WHERE deleted_at <= v_now - 86400000000;
    DELETE FROM record WHERE expires_at <= v_now;
    RETURN v_count;
END
$$;

CREATE FUNCTION delete_message(
    p_key bytea, p_owner text, p_id text, p_etag text, p_message text, OUT kind text, OUT c conversation
)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
BEGIN
    c := lock_conversation(p_key, p_owner, p_id);
    kind := CASE WHEN c.key IS NULL THEN 'missing' ELSE 'changed' END;
    IF kind = 'missing' OR c.etag = p_etag THEN
        RETURN;
    END IF;
    UPDATE message
    SET text = '', body = NULL, model = NULL, tokens = NULL, terms = NULL, deleted = true
    WHERE conversation = p_key AND id = p_message AND NOT deleted;
    IF NOT FOUND THEN
        kind := 'no message';
        RETURN;
    END IF;
    UPDATE conversation SET version = version + 1, etag = p_etag, erased = true WHERE key = p_key RETURNING * INTO c;
END
$$;

CREATE FUNCTION use_branch(
    p_key bytea, p_owner text, p_id text, p_etag text, p_message text, OUT kind text, OUT c conversation
)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v_seq bigint;
    v_leaf bigint;
BEGIN
    c := lock_conversation(p_key, p_owner, p_id);
    kind := CASE WHEN c.key IS NULL THEN 'missing' ELSE 'changed' END;
    IF kind = 'missing' OR c.etag = p_etag THEN
        RETURN;
    END IF;
    SELECT seq INTO v_seq FROM message WHERE conversation = p_key AND id = p_message AND NOT deleted;
    IF NOT FOUND THEN
        kind := 'no message';
        RETURN;
    END IF;
    v_leaf := leaf_under(p_key, v_seq, c.head, c.branched);
    UPDATE conversation
    SET version = version + 1, etag = p_etag, head = v_leaf, head_id = name_of(p_key, v_leaf)
    WHERE key = p_key RETURNING * INTO c;
    UPDATE leaf SET used = c.version WHERE conversation = p_key AND seq = v_leaf;
END
$$;
