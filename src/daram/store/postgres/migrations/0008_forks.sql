-- Conversations with thousands of forks: what looked at each of them again for every other one looks at each once.

-- The last seq of the run that p_seq is in.
CREATE FUNCTION run_end(p_key bytea, p_seq bigint) RETURNS bigint LANGUAGE sql STABLE AS
$$
SELECT coalesce((
    SELECT seq - 1 FROM message WHERE conversation = p_key AND seq > p_seq AND parent <> seq - 1 ORDER BY seq LIMIT 1),
    9223372036854775807)
$$;

-- The leaf last used among those whose path goes through p_seq. From p_seq up, run by run (see run_at), through what grew
-- out of it, and nothing else; not from every leaf down. OFFSET 0: each run is looked up by the index, whatever the
-- planner thinks that there is.
CREATE OR REPLACE FUNCTION leaf_under(p_key bytea, p_seq bigint, p_head bigint, p_branched boolean) RETURNS bigint
LANGUAGE plpgsql STABLE AS
$$
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

-- As in 0002, but for the runs: they are put behind one another, the newest first, and gone through from behind. To put
-- one in front of an array moves all that is in it.
CREATE OR REPLACE FUNCTION page(
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
