--
-- PostgreSQL database dump
--


-- Dumped from database version 18.6
-- Dumped by pg_dump version 18.6

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: daram; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA daram;


--
-- Name: reply; Type: TYPE; Schema: daram; Owner: -
--

CREATE TYPE daram.reply AS (
	kind text,
	version bigint,
	etag text,
	previous_etag text,
	seq bigint,
	id text,
	parent bigint,
	parent_id text,
	role text,
	text text,
	body bytea,
	status text,
	model text,
	tokens bigint,
	created_at bigint,
	token text,
	process text,
	cancel boolean,
	lease_until bigint
);


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: conversation; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.conversation (
    key bytea NOT NULL,
    owner text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    title text,
    metadata bytea,
    pinned boolean DEFAULT false NOT NULL,
    archived boolean DEFAULT false NOT NULL,
    version bigint NOT NULL,
    etag text NOT NULL COLLATE pg_catalog."C",
    last_seq bigint NOT NULL,
    head bigint NOT NULL,
    head_id text COLLATE pg_catalog."C",
    branched boolean NOT NULL,
    erased boolean DEFAULT false NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    expires_at bigint
);


--
-- Name: answer_above(daram.conversation, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.answer_above(v daram.conversation, p_from bigint) RETURNS text
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: append_messages(bytea, text, text, text, boolean, bigint, text, text, bigint, text[], text[], text[], bytea[], text[], text[], bigint[], bigint[], text[]); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.append_messages(p_key bytea, p_owner text, p_id text, p_etag text, p_create boolean, p_expect_version bigint, p_expect_etag text, p_parent text, p_window bigint, p_ids text[], p_roles text[], p_texts text[], p_bodies bytea[], p_statuses text[], p_models text[], p_tokens bigint[], p_created_ats bigint[], p_terms text[]) RETURNS SETOF daram.reply
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: append_one(bytea, text, text, text, boolean, bigint, text, text, bigint, text, text, text, bytea, text, text, bigint, bigint, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.append_one(p_key bytea, p_owner text, p_id text, p_etag text, p_create boolean, p_expect_version bigint, p_expect_etag text, p_parent text, p_window bigint, p_message text, p_role text, p_text text, p_body bytea, p_status text, p_model text, p_tokens bigint, p_created_at bigint, p_terms text) RETURNS SETOF daram.reply
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: begin_one(bytea, text, text, text, boolean, bigint, text, text, bigint, text, text, text, bytea, text, text, bigint, bigint, text, text, text, text, text, text, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.begin_one(p_key bytea, p_owner text, p_id text, p_etag text, p_create boolean, p_expect_version bigint, p_expect_etag text, p_parent text, p_window bigint, p_message text, p_role text, p_text text, p_body bytea, p_status text, p_model text, p_tokens bigint, p_created_at bigint, p_terms text, p_known text, p_answer text, p_token text, p_process text, p_answer_model text, p_lease bigint) RETURNS SETOF daram.reply
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: begin_turn(bytea, text, text, text, boolean, bigint, text, text, bigint, text[], text[], text[], bytea[], text[], text[], bigint[], bigint[], text[], text, text, text, text, text, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.begin_turn(p_key bytea, p_owner text, p_id text, p_etag text, p_create boolean, p_expect_version bigint, p_expect_etag text, p_parent text, p_window bigint, p_ids text[], p_roles text[], p_texts text[], p_bodies bytea[], p_statuses text[], p_models text[], p_tokens bigint[], p_created_ats bigint[], p_terms text[], p_known text, p_answer text, p_token text, p_process text, p_model text, p_lease bigint) RETURNS SETOF daram.reply
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: bury_conversation(bytea, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.bury_conversation(p_key bytea, p_etag text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM clear_conversation(p_key);
    INSERT INTO tombstone (key, etag, deleted_at) VALUES (p_key, p_etag, micros())
    ON CONFLICT (key) DO UPDATE SET etag = excluded.etag, deleted_at = excluded.deleted_at;
END
$$;


--
-- Name: message; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.message (
    conversation bytea NOT NULL,
    seq bigint NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    parent bigint NOT NULL,
    question bigint,
    role text NOT NULL,
    text text NOT NULL,
    body bytea,
    status text NOT NULL,
    model text,
    tokens bigint,
    created_at bigint NOT NULL,
    deleted boolean DEFAULT false NOT NULL,
    terms tsvector
);


--
-- Name: children(bytea, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.children(p_key bytea, p_seq bigint) RETURNS SETOF daram.message
    LANGUAGE sql STABLE
    AS $$
SELECT * FROM message WHERE conversation = p_key AND seq = p_seq + 1 AND parent = p_seq
UNION ALL
SELECT * FROM message WHERE conversation = p_key AND parent = p_seq AND parent <> seq - 1
$$;


--
-- Name: clear_conversation(bytea); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.clear_conversation(p_key bytea) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    DELETE FROM message WHERE conversation = p_key;
    DELETE FROM leaf WHERE conversation = p_key;
    DELETE FROM answer WHERE conversation = p_key;
    DELETE FROM conversation WHERE key = p_key;
END
$$;


--
-- Name: create_conversation(bytea, text, text, text, text, bytea, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.create_conversation(p_key bytea, p_owner text, p_id text, p_etag text, p_title text, p_metadata bytea, p_expires_at bigint, OUT kind text, OUT c daram.conversation) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: delete_conversation(bytea, text, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.delete_conversation(p_key bytea, p_owner text, p_id text, p_etag text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: delete_documents(text, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.delete_documents(p_owner text, p_collection text, p_id text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_collection text;
    v_id text;
    v_count bigint := 0;
BEGIN
    FOR v_collection, v_id IN
        SELECT collection, id FROM document
        WHERE owner = p_owner AND (p_collection IS NULL OR collection = p_collection) AND (p_id IS NULL OR id = p_id)
        ORDER BY collection, id FOR UPDATE LOOP
        PERFORM drop_revisions(p_owner, v_collection, v_id, 0);
        DELETE FROM document WHERE owner = p_owner AND collection = v_collection AND id = v_id;
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END
$$;


--
-- Name: delete_message(bytea, text, text, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.delete_message(p_key bytea, p_owner text, p_id text, p_etag text, p_message text, OUT kind text, OUT c daram.conversation) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: delete_owner(text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.delete_owner(p_owner text, p_etag text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: discard_revision(text, text, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.discard_revision(p_owner text, p_collection text, p_id text, p_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_id bigint;
    v_place bigint;
BEGIN
    PERFORM FROM document WHERE owner = p_owner AND collection = p_collection AND id = p_id FOR UPDATE;
    DELETE FROM revision WHERE owner = p_owner AND collection = p_collection AND document = p_id AND name = p_name
                               AND staged RETURNING id, place INTO v_id, v_place;
    DELETE FROM passage WHERE revision = v_id;
    DELETE FROM passage_vector WHERE place = v_place AND revision = v_id;
END
$$;


--
-- Name: drop_revisions(text, text, text, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.drop_revisions(p_owner text, p_collection text, p_document text, p_keep bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_id bigint;
    v_place bigint;
BEGIN
    FOR v_id, v_place IN SELECT id, place FROM revision WHERE owner = p_owner AND collection = p_collection
                                                              AND document = p_document AND id <> p_keep LOOP
        DELETE FROM passage WHERE revision = v_id;
        DELETE FROM passage_vector WHERE place = v_place AND revision = v_id;
        DELETE FROM revision WHERE id = v_id;
    END LOOP;
END
$$;


--
-- Name: enter_conversation(bytea, text, text, boolean); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.enter_conversation(p_key bytea, p_owner text, p_id text, p_create boolean, OUT kind text, OUT c daram.conversation) RETURNS record
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: find_conversation(bytea, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.find_conversation(p_key bytea, p_owner text, p_id text) RETURNS daram.conversation
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v conversation;
BEGIN
    SELECT * INTO v FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros());
    RETURN v;
END
$$;


--
-- Name: finish_one(bytea, text, text, text, text, text, text, text, bytea, text, text, bigint, bigint, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.finish_one(p_key bytea, p_owner text, p_id text, p_etag text, p_token text, p_message text, p_role text, p_text text, p_body bytea, p_status text, p_model text, p_tokens bigint, p_created_at bigint, p_terms text) RETURNS SETOF daram.reply
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: finish_turn(bytea, text, text, text, text, text[], text[], text[], bytea[], text[], text[], bigint[], bigint[], text[]); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.finish_turn(p_key bytea, p_owner text, p_id text, p_etag text, p_token text, p_ids text[], p_roles text[], p_texts text[], p_bodies bytea[], p_statuses text[], p_models text[], p_tokens bigint[], p_created_ats bigint[], p_terms text[]) RETURNS SETOF daram.reply
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: finished_answer(bytea, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.finished_answer(p_key bytea, p_question bigint) RETURNS SETOF daram.reply
    LANGUAGE sql
    AS $$
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


--
-- Name: insert_conversation(daram.conversation); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.insert_conversation(v daram.conversation) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    DELETE FROM tombstone WHERE key = v.key;
    INSERT INTO conversation SELECT (v).*;
END
$$;


--
-- Name: is_on_path(bytea, bigint, bigint, boolean); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.is_on_path(p_key bytea, p_seq bigint, p_leaf bigint, p_branched boolean) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_high bigint := p_leaf;
    v_low bigint;
    v_below bigint;
BEGIN
    IF NOT p_branched THEN
        RETURN p_seq <= p_leaf;
    END IF;
    WHILE v_high > 0 AND p_seq <= v_high LOOP
        SELECT low, below INTO v_low, v_below FROM run_at(p_key, v_high, true);
        IF p_seq >= v_low THEN
            RETURN true;
        END IF;
        v_high := v_below;
    END LOOP;
    RETURN false;
END
$$;


--
-- Name: keep_leaves(daram.conversation, bigint, bigint, boolean, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.keep_leaves(v daram.conversation, p_parent bigint, p_last bigint, p_make_head boolean, p_version bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: last_messages(bytea, bigint, boolean, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.last_messages(p_key bytea, p_leaf bigint, p_branched boolean, p_limit bigint) RETURNS SETOF daram.reply
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_high bigint := p_leaf;
    v_low bigint := 1;
    v_below bigint := 0;
    v_left bigint := p_limit;
    v_count bigint;
    v_erased bigint;
BEGIN
    WHILE p_limit > 0 AND v_high > 0 AND v_left >= 0 LOOP
        IF p_branched THEN
            SELECT low, below INTO v_low, v_below FROM run_at(p_key, v_high, true);
        END IF;
        RETURN QUERY SELECT * FROM run_down(p_key, v_low, v_high, v_left + 1);
        GET DIAGNOSTICS v_count = ROW_COUNT;
        SELECT count(*) INTO v_erased FROM message
        WHERE conversation = p_key AND deleted AND seq BETWEEN v_high - v_count + 1 AND v_high;
        v_left := v_left - v_count + v_erased;
        v_high := CASE WHEN v_high - v_count < v_low THEN v_below ELSE v_high - v_count END;
    END LOOP;
END
$$;


--
-- Name: leaf_under(bytea, bigint, bigint, boolean); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.leaf_under(p_key bytea, p_seq bigint, p_head bigint, p_branched boolean) RETURNS bigint
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    v_leaf bigint;
BEGIN
    IF NOT p_branched THEN
        RETURN p_head;
    END IF;
    WITH RECURSIVE run AS (
        SELECT p_seq AS low, run_end(p_key, p_seq) AS high
        UNION ALL
        SELECT f.seq, run_end(p_key, f.seq)
        FROM run r CROSS JOIN LATERAL (
            SELECT m.seq FROM message m
            WHERE m.conversation = p_key AND m.parent BETWEEN r.low AND r.high AND m.parent <> m.seq - 1
            OFFSET 0) f
    )
    SELECT l.seq INTO v_leaf
    FROM run r CROSS JOIN LATERAL (
        SELECT seq, used FROM leaf WHERE conversation = p_key AND seq BETWEEN r.low AND r.high
        OFFSET 0) l
    ORDER BY l.used DESC, l.seq DESC LIMIT 1;
    RETURN coalesce(v_leaf, p_seq);
END
$$;


--
-- Name: lock_conversation(bytea, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.lock_conversation(p_key bytea, p_owner text, p_id text) RETURNS daram.conversation
    LANGUAGE plpgsql
    AS $$
DECLARE
    v conversation;
BEGIN
    SELECT * INTO v FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros())
    FOR NO KEY UPDATE;
    RETURN v;
END
$$;


--
-- Name: lock_place(bytea, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.lock_place(p_key bytea, p_owner text, p_id text) RETURNS daram.conversation
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: micros(); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.micros() RETURNS bigint
    LANGUAGE sql
    AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;


--
-- Name: name_of(bytea, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.name_of(p_key bytea, p_seq bigint) RETURNS text
    LANGUAGE sql STABLE
    AS $$ SELECT id FROM message WHERE conversation = p_key AND seq = p_seq $$;


--
-- Name: near_passages(text[], text[], bigint[], bit varying, text, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.near_passages(p_owners text[], p_collections text[], p_places bigint[], p_bits bit varying, p_embedder text, p_limit bigint) RETURNS TABLE(owner text, collection text, document text, name text, title text, seq bigint, text text, begins bigint, ends bigint, page bigint, heading bytea, revision text, value bytea)
    LANGUAGE sql STABLE
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET enable_memoize TO 'off'
    AS $$
SELECT r.owner, r.collection, r.document, r.name, r.title, p.seq, p.text, p.begins, p.ends, p.page, p.heading,
       r.revision, v.value
FROM (
    SELECT v.place, v.revision, v.seq
    FROM unnest(p_places) AS q (place)
    CROSS JOIN LATERAL (
        SELECT v.place, v.revision, v.seq, v.bits FROM passage_vector v
        WHERE v.place = q.place
          AND CASE WHEN v.embedder IS NULL
              THEN v.revision NOT IN (
                  SELECT r.id FROM revision r WHERE r.place = ANY (p_places) AND r.embedder < p_embedder
                  UNION ALL SELECT r.id FROM revision r WHERE r.place = ANY (p_places) AND r.embedder > p_embedder
                  UNION ALL SELECT r.id FROM revision r WHERE r.place = ANY (p_places) AND r.embedder IS NULL)
              ELSE v.embedder = p_embedder END
        OFFSET 0) v
    ORDER BY CASE WHEN length(v.bits) = length(p_bits) THEN bit_count(v.bits # p_bits) END LIMIT p_limit
) n
CROSS JOIN LATERAL (
    SELECT v.value FROM passage_vector v
    WHERE v.place = n.place AND v.revision = n.revision AND v.seq = n.seq AND length(v.bits) = length(p_bits) OFFSET 0) v
CROSS JOIN LATERAL (
    SELECT p.* FROM passage p WHERE p.revision = n.revision AND p.seq = n.seq OFFSET 0) p
CROSS JOIN LATERAL (
    SELECT r.owner, r.collection, r.document, d.name, d.title, d.revision FROM revision r
    JOIN document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = r.id
    WHERE r.id = n.revision OFFSET 0) r
WHERE EXISTS (SELECT FROM unnest(p_owners, p_collections) AS q (owner, collection)
              WHERE q.owner = r.owner AND q.collection = r.collection)
$$;


--
-- Name: new_conversation(bytea, text, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.new_conversation(p_key bytea, p_owner text, p_id text, p_etag text) RETURNS daram.conversation
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: one_answer(text, bytea, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.one_answer(p_kind text, p_key bytea, p_answer text) RETURNS SETOF daram.reply
    LANGUAGE sql STABLE
    AS $$
SELECT p_kind, NULL::bigint, NULL::text, NULL::text, NULL::bigint, a.id, a.question, name_of(p_key, a.question),
       NULL::text, a.text, NULL::bytea, NULL::text, a.model, NULL::bigint, a.created_at, a.token, a.process,
       a.cancel, a.lease_until
FROM answer a WHERE a.conversation = p_key AND a.id = p_answer
$$;


--
-- Name: one_message(text, bytea, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.one_message(p_kind text, p_key bytea, p_seq bigint) RETURNS SETOF daram.reply
    LANGUAGE sql STABLE
    AS $$
SELECT p_kind, NULL::bigint, NULL::text, NULL::text, m.seq, m.id, m.parent, name_of(p_key, m.parent),
       m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at, NULL::text, NULL::text, NULL::boolean,
       NULL::bigint
FROM message m WHERE m.conversation = p_key AND m.seq = p_seq
$$;


--
-- Name: page(bytea, text, text, bigint, boolean, bigint, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.page(p_key bytea, p_owner text, p_id text, p_limit bigint, p_descending boolean, p_after bigint, p_leaf bigint) RETURNS SETOF daram.reply
    LANGUAGE plpgsql STABLE
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v conversation := find_conversation(p_key, p_owner, p_id);
    v_reply reply;
    v_leaf bigint := p_leaf;
    v_start bigint;
    v_lows bigint[] := '{}';
    v_highs bigint[] := '{}';
    v_high bigint;
    v_low bigint;
    v_below bigint;
    v_left bigint := p_limit;
    v_count bigint;
BEGIN
    v_reply.kind := CASE WHEN v.key IS NULL THEN 'missing' ELSE 'found' END;
    IF v.key IS NULL THEN
        RETURN NEXT v_reply;
        RETURN;
    END IF;
    IF p_after = 0 OR (NOT p_descending AND is_on_path(p_key, p_after, v.head, v.branched)) THEN
        v_leaf := v.head;
    END IF;
    v_reply.seq := v_leaf;
    RETURN NEXT v_reply;
    IF p_descending THEN
        IF p_after = 0 THEN
            v_start := v.head;
        ELSE
            SELECT parent INTO v_start FROM message WHERE conversation = p_key AND seq = p_after;
        END IF;
        RETURN QUERY SELECT * FROM last_messages(p_key, coalesce(v_start, 0), v.branched, p_limit);
        RETURN;
    END IF;
    IF v_leaf > v.last_seq THEN
        RETURN;  -- the leaf of an earlier conversation with the same id
    END IF;
    v_high := v_leaf;
    WHILE v_high > p_after LOOP
        SELECT low, below INTO v_low, v_below FROM run_at(p_key, v_high, v.branched);
        v_lows := v_lows || v_low;
        v_highs := v_highs || v_high;
        v_high := v_below;
    END LOOP;
    FOR i IN REVERSE cardinality(v_lows) .. 1 LOOP
        RETURN QUERY SELECT * FROM run_up(p_key, greatest(v_lows[i], p_after + 1), v_highs[i], v_left);
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
        EXIT WHEN v_left <= 0;
    END LOOP;
END
$$;


--
-- Name: passages_with_all(text[], text[], tsquery[], bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.passages_with_all(p_owners text[], p_collections text[], p_queries tsquery[], p_limit bigint) RETURNS TABLE(owner text, collection text, document text, name text, title text, seq bigint, text text, begins bigint, ends bigint, page bigint, heading bytea, revision text)
    LANGUAGE sql STABLE
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
SELECT d.owner, d.collection, d.id, d.name, d.title, p.seq, p.text, p.begins, p.ends, p.page, p.heading, d.revision
FROM unnest(p_owners, p_collections, p_queries) AS q (owner, collection, query)
CROSS JOIN LATERAL (
    SELECT p.* FROM passage p
    WHERE p.terms @@ q.query
      AND (SELECT r.owner = q.owner AND r.collection = q.collection AND NOT r.staged FROM revision r WHERE r.id = p.revision)
    LIMIT p_limit) p
JOIN revision r ON r.id = p.revision
JOIN document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = r.id
$$;


--
-- Name: passages_with_any(text[], text[], bigint[], tsquery[], bigint[], bigint, bigint, bigint, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.passages_with_any(p_owners text[], p_collections text[], p_places bigint[], p_queries tsquery[], p_terms bigint[], p_first bigint, p_probe bigint, p_budget bigint, p_limit bigint) RETURNS TABLE(owner text, collection text, document text, name text, title text, seq bigint, text text, begins bigint, ends bigint, page bigint, heading bytea, revision text, terms bigint[], having_term bigint[], average double precision, size bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET enable_memoize TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    v_size bigint;
    v_length double precision;
    v_terms bigint[];       -- all that are there, the rarest first
    v_found bigint[];       -- how many passages each of them has
    v_whole boolean[];      -- whether these are all that have it
    v_chosen bigint[];
    v_weights double precision[];
    v_left bigint := p_budget;
    v_spare bigint := p_budget;  -- for those of which there are more than it seemed
    v_in bigint[];          -- of what was found: the term, the passage, its length
    v_revisions bigint[];
    v_seqs bigint[];
    v_lengths bigint[];
    v_some_revisions bigint[];
    v_some_seqs bigint[];
    v_some_lengths bigint[];
    v_count bigint;
BEGIN
    SELECT coalesce(sum(d.passages), 0) INTO v_size
    FROM unnest(p_owners, p_collections) AS q (owner, collection)
    CROSS JOIN LATERAL (
        SELECT d.passages FROM document d WHERE d.owner = q.owner AND d.collection = q.collection LIMIT 10000) d;

    WITH hit AS MATERIALIZED (
        SELECT q.number, q.term, p.place, p.revision, p.seq, p.length
        FROM unnest(p_queries, p_terms) WITH ORDINALITY AS q (query, term, number)
        CROSS JOIN LATERAL (
            SELECT p.ctid AS place, p.revision, p.seq, p.length FROM passage p
            WHERE p.terms @@ q.query
              AND p.revision NOT IN (SELECT r.id FROM revision r WHERE r.place = ANY (p_places) AND r.staged)
            LIMIT p_probe) p
    ), probed AS (
        SELECT number, term, count(*) AS found, (max(place)::text::point)[0] AS last,
               (min(min(place)) OVER (PARTITION BY (number - 1) / p_first)::text::point)[0] AS base
        FROM hit GROUP BY number, term
    ), known AS (
        SELECT term, bool_and(found < p_probe) AS whole,
               sum(CASE WHEN found < p_probe THEN found ELSE greatest(p_probe, least(v_size, v_size * p_probe / (
                   (last - base + 1) * (SELECT greatest(c.reltuples, 1) / greatest(c.relpages, 1) FROM pg_class c
                                        WHERE c.oid = 'passage'::regclass)))) END)::bigint AS found
        FROM probed GROUP BY term
    ), kept AS (
        SELECT h.* FROM hit h JOIN known k ON k.term = h.term WHERE k.whole
    )
    SELECT k.terms, k.found, k.whole, h.terms, h.revisions, h.seqs, h.lengths,
           (SELECT greatest(avg(length), 1)::double precision FROM hit)
    INTO v_terms, v_found, v_whole, v_in, v_revisions, v_seqs, v_lengths, v_length
    FROM (SELECT array_agg(term ORDER BY whole DESC, found, term) AS terms,
                 array_agg(found ORDER BY whole DESC, found, term) AS found,
                 array_agg(whole ORDER BY whole DESC, found, term) AS whole FROM known) k,
         (SELECT array_agg(term) AS terms, array_agg(revision) AS revisions, array_agg(seq) AS seqs,
                 array_agg(length) AS lengths FROM kept) h;
    IF v_terms IS NULL THEN
        RETURN;
    END IF;

    FOR i IN 1 .. cardinality(v_terms) LOOP
        IF v_whole[i] THEN
            v_left := v_left - v_found[i];
        ELSIF v_chosen IS NULL OR (v_left > 0 AND v_spare > 0 AND v_found[i] <= 2 * v_left) THEN
            SELECT array_agg(p.revision), array_agg(p.seq), array_agg(p.length), count(*)
            INTO v_some_revisions, v_some_seqs, v_some_lengths, v_count
            FROM unnest(p_queries, p_terms) AS q (query, term)
            CROSS JOIN LATERAL (
                SELECT p.revision, p.seq, p.length FROM passage p
                WHERE p.terms @@ q.query
                  AND p.revision NOT IN (SELECT r.id FROM revision r WHERE r.place = ANY (p_places) AND r.staged)
                LIMIT greatest(v_left, p_probe) + 1) p
            WHERE q.term = v_terms[i];
            v_found[i] := greatest(v_count, CASE WHEN v_count > v_left THEN v_found[i] END);
            IF v_count > v_left AND v_chosen IS NOT NULL THEN
                v_spare := v_spare - v_count;
                CONTINUE;
            END IF;
            v_left := v_left - v_count;
            v_in := v_in || array_fill(v_terms[i], ARRAY[v_count::integer]);
            v_revisions := v_revisions || v_some_revisions;
            v_seqs := v_seqs || v_some_seqs;
            v_lengths := v_lengths || v_some_lengths;
        ELSE
            CONTINUE;
        END IF;
        v_chosen := v_chosen || v_terms[i];
        v_weights := v_weights || ln(1 + (greatest(v_size, v_found[i]) - v_found[i] + 0.5) / (v_found[i] + 0.5));
    END LOOP;

    RETURN QUERY
    SELECT d.owner, d.collection, d.id, d.name, d.title, p.seq, p.text, p.begins, p.ends, p.page, p.heading,
           d.name_of_revision, v_terms, v_found, v_length, v_size
    FROM (
        SELECT s.revision, s.seq, d.owner, d.collection, d.id, d.name, d.title, d.revision AS name_of_revision
        FROM (
            SELECT h.revision, h.seq,
                   sum(w.weight * 2.2 / (1 + 1.2 * (0.25 + 0.75 * h.length / v_length))) AS score
            FROM unnest(v_in, v_revisions, v_seqs, v_lengths) AS h (term, revision, seq, length)
            JOIN unnest(v_chosen, v_weights) AS w (term, weight) ON w.term = h.term
            GROUP BY h.revision, h.seq
            ORDER BY score DESC, h.revision, h.seq OFFSET 0
        ) s
        CROSS JOIN LATERAL (
            SELECT r.owner, r.collection, r.document FROM revision r
            WHERE r.id = s.revision
              AND EXISTS (SELECT FROM unnest(p_owners, p_collections) AS q (owner, collection)
                          WHERE q.owner = r.owner AND q.collection = r.collection) OFFSET 0) r
        CROSS JOIN LATERAL (
            SELECT d.owner, d.collection, d.id, d.name, d.title, d.revision FROM document d
            WHERE d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = s.revision
            OFFSET 0) d
        LIMIT p_limit
    ) d
    CROSS JOIN LATERAL (SELECT p.* FROM passage p WHERE p.revision = d.revision AND p.seq = d.seq OFFSET 0) p;
END
$$;


--
-- Name: place_of(daram.conversation, bigint, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.place_of(v daram.conversation, p_version bigint, p_etag text, p_parent text, OUT kind text, OUT parent bigint) RETURNS record
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: document; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.document (
    owner text NOT NULL COLLATE pg_catalog."C",
    collection text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    title text,
    media_type text,
    source text,
    digest text NOT NULL COLLATE pg_catalog."C",
    bytes bigint NOT NULL,
    state text NOT NULL COLLATE pg_catalog."C",
    error text,
    metadata bytea,
    embedder text COLLATE pg_catalog."C",
    revision text COLLATE pg_catalog."C",
    passages bigint NOT NULL,
    etag text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    live bigint
);


--
-- Name: publish_document(text, text, text, text, text, text, text, text, bigint, text, text, bytea, text, text, bigint, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.publish_document(p_owner text, p_collection text, p_id text, p_name text, p_title text, p_media_type text, p_source text, p_digest text, p_bytes bigint, p_state text, p_error text, p_metadata bytea, p_etag text, p_revision text, p_place bigint, p_embedder text, p_expect text, OUT kind text, OUT d daram.document) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_id bigint;
    v_passages bigint;
    v_vectors bigint;
BEGIN
    kind := 'published';
    SELECT * INTO d FROM document WHERE owner = p_owner AND collection = p_collection AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        kind := 'missing';
        RETURN;
    ELSIF d.etag = p_etag THEN  -- the same call again
        RETURN;
    ELSIF d.etag <> p_expect THEN
        kind := 'conflict';
        RETURN;
    END IF;
    INSERT INTO revision AS r (owner, collection, document, name, staged, staged_at, embedder, place)
    VALUES (p_owner, p_collection, p_id, p_revision, false, micros(), p_embedder, p_place)
    ON CONFLICT (owner, collection, document, name) DO UPDATE SET staged = false, embedder = excluded.embedder
    RETURNING r.id INTO v_id;
    PERFORM drop_revisions(p_owner, p_collection, p_id, v_id);
    SELECT count(*) INTO v_passages FROM passage p WHERE p.revision = v_id;
    SELECT count(*) INTO v_vectors FROM passage_vector v
    WHERE v.place = p_place AND v.revision = v_id AND coalesce(v.embedder, p_embedder) = p_embedder;
    UPDATE document
    SET name = p_name, title = p_title, media_type = p_media_type, source = p_source, digest = p_digest, bytes = p_bytes,
        state = p_state, error = p_error, metadata = p_metadata, etag = p_etag, revision = p_revision, live = v_id,
        passages = v_passages, embedder = CASE WHEN v_vectors = v_passages AND v_passages > 0 THEN p_embedder END,
        updated_at = greatest(micros(), d.updated_at + 1)
    WHERE owner = p_owner AND collection = p_collection AND id = p_id RETURNING * INTO d;
END
$$;


--
-- Name: purge(bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.purge(p_limit bigint) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: purge_staged(bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.purge_staged(p_seconds bigint) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    r revision;
    v_count bigint := 0;
BEGIN
    FOR r IN SELECT * FROM revision WHERE staged AND staged_at < micros() - p_seconds * 1000000 LOOP
        PERFORM discard_revision(r.owner, r.collection, r.document, r.name);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END
$$;


--
-- Name: put_document(text, text, text, text, text, text, text, text, bigint, text, text, bytea, text, boolean, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.put_document(p_owner text, p_collection text, p_id text, p_name text, p_title text, p_media_type text, p_source text, p_digest text, p_bytes bigint, p_state text, p_error text, p_metadata bytea, p_etag text, p_any boolean, p_expect text) RETURNS SETOF daram.document
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    d document;
    v_now bigint := micros();
BEGIN
    LOOP
        SELECT * INTO d FROM document WHERE owner = p_owner AND collection = p_collection AND id = p_id FOR UPDATE;
        IF FOUND THEN
            IF d.etag <> p_etag THEN  -- else it is the same call again
                IF NOT p_any AND d.etag IS DISTINCT FROM p_expect THEN
                    RETURN;
                END IF;
                UPDATE document
                SET name = p_name, title = p_title, media_type = p_media_type, source = p_source, digest = p_digest,
                    bytes = p_bytes, state = p_state, error = p_error, metadata = p_metadata, etag = p_etag,
                    updated_at = greatest(v_now, d.updated_at + 1)
                WHERE owner = p_owner AND collection = p_collection AND id = p_id RETURNING * INTO d;
            END IF;
            RETURN NEXT d;
            RETURN;
        END IF;
        IF NOT p_any AND p_expect IS NOT NULL THEN
            RETURN;
        END IF;
        INSERT INTO document VALUES
            (p_owner, p_collection, p_id, p_name, p_title, p_media_type, p_source, p_digest, p_bytes, p_state, p_error,
             p_metadata, NULL, NULL, 0, p_etag, v_now, v_now, NULL)
        ON CONFLICT DO NOTHING RETURNING * INTO d;
        IF FOUND THEN
            RETURN NEXT d;
            RETURN;
        END IF;  -- somebody else made it meanwhile: look again
    END LOOP;
END
$$;


--
-- Name: put_vectors(text, text, text, text, text, bigint[], text[], bytea[]); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.put_vectors(p_owner text, p_collection text, p_id text, p_revision text, p_embedder text, p_seqs bigint[], p_bits text[], p_values bytea[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    d document;
    r revision;
    v_count bigint;
BEGIN
    SELECT * INTO d FROM document WHERE owner = p_owner AND collection = p_collection AND id = p_id FOR UPDATE;
    IF NOT FOUND OR d.revision IS DISTINCT FROM p_revision THEN
        RETURN;
    END IF;
    SELECT * INTO r FROM revision WHERE id = d.live;
    INSERT INTO passage_vector (place, revision, seq, embedder, bits, value)
    SELECT r.place, r.id, v.seq, p_embedder, v.bits::varbit, v.value
    FROM unnest(p_seqs, p_bits, p_values) AS v (seq, bits, value)
    JOIN passage p ON p.revision = r.id AND p.seq = v.seq
    ON CONFLICT (place, revision, seq) DO UPDATE
    SET embedder = excluded.embedder, bits = excluded.bits, value = excluded.value;
    SELECT count(*) INTO v_count FROM passage_vector v
    WHERE v.place = r.place AND v.revision = r.id AND coalesce(v.embedder, r.embedder) = p_embedder;
    UPDATE document SET embedder = CASE WHEN v_count = d.passages THEN p_embedder END
    WHERE owner = p_owner AND collection = p_collection AND id = p_id;
END
$$;


--
-- Name: refusing_answer(bytea, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.refusing_answer(p_key bytea, p_answer text) RETURNS SETOF daram.reply
    LANGUAGE sql
    AS $$
SELECT r.* FROM answer a, one_answer(CASE WHEN a.lease_until > micros() THEN 'busy' ELSE 'late' END, p_key, a.id) r
WHERE a.conversation = p_key AND a.id = p_answer
$$;


--
-- Name: run_at(bytea, bigint, boolean); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.run_at(p_key bytea, p_high bigint, p_branched boolean, OUT low bigint, OUT below bigint) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    IF p_branched THEN
        SELECT m.seq, m.parent INTO low, below FROM message m
        WHERE m.conversation = p_key AND m.seq <= p_high AND m.parent <> m.seq - 1 ORDER BY m.seq DESC LIMIT 1;
    END IF;
    IF low IS NULL THEN
        low := 1;
        below := 0;
    END IF;
END
$$;


--
-- Name: run_down(bytea, bigint, bigint, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.run_down(p_key bytea, p_low bigint, p_high bigint, p_count bigint) RETURNS SETOF daram.reply
    LANGUAGE sql STABLE
    AS $$
SELECT CASE WHEN deleted THEN 'erased' ELSE 'message' END, NULL::bigint, NULL::text, NULL::text, seq, id, parent,
       NULL::text, role, text, body, status, model, tokens, created_at, NULL::text, NULL::text, NULL::boolean, NULL::bigint
FROM message
WHERE conversation = p_key AND seq BETWEEN p_low AND p_high
ORDER BY seq DESC LIMIT p_count
$$;


--
-- Name: run_end(bytea, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.run_end(p_key bytea, p_seq bigint) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
SELECT coalesce((
    SELECT seq - 1 FROM message WHERE conversation = p_key AND seq > p_seq AND parent <> seq - 1 ORDER BY seq LIMIT 1),
    9223372036854775807)
$$;


--
-- Name: run_up(bytea, bigint, bigint, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.run_up(p_key bytea, p_low bigint, p_high bigint, p_limit bigint) RETURNS SETOF daram.reply
    LANGUAGE sql STABLE
    AS $$
SELECT 'message', NULL::bigint, NULL::text, NULL::text, m.seq, m.id, m.parent,
       CASE WHEN lag(m.seq) OVER w = m.parent THEN lag(m.id) OVER w ELSE name_of(p_key, m.parent) END,
       m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at, NULL::text, NULL::text, NULL::boolean,
       NULL::bigint
FROM (SELECT * FROM message
      WHERE conversation = p_key AND seq BETWEEN p_low AND p_high AND NOT deleted
      ORDER BY seq LIMIT p_limit) m
WINDOW w AS (ORDER BY m.seq)
$$;


--
-- Name: search_all(text, bytea, tsquery, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.search_all(p_owner text, p_key bytea, p_query tsquery, p_limit bigint) RETURNS TABLE(conversation text, title text, score double precision, seq bigint, id text, parent bigint, parent_id text, role text, text text, body bytea, status text, model text, tokens bigint, created_at bigint)
    LANGUAGE sql STABLE
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
SELECT c.id, c.title, 1 / ln(8 + octet_length(m.text)), m.seq, m.id, m.parent, name_of(m.conversation, m.parent),
       m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at
FROM message m JOIN conversation c ON c.key = m.conversation
WHERE m.terms @@ p_query AND (p_key IS NULL OR m.conversation = p_key)
      AND c.owner = p_owner AND (c.expires_at IS NULL OR c.expires_at > micros())
ORDER BY octet_length(m.text), m.created_at DESC, m.conversation, m.seq DESC
LIMIT p_limit
$$;


--
-- Name: search_any(text, bytea, tsquery[], bigint, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.search_any(p_owner text, p_key bytea, p_queries tsquery[], p_common bigint, p_limit bigint) RETURNS TABLE(conversation text, title text, score double precision, seq bigint, id text, parent bigint, parent_id text, role text, text text, body bytea, status text, model text, tokens bigint, created_at bigint)
    LANGUAGE sql STABLE
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
WITH hit AS MATERIALIZED (
    SELECT q.n, m.conversation, m.seq, m.size
    FROM unnest(p_queries) WITH ORDINALITY AS q (query, n)
    CROSS JOIN LATERAL (
        SELECT m.conversation, m.seq, octet_length(m.text) AS size FROM message m
        WHERE m.terms @@ q.query AND (p_key IS NULL OR m.conversation = p_key)
          AND (SELECT c.owner = p_owner AND (c.expires_at IS NULL OR c.expires_at > micros())
               FROM conversation c WHERE c.key = m.conversation)
        LIMIT p_common + 1) m
), frequency AS (
    SELECT n, count(*) AS df FROM hit GROUP BY n
), chosen AS (
    SELECT n, df FROM frequency
    WHERE df <= p_common OR NOT EXISTS (SELECT FROM frequency WHERE df <= p_common)
), corpus AS (
    SELECT greatest(avg(size), 1)::double precision AS size, count(*)::double precision AS hits FROM hit
), best AS (
    SELECT h.conversation, h.seq,
           sum(ln(1 + w.hits / f.df) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * h.size / w.size))) AS score
    FROM hit h JOIN chosen f ON f.n = h.n CROSS JOIN corpus w
    GROUP BY h.conversation, h.seq
    ORDER BY score DESC, h.conversation, h.seq DESC LIMIT p_limit
)
SELECT c.id, c.title, b.score, m.seq, m.id, m.parent, name_of(m.conversation, m.parent),
       m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at
FROM best b JOIN message m ON m.conversation = b.conversation AND m.seq = b.seq JOIN conversation c ON c.key = b.conversation
ORDER BY b.score DESC, b.conversation, b.seq DESC
$$;


--
-- Name: siblings(bytea, text, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.siblings(p_key bytea, p_owner text, p_id text, p_message text) RETURNS SETOF daram.reply
    LANGUAGE plpgsql STABLE
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v conversation := find_conversation(p_key, p_owner, p_id);
    v_reply reply;
    v_parent bigint;
BEGIN
    SELECT parent INTO v_parent FROM message WHERE conversation = p_key AND id = p_message AND NOT deleted;
    v_reply.kind := CASE WHEN v.key IS NULL THEN 'missing' WHEN v_parent IS NULL THEN 'no message' ELSE 'found' END;
    v_reply.id := p_message;
    RETURN NEXT v_reply;
    IF v_reply.kind = 'found' THEN
        RETURN QUERY SELECT r.* FROM children(p_key, v_parent) c, one_message('message', p_key, c.seq) r
                     WHERE NOT c.deleted ORDER BY c.seq;
    END IF;
END
$$;


--
-- Name: stage_passages(text, text, text, text, bigint, bigint[], text[], bigint[], bigint[], bigint[], bytea[], bigint[], text[], bigint[], text[], bytea[]); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.stage_passages(p_owner text, p_collection text, p_document text, p_name text, p_place bigint, p_seqs bigint[], p_texts text[], p_begins bigint[], p_ends bigint[], p_pages bigint[], p_headings bytea[], p_lengths bigint[], p_terms text[], p_vector_seqs bigint[], p_bits text[], p_values bytea[]) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_published text;
    v_id bigint;
BEGIN
    SELECT revision INTO v_published FROM document
    WHERE owner = p_owner AND collection = p_collection AND id = p_document FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    ELSIF v_published = p_name THEN
        RETURN 'published';
    END IF;
    INSERT INTO revision AS r (owner, collection, document, name, staged_at, place)
    VALUES (p_owner, p_collection, p_document, p_name, micros(), p_place)
    ON CONFLICT (owner, collection, document, name) DO UPDATE SET staged_at = excluded.staged_at
    RETURNING r.id INTO v_id;
    INSERT INTO passage (revision, seq, text, begins, ends, page, heading, length, terms)
    SELECT v_id, p.seq, p.text, p.begins, p.ends, p.page, p.heading, p.length,
           array_to_tsvector(string_to_array(p.terms, ' '))
    FROM unnest(p_seqs, p_texts, p_begins, p_ends, p_pages, p_headings, p_lengths, p_terms)
         AS p (seq, text, begins, ends, page, heading, length, terms)
    ON CONFLICT (revision, seq) DO UPDATE
    SET text = excluded.text, begins = excluded.begins, ends = excluded.ends, page = excluded.page,
        heading = excluded.heading, length = excluded.length, terms = excluded.terms;
    DELETE FROM passage_vector WHERE place = p_place AND revision = v_id AND seq = ANY (p_seqs);
    INSERT INTO passage_vector (place, revision, seq, bits, value)
    SELECT p_place, v_id, v.seq, v.bits::varbit, v.value FROM unnest(p_vector_seqs, p_bits, p_values) AS v (seq, bits, value);
    RETURN 'staged';
END
$$;


--
-- Name: store_batch(daram.conversation, boolean, text, bigint, boolean, bigint, text[], text[], text[], bytea[], text[], text[], bigint[], bigint[], text[]); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.store_batch(v daram.conversation, p_new boolean, p_etag text, p_parent bigint, p_make_head boolean, p_question bigint, p_ids text[], p_roles text[], p_texts text[], p_bodies bytea[], p_statuses text[], p_models text[], p_tokens bigint[], p_created_ats bigint[], p_terms text[]) RETURNS daram.reply
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: stored_batch(daram.conversation, text[], bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.stored_batch(v daram.conversation, p_ids text[], p_window bigint) RETURNS SETOF daram.reply
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: tail(bytea, text, text, bigint); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.tail(p_key bytea, p_owner text, p_id text, p_limit bigint) RETURNS SETOF daram.reply
    LANGUAGE plpgsql STABLE
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v conversation := find_conversation(p_key, p_owner, p_id);
    v_reply reply;
BEGIN
    v_reply.kind := CASE WHEN v.key IS NULL THEN 'missing' ELSE 'found' END;
    RETURN NEXT v_reply;
    IF v.branched OR v.erased THEN
        RETURN QUERY SELECT * FROM last_messages(p_key, v.head, v.branched, p_limit);
    ELSIF v.head > 0 THEN
        RETURN QUERY SELECT * FROM run_down(p_key, 1, v.head, p_limit + 1);
    END IF;
END
$$;


--
-- Name: use_branch(bytea, text, text, text, text); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.use_branch(p_key bytea, p_owner text, p_id text, p_etag text, p_message text, OUT kind text, OUT c daram.conversation) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'daram', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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


--
-- Name: was_deleted(bytea); Type: FUNCTION; Schema: daram; Owner: -
--

CREATE FUNCTION daram.was_deleted(p_key bytea) RETURNS boolean
    LANGUAGE sql
    AS $$ SELECT EXISTS (SELECT FROM tombstone WHERE key = p_key AND deleted_at > micros() - 86400000000) $$;


--
-- Name: answer; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.answer (
    conversation bytea NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    question bigint NOT NULL,
    sibling boolean NOT NULL,
    text text NOT NULL,
    model text,
    token text NOT NULL COLLATE pg_catalog."C",
    process text NOT NULL,
    cancel boolean DEFAULT false NOT NULL,
    created_at bigint NOT NULL,
    lease_until bigint NOT NULL
)
WITH (fillfactor='50');


--
-- Name: leaf; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.leaf (
    conversation bytea NOT NULL,
    seq bigint NOT NULL,
    used bigint NOT NULL
);


--
-- Name: migration; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.migration (
    number integer NOT NULL,
    phase text NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);


--
-- Name: TABLE migration; Type: COMMENT; Schema: daram; Owner: -
--

COMMENT ON TABLE daram.migration IS 'Daram: the steps that made this schema';


--
-- Name: passage; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.passage (
    revision bigint NOT NULL,
    seq bigint NOT NULL,
    text text NOT NULL,
    begins bigint NOT NULL,
    ends bigint NOT NULL,
    page bigint,
    heading bytea,
    length bigint NOT NULL,
    terms tsvector
);


--
-- Name: passage_vector; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.passage_vector (
    place bigint NOT NULL,
    revision bigint NOT NULL,
    seq bigint NOT NULL,
    embedder text COLLATE pg_catalog."C",
    bits bit varying NOT NULL,
    value bytea NOT NULL
);
ALTER TABLE ONLY daram.passage_vector ALTER COLUMN value SET STORAGE EXTERNAL;


--
-- Name: record; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.record (
    owner text NOT NULL COLLATE pg_catalog."C",
    namespace text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    value bytea NOT NULL,
    etag text NOT NULL COLLATE pg_catalog."C",
    expires_at bigint
);


--
-- Name: revision; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.revision (
    id bigint NOT NULL,
    owner text NOT NULL COLLATE pg_catalog."C",
    collection text NOT NULL COLLATE pg_catalog."C",
    document text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    staged boolean DEFAULT true NOT NULL,
    staged_at bigint NOT NULL,
    embedder text COLLATE pg_catalog."C",
    place bigint NOT NULL
);


--
-- Name: revision_id_seq; Type: SEQUENCE; Schema: daram; Owner: -
--

ALTER TABLE daram.revision ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME daram.revision_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: tombstone; Type: TABLE; Schema: daram; Owner: -
--

CREATE TABLE daram.tombstone (
    key bytea NOT NULL,
    etag text NOT NULL COLLATE pg_catalog."C",
    deleted_at bigint NOT NULL
);


--
-- Data for Name: answer; Type: TABLE DATA; Schema: daram; Owner: -
--

INSERT INTO daram.answer VALUES ('\x2173ce73e1df521f7983104f4f58d696', 'a', 1, false, 'half of it', NULL, 'c81831cb7adfd25e47ba3092b15e23d2', '185c586c-6bb4-4db7-a727-e0014709f0e6 pid:[4026531836] 27535 5706156', false, 1795354499918409, 1795354499922196);


--
-- Data for Name: conversation; Type: TABLE DATA; Schema: daram; Owner: -
--

INSERT INTO daram.conversation VALUES ('\xa5683dafd2ad42e08ef2aaa10c6021c5', 'ann', 'branched', '다람쥐', '\x81a16ba176', false, false, 4, '38ff4ec0e1de74a7', 5, 5, 'l', true, true, 1795354499887884, 1795354499909806, 7289654400000000);
INSERT INTO daram.conversation VALUES ('\x2173ce73e1df521f7983104f4f58d696', 'ann', 'dead', NULL, NULL, false, false, 1, '12868cadbfa98a94', 1, 1, 'q', false, false, 1795354499917436, 1795354499917978, NULL);
INSERT INTO daram.conversation VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 'ben', 'straight', NULL, NULL, false, false, 1, '2bea278fe3a6a4e6', 30, 30, 'm29', false, false, 1795354499923459, 1795354499923586, NULL);


--
-- Data for Name: document; Type: TABLE DATA; Schema: daram; Owner: -
--



--
-- Data for Name: leaf; Type: TABLE DATA; Schema: daram; Owner: -
--

INSERT INTO daram.leaf VALUES ('\xa5683dafd2ad42e08ef2aaa10c6021c5', 2, 1);
INSERT INTO daram.leaf VALUES ('\xa5683dafd2ad42e08ef2aaa10c6021c5', 5, 3);


--
-- Data for Name: message; Type: TABLE DATA; Schema: daram; Owner: -
--

INSERT INTO daram.message VALUES ('\xa5683dafd2ad42e08ef2aaa10c6021c5', 1, 'q1', 0, NULL, 'user', 'question', '\x0181a16d81a161a162', 'complete', NULL, NULL, 1795354499894458, false, '''zHlfquestion'' ''zHlf§pWg9r9KtQuCO''');
INSERT INTO daram.message VALUES ('\xa5683dafd2ad42e08ef2aaa10c6021c5', 2, 'a1', 1, NULL, 'assistant', '다랑어', '\x0181a1709183a474797065a5696d616765a26964a170a46461746181a375726ca178', 'complete', NULL, NULL, 1795354499894458, false, '''zHlf§pWg9r9KtQuCO'' ''zHlf다랑'' ''zHlf랑어'' ''zHlf어''');
INSERT INTO daram.message VALUES ('\xa5683dafd2ad42e08ef2aaa10c6021c5', 3, 'q2', 0, NULL, 'user', 'edited', NULL, 'complete', NULL, NULL, 1795354499907041, false, '''zHlfedited'' ''zHlf§pWg9r9KtQuCO''');
INSERT INTO daram.message VALUES ('\xa5683dafd2ad42e08ef2aaa10c6021c5', 5, 'l', 4, NULL, 'user', 'last', NULL, 'complete', NULL, NULL, 1795354499909806, false, '''zHlflast'' ''zHlf§pWg9r9KtQuCO''');
INSERT INTO daram.message VALUES ('\xa5683dafd2ad42e08ef2aaa10c6021c5', 4, 'gone', 3, NULL, 'user', '', NULL, 'complete', NULL, NULL, 1795354499909806, true, NULL);
INSERT INTO daram.message VALUES ('\x2173ce73e1df521f7983104f4f58d696', 1, 'q', 0, NULL, 'user', 'asked', NULL, 'complete', NULL, NULL, 1795354499917978, false, '''zHlfasked'' ''zHlf§IXPOc-HfUh95''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 1, 'm0', 0, NULL, 'user', 'm0', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm0'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 2, 'm1', 1, NULL, 'user', 'm1', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm1'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 3, 'm2', 2, NULL, 'user', 'm2', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm2'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 4, 'm3', 3, NULL, 'user', 'm3', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm3'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 5, 'm4', 4, NULL, 'user', 'm4', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm4'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 6, 'm5', 5, NULL, 'user', 'm5', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm5'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 7, 'm6', 6, NULL, 'user', 'm6', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm6'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 8, 'm7', 7, NULL, 'user', 'm7', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm7'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 9, 'm8', 8, NULL, 'user', 'm8', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm8'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 10, 'm9', 9, NULL, 'user', 'm9', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm9'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 11, 'm10', 10, NULL, 'user', 'm10', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm10'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 12, 'm11', 11, NULL, 'user', 'm11', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm11'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 13, 'm12', 12, NULL, 'user', 'm12', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm12'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 14, 'm13', 13, NULL, 'user', 'm13', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm13'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 15, 'm14', 14, NULL, 'user', 'm14', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm14'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 16, 'm15', 15, NULL, 'user', 'm15', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm15'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 17, 'm16', 16, NULL, 'user', 'm16', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm16'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 18, 'm17', 17, NULL, 'user', 'm17', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm17'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 19, 'm18', 18, NULL, 'user', 'm18', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm18'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 20, 'm19', 19, NULL, 'user', 'm19', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm19'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 21, 'm20', 20, NULL, 'user', 'm20', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm20'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 22, 'm21', 21, NULL, 'user', 'm21', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm21'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 23, 'm22', 22, NULL, 'user', 'm22', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm22'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 24, 'm23', 23, NULL, 'user', 'm23', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm23'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 25, 'm24', 24, NULL, 'user', 'm24', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm24'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 26, 'm25', 25, NULL, 'user', 'm25', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm25'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 27, 'm26', 26, NULL, 'user', 'm26', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm26'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 28, 'm27', 27, NULL, 'user', 'm27', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm27'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 29, 'm28', 28, NULL, 'user', 'm28', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm28'' ''8EAS§2z_7wB5efgqi''');
INSERT INTO daram.message VALUES ('\xdb3ffbc01e5e7e0aa22f4cb998409873', 30, 'm29', 29, NULL, 'user', 'm29', NULL, 'complete', NULL, NULL, 1795354499923586, false, '''8EASm29'' ''8EAS§2z_7wB5efgqi''');


--
-- Data for Name: migration; Type: TABLE DATA; Schema: daram; Owner: -
--

INSERT INTO daram.migration VALUES (1, 'pre', 'tables', '732aee9dfb95f31142cece085e91b843b4d2bbfe41c76951572c8615a496c1f2', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (2, 'pre', 'walks', '34a908d2d2aa118dda141f78421e96ebfd36b310014083b59d26ae482b1a6a63', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (3, 'pre', 'changes', '85cebe9cfedcf506d2c705daea9606149e2ad13dae1e5acec6d6fbe06e363469', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (4, 'pre', 'messages', '506ee8e69570fb888fc7bb7d443b9a9e56de059c331dae87eb3921ba67136268', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (5, 'pre', 'turns', 'd65bccc26d71337b45627bb69464710472ad3743dba3e8d454e68942269ab662', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (6, 'pre', 'search', '1801dc4b98f7fd8b5f7c378e8787a7cf5ff312fe345fa078fc76c3e121d9eb9d', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (7, 'pre', 'usual', '407a5c0c4be12af5ee4ecd6eedc95b64cd80a7766e2c1044a3b8ef92aba777f3', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (8, 'pre', 'forks', 'c061918f063824773c8fae46be93c01a8ce9e3ffbb6a8e9a8e3720406b087895', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (9, 'pre', 'search_own', '353e5502014f35ba4416ebd200ad6e97ac58e2f2d80060f27c6bb1ccffb0f191', '2026-11-22 13:34:59.809362+00');
INSERT INTO daram.migration VALUES (10, 'pre', 'documents', 'ed1bde48dca230c9d1044ef7623ef23857775a2f15cc8f9424dab47084081594', '2026-11-22 13:34:59.809362+00');


--
-- Data for Name: passage; Type: TABLE DATA; Schema: daram; Owner: -
--



--
-- Data for Name: passage_vector; Type: TABLE DATA; Schema: daram; Owner: -
--



--
-- Data for Name: record; Type: TABLE DATA; Schema: daram; Owner: -
--

INSERT INTO daram.record VALUES ('ben', 'n', 'k', '\x00ff', '860d6ba54dfb7f18', NULL);


--
-- Data for Name: revision; Type: TABLE DATA; Schema: daram; Owner: -
--



--
-- Data for Name: tombstone; Type: TABLE DATA; Schema: daram; Owner: -
--

INSERT INTO daram.tombstone VALUES ('\x919a2e9728c0aeaf30036391d67351cc', 'd08b67403e8a70fe', 1795354499929566);


--
-- Name: revision_id_seq; Type: SEQUENCE SET; Schema: daram; Owner: -
--

SELECT pg_catalog.setval('daram.revision_id_seq', 1, false);


--
-- Name: answer answer_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.answer
    ADD CONSTRAINT answer_pkey PRIMARY KEY (conversation, id);


--
-- Name: conversation conversation_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.conversation
    ADD CONSTRAINT conversation_pkey PRIMARY KEY (key);


--
-- Name: document document_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.document
    ADD CONSTRAINT document_pkey PRIMARY KEY (owner, collection, id);


--
-- Name: leaf leaf_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.leaf
    ADD CONSTRAINT leaf_pkey PRIMARY KEY (conversation, seq);


--
-- Name: message message_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.message
    ADD CONSTRAINT message_pkey PRIMARY KEY (conversation, seq);


--
-- Name: migration migration_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (number);


--
-- Name: passage passage_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.passage
    ADD CONSTRAINT passage_pkey PRIMARY KEY (revision, seq);


--
-- Name: passage_vector passage_vector_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.passage_vector
    ADD CONSTRAINT passage_vector_pkey PRIMARY KEY (place, revision, seq);


--
-- Name: record record_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.record
    ADD CONSTRAINT record_pkey PRIMARY KEY (owner, namespace, key);


--
-- Name: revision revision_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.revision
    ADD CONSTRAINT revision_pkey PRIMARY KEY (id);


--
-- Name: tombstone tombstone_pkey; Type: CONSTRAINT; Schema: daram; Owner: -
--

ALTER TABLE ONLY daram.tombstone
    ADD CONSTRAINT tombstone_pkey PRIMARY KEY (key);


--
-- Name: conversation_expiry; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX conversation_expiry ON daram.conversation USING btree (expires_at) WHERE (expires_at IS NOT NULL);


--
-- Name: conversation_list; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX conversation_list ON daram.conversation USING btree (owner, updated_at DESC, key DESC);


--
-- Name: document_list; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX document_list ON daram.document USING btree (owner, collection, created_at DESC, id DESC);


--
-- Name: document_unfinished; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX document_unfinished ON daram.document USING btree (created_at, owner, collection, id) WHERE (state = ANY (ARRAY['waiting'::text, 'reading'::text]));


--
-- Name: message_erased; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX message_erased ON daram.message USING btree (conversation, seq) WHERE deleted;


--
-- Name: message_fork; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX message_fork ON daram.message USING btree (conversation, seq, parent) WHERE (parent <> (seq - 1));


--
-- Name: message_id; Type: INDEX; Schema: daram; Owner: -
--

CREATE UNIQUE INDEX message_id ON daram.message USING btree (conversation, id);


--
-- Name: message_question; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX message_question ON daram.message USING btree (conversation, question, seq) WHERE (question IS NOT NULL);


--
-- Name: message_sibling; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX message_sibling ON daram.message USING btree (conversation, parent, seq) WHERE (parent <> (seq - 1));


--
-- Name: message_terms; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX message_terms ON daram.message USING gin (terms) WITH (gin_pending_list_limit='256');


--
-- Name: passage_terms; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX passage_terms ON daram.passage USING gin (terms) WITH (gin_pending_list_limit='256');


--
-- Name: record_expiry; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX record_expiry ON daram.record USING btree (expires_at) WHERE (expires_at IS NOT NULL);


--
-- Name: revision_embedder; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX revision_embedder ON daram.revision USING btree (place, embedder);


--
-- Name: revision_name; Type: INDEX; Schema: daram; Owner: -
--

CREATE UNIQUE INDEX revision_name ON daram.revision USING btree (owner, collection, document, name);


--
-- Name: revision_staged; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX revision_staged ON daram.revision USING btree (staged_at) WHERE staged;


--
-- Name: revision_unseen; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX revision_unseen ON daram.revision USING btree (place) WHERE staged;


--
-- Name: tombstone_age; Type: INDEX; Schema: daram; Owner: -
--

CREATE INDEX tombstone_age ON daram.tombstone USING btree (deleted_at);


--
-- PostgreSQL database dump complete
--


