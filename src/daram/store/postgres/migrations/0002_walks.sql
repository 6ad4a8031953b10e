-- Walks along the branches of one conversation. Functions, because their plans are kept between calls where prepared
-- statements cannot be used (a pooler in transaction mode), and because one call is one round trip.
--
-- Those that are called from outside settle three things for themselves, whatever the session's are: where their tables
-- are; no sequential scan (a plan made while a table was small would read all of it once it is large); generic plans.
-- What runs in every turn is written out where it runs: a call of one function by another costs as much as a look-up.

CREATE FUNCTION name_of(p_key bytea, p_seq bigint) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT id FROM message WHERE conversation = p_key AND seq = p_seq $$;

-- A piece of a run, newest first, at most p_count messages; the deleted ("erased") are among them.
CREATE FUNCTION run_down(p_key bytea, p_low bigint, p_high bigint, p_count bigint) RETURNS SETOF reply
LANGUAGE sql STABLE AS
$$
SELECT CASE WHEN deleted THEN 'erased' ELSE 'message' END, NULL::bigint, NULL::text, NULL::text, seq, id, parent,
       NULL::text, role, text, body, status, model, tokens, created_at, NULL::text, NULL::text, NULL::boolean, NULL::bigint
FROM message
WHERE conversation = p_key AND seq BETWEEN p_low AND p_high
ORDER BY seq DESC LIMIT p_count
$$;

-- The messages of a run that were not deleted, oldest first, each with its parent's id.
CREATE FUNCTION run_up(p_key bytea, p_low bigint, p_high bigint, p_limit bigint) RETURNS SETOF reply
LANGUAGE sql STABLE AS
$$
SELECT 'message', NULL::bigint, NULL::text, NULL::text, m.seq, m.id, m.parent,
       CASE WHEN lag(m.seq) OVER w = m.parent THEN lag(m.id) OVER w ELSE name_of(p_key, m.parent) END,
       m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at, NULL::text, NULL::text, NULL::boolean,
       NULL::bigint
FROM (SELECT * FROM message
      WHERE conversation = p_key AND seq BETWEEN p_low AND p_high AND NOT deleted
      ORDER BY seq LIMIT p_limit) m
WINDOW w AS (ORDER BY m.seq)
$$;

-- One message, whatever became of it.
CREATE FUNCTION one_message(p_kind text, p_key bytea, p_seq bigint) RETURNS SETOF reply LANGUAGE sql STABLE AS
$$
SELECT p_kind, NULL::bigint, NULL::text, NULL::text, m.seq, m.id, m.parent, name_of(p_key, m.parent),
       m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at, NULL::text, NULL::text, NULL::boolean,
       NULL::bigint
FROM message m WHERE m.conversation = p_key AND m.seq = p_seq
$$;

-- One running answer: text, model and moments in their columns, its question as the parent.
CREATE FUNCTION one_answer(p_kind text, p_key bytea, p_answer text) RETURNS SETOF reply LANGUAGE sql STABLE AS
$$
SELECT p_kind, NULL::bigint, NULL::text, NULL::text, NULL::bigint, a.id, a.question, name_of(p_key, a.question),
       NULL::text, a.text, NULL::bytea, NULL::text, a.model, NULL::bigint, a.created_at, a.token, a.process,
       a.cancel, a.lease_until
FROM answer a WHERE a.conversation = p_key AND a.id = p_answer
$$;

-- The path from a leaf to the root as runs of consecutive seq, the newest first: where the run begins that p_high is in,
-- and where the path goes on below it (0: nowhere).
CREATE FUNCTION run_at(p_key bytea, p_high bigint, p_branched boolean, OUT low bigint, OUT below bigint)
LANGUAGE plpgsql STABLE AS
$$
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

-- Whether p_seq is p_leaf or one of its ancestors.
CREATE FUNCTION is_on_path(p_key bytea, p_seq bigint, p_leaf bigint, p_branched boolean) RETURNS boolean
LANGUAGE plpgsql STABLE AS
$$
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

-- The leaf last used among those whose path goes through p_seq.
CREATE FUNCTION leaf_under(p_key bytea, p_seq bigint, p_head bigint, p_branched boolean) RETURNS bigint
LANGUAGE plpgsql STABLE AS
$$
DECLARE
    v_leaf bigint;
BEGIN
    IF NOT p_branched THEN
        RETURN p_head;
    END IF;
    FOR v_leaf IN SELECT seq FROM leaf WHERE conversation = p_key ORDER BY used DESC, seq DESC LOOP
        IF is_on_path(p_key, p_seq, v_leaf, true) THEN
            RETURN v_leaf;
        END IF;
    END LOOP;
    RETURN p_seq;
END
$$;

-- The end of the path to p_leaf, newest first: p_limit messages, the deleted between them, and one more, so that the
-- parent of each is the row behind it. (Where nothing has branched or was deleted it is one run_down.)
CREATE FUNCTION last_messages(p_key bytea, p_leaf bigint, p_branched boolean, p_limit bigint) RETURNS SETOF reply
LANGUAGE plpgsql STABLE AS
$$
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

-- The conversation of this owner, or a row of NULLs. The key is a digest: the names are compared too, so that not even a
-- collision could mix two owners.
CREATE FUNCTION find_conversation(p_key bytea, p_owner text, p_id text) RETURNS conversation LANGUAGE plpgsql STABLE AS
$$
DECLARE
    v conversation;
BEGIN
    SELECT * INTO v FROM conversation
    WHERE key = p_key AND owner = p_owner AND id = p_id AND (expires_at IS NULL OR expires_at > micros());
    RETURN v;
END
$$;

CREATE FUNCTION tail(p_key bytea, p_owner text, p_id text, p_limit bigint) RETURNS SETOF reply
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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

-- One page of a branch behind (p_after, p_leaf); p_after = 0: from its beginning or end. The first row's seq is the leaf
-- of the branch that was read.
CREATE FUNCTION page(
    p_key bytea, p_owner text, p_id text, p_limit bigint, p_descending boolean, p_after bigint, p_leaf bigint
) RETURNS SETOF reply
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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
        v_lows := v_low || v_lows;
        v_highs := v_high || v_highs;
        v_high := v_below;
    END LOOP;
    FOR i IN 1 .. cardinality(v_lows) LOOP
        RETURN QUERY SELECT * FROM run_up(p_key, greatest(v_lows[i], p_after + 1), v_highs[i], v_left);
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
        EXIT WHEN v_left <= 0;
    END LOOP;
END
$$;

-- The messages that follow p_seq directly (0: the first messages), deleted ones included.
CREATE FUNCTION children(p_key bytea, p_seq bigint) RETURNS SETOF message LANGUAGE sql STABLE AS
$$
SELECT * FROM message WHERE conversation = p_key AND seq = p_seq + 1 AND parent = p_seq
UNION ALL
SELECT * FROM message WHERE conversation = p_key AND parent = p_seq AND parent <> seq - 1
$$;

-- A message and its siblings, oldest first, without the deleted.
CREATE FUNCTION siblings(p_key bytea, p_owner text, p_id text, p_message text) RETURNS SETOF reply
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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
