-- The answer row. See 0003 for what all changes have in common.

-- The running answer that is in the way of one behind p_from: its question stands there or above. NULL: none.
CREATE FUNCTION answer_above(v conversation, p_from bigint) RETURNS text LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    a answer;
BEGIN
    FOR a IN SELECT * FROM answer WHERE conversation = v.key ORDER BY created_at, id LOOP
        IF is_on_path(v.key, a.question, p_from, v.branched) THEN
            RETURN a.id;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

-- A running answer that refuses a turn: "busy", or "late" where its lease has run out.
CREATE FUNCTION refusing_answer(p_key bytea, p_answer text) RETURNS SETOF reply LANGUAGE sql VOLATILE AS
$$
SELECT r.* FROM answer a, one_answer(CASE WHEN a.lease_until > micros() THEN 'busy' ELSE 'late' END, p_key, a.id) r
WHERE a.conversation = p_key AND a.id = p_answer
$$;

-- The newest answer to a question that came to its end (0 rows: none), be it that a turn made it or that it was appended.
CREATE FUNCTION finished_answer(p_key bytea, p_question bigint) RETURNS SETOF reply LANGUAGE sql VOLATILE AS
$$
SELECT r.* FROM (
    SELECT m.seq FROM (
        SELECT c.* FROM children(p_key, p_question) c WHERE c.question IS NULL
        UNION ALL
        SELECT q.* FROM message q WHERE q.conversation = p_key AND q.question = p_question
    ) m
    WHERE m.role = 'assistant' AND m.status IN ('complete', 'cancelled') AND NOT m.deleted
    ORDER BY m.seq DESC LIMIT 1
) f, one_message('finished', p_key, f.seq) r
$$;

-- Begin a turn with a batch (its last message is the question) or, with an empty one, on a stored question.
--
-- Rows: "appended" or "repeated" as append_messages has them, or "unchanged" (an empty batch) with its tail; then what came
-- of the turn: "started", "running", "finished" (either or both of these two), or a refusal ("busy", "late", "taken", "gone
-- answer" and those of append_messages), and then nothing was changed. For a repeated batch there is more than its rows
-- only where p_known is the conversation's etag: the client has compared them, and nothing has changed since.
CREATE FUNCTION begin_turn(
    p_key bytea, p_owner text, p_id text, p_etag text, p_create boolean,
    p_expect_version bigint, p_expect_etag text, p_parent text, p_window bigint,
    p_ids text[], p_roles text[], p_texts text[], p_bodies bytea[], p_statuses text[], p_models text[],
    p_tokens bigint[], p_created_ats bigint[], p_terms text[],
    p_known text, p_answer text, p_token text, p_process text, p_model text, p_lease bigint
) RETURNS SETOF reply LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v conversation;
    v_entered record;
    v_place record;
    v_reply reply;
    v_appended reply;
    v_count integer := cardinality(p_ids);
    v_from bigint;       -- the turn stands behind this message
    v_question bigint;   -- NULL while it is not stored
    v_sibling boolean := false;
    v_deleted boolean;
    v_running boolean;
    v_now bigint;
BEGIN
    v_reply.kind := 'found';
    SELECT * INTO v FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros())
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        SELECT * INTO v_entered FROM enter_conversation(p_key, p_owner, p_id, p_create AND v_count > 0);
        v_reply.kind := v_entered.kind;
        v := v_entered.c;
    END IF;
    v_reply.version := v.version;
    v_reply.etag := v.etag;
    IF v_reply.kind NOT IN ('found', 'new') THEN
        RETURN NEXT v_reply;
        RETURN;
    END IF;

    IF v_reply.kind = 'found'
       AND (EXISTS (SELECT FROM message WHERE conversation = p_key AND id = ANY (p_ids))
            OR EXISTS (SELECT FROM answer WHERE conversation = p_key AND id = ANY (p_ids))) THEN
        v_reply.kind := 'repeated';
        RETURN NEXT v_reply;
        RETURN QUERY SELECT * FROM stored_batch(v, p_ids, p_window);
        IF v.etag IS DISTINCT FROM p_known THEN
            RETURN;
        END IF;
        SELECT max(seq) INTO v_question FROM message WHERE conversation = p_key AND id = ANY (p_ids);
        v_from := v_question;
    ELSE
        SELECT * INTO v_place FROM place_of(v, p_expect_version, p_expect_etag, p_parent);
        v_reply.id := p_parent;
        v_from := v_place.parent;
        IF v_place.kind = 'found' AND v_count = 0 THEN
            v_question := CASE WHEN v_from = 0 THEN v.head ELSE v_from END;
            v_from := v_question;
            SELECT id, deleted INTO v_reply.id, v_deleted FROM message WHERE conversation = p_key AND seq = v_question;
            v_place.kind := CASE WHEN v_question = 0 THEN 'empty' WHEN v_deleted THEN 'gone message' ELSE 'found' END;
        END IF;
        IF v_place.kind <> 'found' THEN
            v_reply.kind := v_place.kind;
            RETURN NEXT v_reply;
            RETURN;
        END IF;
        IF v_question IS NOT NULL THEN
            v_reply.kind := 'unchanged';
            RETURN NEXT v_reply;
            RETURN QUERY SELECT * FROM last_messages(p_key, v_question, v.branched, p_window);
        END IF;
    END IF;

    IF v_question IS NOT NULL THEN
        RETURN QUERY SELECT r.* FROM answer a, one_answer('started', p_key, a.id) r
                     WHERE a.conversation = p_key AND a.id = p_answer AND a.question = v_question
                           AND a.lease_until > micros();
        IF FOUND THEN
            RETURN;  -- by an earlier try of this call: who drew the answer's id is its maker
        END IF;
        v_sibling := EXISTS (SELECT FROM children(p_key, v_question));
    END IF;
    IF v_reply.kind = 'repeated' THEN
        RETURN QUERY SELECT r.* FROM answer a, one_answer('running', p_key, a.id) r
                     WHERE a.conversation = p_key AND a.question = v_question AND a.lease_until > micros();
        v_running := FOUND;
        RETURN QUERY SELECT * FROM finished_answer(p_key, v_question);
        IF FOUND OR v_running THEN
            RETURN;
        END IF;
    END IF;
    IF v_reply.kind <> 'new' THEN
        RETURN QUERY SELECT * FROM refusing_answer(p_key, answer_above(v, v_from));
        IF FOUND THEN
            RETURN;
        END IF;
        v_deleted := NULL;
        SELECT deleted INTO v_deleted FROM message WHERE conversation = p_key AND id = p_answer;
        IF v_deleted IS NOT NULL OR EXISTS (SELECT FROM answer WHERE conversation = p_key AND id = p_answer) THEN
            v_reply.kind := CASE WHEN v_deleted THEN 'gone answer' ELSE 'taken' END;
            v_reply.id := p_answer;
            RETURN NEXT v_reply;
            RETURN;
        END IF;
    END IF;

    IF v_question IS NULL THEN
        v_appended := store_batch(v, v_reply.kind = 'new', p_etag, v_from, true, NULL, p_ids, p_roles, p_texts, p_bodies,
                                  p_statuses, p_models, p_tokens, p_created_ats, p_terms);
        RETURN NEXT v_appended;
        IF v.branched OR v.erased THEN
            RETURN QUERY SELECT * FROM last_messages(p_key, v_from, v.branched, p_window - v_count);
        ELSIF p_window > v_count AND v_from > 0 THEN
            RETURN QUERY SELECT * FROM run_down(p_key, 1, v_from, p_window - v_count + 1);
        END IF;
        v_question := v.last_seq + v_count;
    END IF;
    v_now := micros();
    INSERT INTO answer (conversation, id, question, sibling, text, model, token, process, created_at, lease_until)
    VALUES (p_key, p_answer, v_question, v_sibling, '', p_model, p_token, p_process, v_now, v_now + p_lease);
    RETURN QUERY SELECT * FROM one_answer('started', p_key, p_answer);
END
$$;

-- Turn an answer into a message. Rows: "appended"; or "repeated" and the message that is stored under its id, for the
-- client to compare; or "lost".
CREATE FUNCTION finish_turn(
    p_key bytea, p_owner text, p_id text, p_etag text, p_token text,
    p_ids text[], p_roles text[], p_texts text[], p_bodies bytea[], p_statuses text[], p_models text[],
    p_tokens bigint[], p_created_ats bigint[], p_terms text[]
) RETURNS SETOF reply LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v conversation := lock_conversation(p_key, p_owner, p_id);
    v_reply reply;
    v_question bigint;
    v_sibling boolean;
    v_in_use boolean;
    v_parent bigint;
BEGIN
    v_reply.kind := 'lost';
    v_reply.version := v.version;
    v_reply.etag := v.etag;
    IF v.key IS NOT NULL THEN
        DELETE FROM answer WHERE conversation = p_key AND id = p_ids[1] AND token = p_token
        RETURNING question, sibling INTO v_question, v_sibling;
        IF v_question IS NOT NULL THEN
            v_in_use := is_on_path(p_key, v_question, v.head, v.branched);
            v_parent := CASE WHEN v_sibling THEN v_question WHEN v_in_use THEN v.head
                             ELSE leaf_under(p_key, v_question, v.head, v.branched) END;
            v_reply := store_batch(
                v, false, p_etag, v_parent, v_in_use, CASE WHEN v_parent <> v_question THEN v_question END,
                p_ids, p_roles, p_texts, p_bodies, p_statuses, p_models, p_tokens, p_created_ats, p_terms);
        ELSIF EXISTS (SELECT FROM message WHERE conversation = p_key AND id = p_ids[1] AND NOT deleted) THEN
            v_reply.kind := 'repeated';
        END IF;
    END IF;
    RETURN NEXT v_reply;
    IF v_reply.kind = 'repeated' THEN
        RETURN QUERY SELECT * FROM stored_batch(v, p_ids, 0);
    END IF;
END
$$;
