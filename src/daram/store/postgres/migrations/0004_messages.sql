-- Appending. See 0003 for what all changes have in common. A batch comes as arrays of equal length, its messages in their
-- order; terms as space-separated words, NULL where there are none.

-- Keep the ends of the branches up to date for messages that were put behind p_parent up to p_last. p_version: the
-- conversation's new version.
CREATE FUNCTION keep_leaves(v conversation, p_parent bigint, p_last bigint, p_make_head boolean, p_version bigint)
RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    v_used bigint;
BEGIN
    IF v.branched THEN
        DELETE FROM leaf WHERE conversation = v.key AND seq = p_parent RETURNING used INTO v_used;
    ELSIF v.head > 0 THEN
        INSERT INTO leaf (conversation, seq, used) VALUES (v.key, v.head, p_version - 1);
    END IF;
    INSERT INTO leaf (conversation, seq, used)
    VALUES (v.key, p_last, CASE WHEN p_make_head THEN p_version ELSE coalesce(v_used, 0) END);
END
$$;

-- Store a batch behind p_parent and change the conversation accordingly; it is locked, or new (version 0, not stored).
CREATE FUNCTION store_batch(
    v conversation, p_new boolean, p_etag text, p_parent bigint, p_make_head boolean, p_question bigint,
    p_ids text[], p_roles text[], p_texts text[], p_bodies bytea[], p_statuses text[], p_models text[],
    p_tokens bigint[], p_created_ats bigint[], p_terms text[]
) RETURNS reply LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    v_reply reply;
    v_count integer := cardinality(p_ids);
    v_last bigint := v.last_seq + v_count;
    v_head bigint := CASE WHEN p_make_head THEN v_last ELSE v.head END;
    v_head_id text := CASE WHEN p_make_head THEN p_ids[v_count] ELSE v.head_id END;
    v_branches boolean := v.branched OR p_parent <> v.head;
BEGIN
    v_reply.kind := 'appended';
    v_reply.previous_etag := v.etag;
    v_reply.etag := p_etag;
    v_reply.version := v.version + 1;
    v_reply.seq := v.last_seq + 1;
    v_reply.parent := p_parent;
    v_reply.parent_id := v.head_id;
    IF p_parent <> v.head THEN
        v_reply.parent_id := name_of(v.key, p_parent);
    END IF;
    v_reply.created_at := greatest(micros(), v.updated_at + 1);  -- lists are sorted by it: later than the last change

    IF v_branches THEN
        PERFORM keep_leaves(v, p_parent, v_last, p_make_head, v_reply.version);
    END IF;
    IF v_count = 1 THEN  -- nearly always
        INSERT INTO message
            (conversation, seq, id, parent, question, role, text, body, status, model, tokens, created_at, terms)
        VALUES
            (v.key, v_last, p_ids[1], p_parent, p_question, p_roles[1], p_texts[1], p_bodies[1], p_statuses[1],
             p_models[1], p_tokens[1], coalesce(p_created_ats[1], v_reply.created_at),
             array_to_tsvector(string_to_array(p_terms[1], ' ')));
    ELSE
        INSERT INTO message
            (conversation, seq, id, parent, question, role, text, body, status, model, tokens, created_at, terms)
        SELECT v.key, v.last_seq + m.n, m.id, CASE m.n WHEN 1 THEN p_parent ELSE v.last_seq + m.n - 1 END,
               CASE m.n WHEN 1 THEN p_question END, m.role, m.text, m.body, m.status, m.model, m.tokens,
               coalesce(m.created_at, v_reply.created_at), array_to_tsvector(string_to_array(m.terms, ' '))
        FROM unnest(p_ids, p_roles, p_texts, p_bodies, p_statuses, p_models, p_tokens, p_created_ats, p_terms)
             WITH ORDINALITY AS m (id, role, text, body, status, model, tokens, created_at, terms, n);
    END IF;

    IF p_new THEN
        v.version := v_reply.version;
        v.etag := p_etag;
        v.last_seq := v_last;
        v.head := v_head;
        v.head_id := v_head_id;
        v.branched := v_branches;
        v.updated_at := v_reply.created_at;
        PERFORM insert_conversation(v);
    ELSE
        UPDATE conversation
        SET version = v_reply.version, etag = p_etag, last_seq = v_last, head = v_head, head_id = v_head_id,
            branched = v_branches, updated_at = v_reply.created_at
        WHERE key = v.key;
    END IF;
    RETURN v_reply;
END
$$;

-- What is stored under the ids of a batch: messages ("stored", "gone") and running answers ("answering"), and the tail
-- that ends at the last of the messages.
CREATE FUNCTION stored_batch(v conversation, p_ids text[], p_window bigint) RETURNS SETOF reply
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    v_last bigint;
BEGIN
    SELECT max(seq) INTO v_last FROM message WHERE conversation = v.key AND id = ANY (p_ids);
    IF v_last IS NOT NULL THEN
        RETURN QUERY SELECT r.* FROM message m,
                     one_message(CASE WHEN m.deleted THEN 'gone' ELSE 'stored' END, v.key, m.seq) r
                     WHERE m.conversation = v.key AND m.id = ANY (p_ids) ORDER BY m.seq;
        RETURN QUERY SELECT * FROM last_messages(v.key, v_last, v.branched, p_window);
    END IF;
    RETURN QUERY SELECT r.* FROM answer a, one_answer('answering', v.key, a.id) r
                 WHERE a.conversation = v.key AND a.id = ANY (p_ids);
END
$$;

-- The conversation to append to where a first look did not find it: kind "found" (locked), "new" (allowed, and not stored
-- yet), "missing" or "gone".
CREATE FUNCTION enter_conversation(
    p_key bytea, p_owner text, p_id text, p_create boolean, OUT kind text, OUT c conversation
) LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
    IF p_create THEN
        c := lock_place(p_key, p_owner, p_id);
    END IF;
    IF c.key IS NOT NULL THEN
        kind := 'found';
    ELSIF was_deleted(p_key) THEN
        kind := 'gone';
    ELSIF p_create THEN
        kind := 'new';
        c := new_conversation(p_key, p_owner, p_id, left(replace(gen_random_uuid()::text, '-', ''), 16));
    ELSE
        kind := 'missing';
    END IF;
END
$$;

-- Where a new batch goes: kind "found" and the seq to follow, or why not: "unmet" (version or etag), "no message",
-- "gone message".
CREATE FUNCTION place_of(
    v conversation, p_version bigint, p_etag text, p_parent text, OUT kind text, OUT parent bigint
) LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    v_deleted boolean;
BEGIN
    kind := 'found';
    IF v.version <> p_version OR v.etag <> p_etag THEN
        kind := 'unmet';
    ELSIF p_parent IS NULL THEN
        parent := v.head;
    ELSIF p_parent = '' THEN
        parent := 0;
    ELSE
        SELECT m.seq, m.deleted INTO parent, v_deleted FROM message m WHERE m.conversation = v.key AND m.id = p_parent;
        kind := CASE WHEN parent IS NULL THEN 'no message' WHEN v_deleted THEN 'gone message' ELSE 'found' END;
    END IF;
END
$$;

-- Append a batch. First row: "appended" (then the tail in front of the batch, so long that both are p_window messages);
-- "repeated" (ids of it are stored: then what is under them, for the client to compare, and the tail that ends there); or
-- a refusal.
CREATE FUNCTION append_messages(
    p_key bytea, p_owner text, p_id text, p_etag text, p_create boolean,
    p_expect_version bigint, p_expect_etag text, p_parent text, p_window bigint,
    p_ids text[], p_roles text[], p_texts text[], p_bodies bytea[], p_statuses text[], p_models text[],
    p_tokens bigint[], p_created_ats bigint[], p_terms text[]
) RETURNS SETOF reply LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v conversation;
    v_entered record;
    v_place record;
    v_parent bigint;
    v_reply reply;
BEGIN
    v_reply.kind := 'found';
    SELECT * INTO v FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros())
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        SELECT * INTO v_entered FROM enter_conversation(p_key, p_owner, p_id, p_create);
        v_reply.kind := v_entered.kind;
        v := v_entered.c;
    END IF;
    v_reply.version := v.version;
    v_reply.etag := v.etag;
    IF v_reply.kind = 'found'
       AND (EXISTS (SELECT FROM message WHERE conversation = p_key AND id = ANY (p_ids))
            OR EXISTS (SELECT FROM answer WHERE conversation = p_key AND id = ANY (p_ids))) THEN
        v_reply.kind := 'repeated';
        RETURN NEXT v_reply;
        RETURN QUERY SELECT * FROM stored_batch(v, p_ids, p_window);
        RETURN;
    END IF;
    v_parent := v.head;
    IF v_reply.kind IN ('found', 'new') AND num_nonnulls(p_expect_version, p_expect_etag, p_parent) > 0 THEN
        SELECT * INTO v_place FROM place_of(v, p_expect_version, p_expect_etag, p_parent);
        v_parent := v_place.parent;
        IF v_place.kind <> 'found' THEN
            v_reply.kind := v_place.kind;
            v_reply.id := p_parent;
        END IF;
    END IF;
    IF v_reply.kind NOT IN ('found', 'new') THEN
        RETURN NEXT v_reply;
        RETURN;
    END IF;
    v_reply := store_batch(v, v_reply.kind = 'new', p_etag, v_parent, true, NULL, p_ids, p_roles, p_texts, p_bodies,
                           p_statuses, p_models, p_tokens, p_created_ats, p_terms);
    RETURN NEXT v_reply;
    IF v.branched OR v.erased THEN
        RETURN QUERY SELECT * FROM last_messages(p_key, v_parent, v.branched, p_window - cardinality(p_ids));
    ELSIF p_window > cardinality(p_ids) AND v_parent > 0 THEN
        RETURN QUERY SELECT * FROM run_down(p_key, 1, v_parent, p_window - cardinality(p_ids) + 1);
    END IF;
END
$$;
