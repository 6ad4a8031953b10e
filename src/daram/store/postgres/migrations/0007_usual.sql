-- What nearly every turn is: one message, to the end of a conversation that has never branched. The functions of 0004 and
-- 0005 do it as well, and everything else: to them goes what is not usual. Here it is one statement behind the lock, with
-- values and not arrays, and with few expressions: PL/pgSQL makes each of them anew in every transaction.

CREATE FUNCTION append_one(
    p_key bytea, p_owner text, p_id text, p_etag text, p_create boolean,
    p_expect_version bigint, p_expect_etag text, p_parent text, p_window bigint,
    p_message text, p_role text, p_text text, p_body bytea, p_status text, p_model text,
    p_tokens bigint, p_created_at bigint, p_terms text
) RETURNS SETOF reply LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v_version bigint;
    v_etag text;
    v_last bigint;
    v_head bigint;
    v_head_id text;
    v_erased boolean;
    v_now bigint;
BEGIN
    SELECT version, etag, last_seq, head, head_id, erased, greatest(micros(), updated_at + 1)
    INTO v_version, v_etag, v_last, v_head, v_head_id, v_erased, v_now
    FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros())
      AND NOT branched AND num_nonnulls(p_expect_version, p_expect_etag, p_parent) = 0
    FOR NO KEY UPDATE;
    IF FOUND THEN
        RETURN QUERY WITH stored AS (
            INSERT INTO message
                (conversation, seq, id, parent, role, text, body, status, model, tokens, created_at, terms)
            SELECT p_key, v_last + 1, p_message, v_head, p_role, p_text, p_body, p_status, p_model, p_tokens,
                   coalesce(p_created_at, v_now), array_to_tsvector(string_to_array(p_terms, ' '))
            WHERE NOT EXISTS (SELECT FROM answer a WHERE a.conversation = p_key AND a.id = p_message)
            ON CONFLICT DO NOTHING RETURNING seq
        )
        UPDATE conversation c
        SET version = v_version + 1, etag = p_etag, last_seq = stored.seq, head = stored.seq, head_id = p_message,
            updated_at = v_now
        FROM stored WHERE c.key = p_key
        RETURNING 'appended', c.version, c.etag, v_etag, c.last_seq, NULL::text, v_head, v_head_id, NULL::text,
                  NULL::text, NULL::bytea, NULL::text, NULL::text, NULL::bigint, v_now, NULL::text, NULL::text,
                  NULL::boolean, NULL::bigint;
        IF FOUND THEN
            IF p_window > 1 THEN
                IF v_erased THEN
                    RETURN QUERY SELECT * FROM last_messages(p_key, v_head, false, p_window - 1);
                ELSE
                    RETURN QUERY SELECT * FROM run_down(p_key, 1, v_head, p_window);
                END IF;
            END IF;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM append_messages(
        p_key, p_owner, p_id, p_etag, p_create, p_expect_version, p_expect_etag, p_parent, p_window,
        ARRAY[p_message], ARRAY[p_role], ARRAY[p_text], ARRAY[p_body], ARRAY[p_status], ARRAY[p_model],
        ARRAY[p_tokens], ARRAY[p_created_at], ARRAY[p_terms]);
END
$$;

-- Usual is here also that nothing is being answered in the conversation.
CREATE FUNCTION begin_one(
    p_key bytea, p_owner text, p_id text, p_etag text, p_create boolean,
    p_expect_version bigint, p_expect_etag text, p_parent text, p_window bigint,
    p_message text, p_role text, p_text text, p_body bytea, p_status text, p_model text,
    p_tokens bigint, p_created_at bigint, p_terms text,
    p_known text, p_answer text, p_token text, p_process text, p_answer_model text, p_lease bigint
) RETURNS SETOF reply LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v_version bigint;
    v_etag text;
    v_last bigint;
    v_head bigint;
    v_head_id text;
    v_erased boolean;
    v_now bigint;
BEGIN
    SELECT version, etag, last_seq, head, head_id, erased, greatest(micros(), updated_at + 1)
    INTO v_version, v_etag, v_last, v_head, v_head_id, v_erased, v_now
    FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros())
      AND NOT branched AND num_nonnulls(p_expect_version, p_expect_etag, p_parent, p_known) = 0
      AND p_answer <> p_message
    FOR NO KEY UPDATE;
    IF FOUND THEN
        RETURN QUERY WITH stored AS (
            INSERT INTO message
                (conversation, seq, id, parent, role, text, body, status, model, tokens, created_at, terms)
            SELECT p_key, v_last + 1, p_message, v_head, p_role, p_text, p_body, p_status, p_model, p_tokens,
                   coalesce(p_created_at, v_now), array_to_tsvector(string_to_array(p_terms, ' '))
            WHERE NOT EXISTS (SELECT FROM answer a WHERE a.conversation = p_key)
              AND NOT EXISTS (SELECT FROM message m WHERE m.conversation = p_key AND m.id = p_answer)
            ON CONFLICT DO NOTHING RETURNING seq
        ), asked AS (
            INSERT INTO answer
                (conversation, id, question, sibling, text, model, token, process, created_at, lease_until)
            SELECT p_key, p_answer, seq, false, '', p_answer_model, p_token, p_process, v_now, v_now + p_lease
            FROM stored
        ), touched AS (
            UPDATE conversation c
            SET version = v_version + 1, etag = p_etag, last_seq = stored.seq, head = stored.seq, head_id = p_message,
                updated_at = v_now
            FROM stored WHERE c.key = p_key
            RETURNING c.last_seq
        )
        SELECT 'appended', v_version + 1, p_etag, v_etag, last_seq, NULL, v_head, v_head_id, NULL, NULL, NULL::bytea,
               NULL, NULL, NULL::bigint, v_now, NULL, NULL, NULL::boolean, NULL::bigint
        FROM touched
        UNION ALL
        -- As one_answer would say it.
        SELECT 'started', NULL, NULL, NULL, NULL, p_answer, last_seq, p_message, NULL, '', NULL,
               NULL, p_answer_model, NULL, v_now, p_token, p_process, false, v_now + p_lease
        FROM touched;
        IF FOUND THEN
            IF p_window > 1 THEN
                IF v_erased THEN
                    RETURN QUERY SELECT * FROM last_messages(p_key, v_head, false, p_window - 1);
                ELSE
                    RETURN QUERY SELECT * FROM run_down(p_key, 1, v_head, p_window);
                END IF;
            END IF;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM begin_turn(
        p_key, p_owner, p_id, p_etag, p_create, p_expect_version, p_expect_etag, p_parent, p_window,
        ARRAY[p_message], ARRAY[p_role], ARRAY[p_text], ARRAY[p_body], ARRAY[p_status], ARRAY[p_model],
        ARRAY[p_tokens], ARRAY[p_created_at], ARRAY[p_terms],
        p_known, p_answer, p_token, p_process, p_answer_model, p_lease);
END
$$;

CREATE FUNCTION finish_one(
    p_key bytea, p_owner text, p_id text, p_etag text, p_token text,
    p_message text, p_role text, p_text text, p_body bytea, p_status text, p_model text,
    p_tokens bigint, p_created_at bigint, p_terms text
) RETURNS SETOF reply LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v_version bigint;
    v_etag text;
    v_last bigint;
    v_head bigint;
    v_head_id text;
    v_now bigint;
BEGIN
    SELECT version, etag, last_seq, head, head_id, greatest(micros(), updated_at + 1)
    INTO v_version, v_etag, v_last, v_head, v_head_id, v_now
    FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros())
      AND NOT branched
    FOR NO KEY UPDATE;
    IF FOUND THEN
        RETURN QUERY WITH done AS (
            DELETE FROM answer a
            WHERE a.conversation = p_key AND a.id = p_message AND a.token = p_token AND NOT a.sibling
            RETURNING a.question
        ), stored AS (
            INSERT INTO message
                (conversation, seq, id, parent, question, role, text, body, status, model, tokens, created_at, terms)
            SELECT p_key, v_last + 1, p_message, v_head, CASE WHEN question <> v_head THEN question END, p_role, p_text,
                   p_body, p_status, p_model, p_tokens, coalesce(p_created_at, v_now),
                   array_to_tsvector(string_to_array(p_terms, ' '))
            FROM done RETURNING seq
        )
        UPDATE conversation c
        SET version = v_version + 1, etag = p_etag, last_seq = stored.seq, head = stored.seq, head_id = p_message,
            updated_at = v_now
        FROM stored WHERE c.key = p_key
        RETURNING 'appended', c.version, c.etag, v_etag, c.last_seq, NULL::text, v_head, v_head_id, NULL::text,
                  NULL::text, NULL::bytea, NULL::text, NULL::text, NULL::bigint, v_now, NULL::text, NULL::text,
                  NULL::boolean, NULL::bigint;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM finish_turn(
        p_key, p_owner, p_id, p_etag, p_token,
        ARRAY[p_message], ARRAY[p_role], ARRAY[p_text], ARRAY[p_body], ARRAY[p_status], ARRAY[p_model],
        ARRAY[p_tokens], ARRAY[p_created_at], ARRAY[p_terms]);
END
$$;
