-- As in 0006, but only what is the owner's counts at all. Some owners share the beginning of their terms: what one of
-- them wrote filled the p_common places of another, and entered the scores.
--
-- Whose a message is, is asked with a subquery and not a join, so that no plan can start from the owner's conversations.
CREATE OR REPLACE FUNCTION search_any(p_owner text, p_key bytea, p_queries tsquery[], p_common bigint, p_limit bigint)
RETURNS TABLE (conversation text, title text, score double precision, seq bigint, id text, parent bigint, parent_id text,
               role text, text text, body bytea, status text, model text, tokens bigint, created_at bigint)
LANGUAGE sql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off AS
$$
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
