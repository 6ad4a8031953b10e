-- Search. The terms of a message come from daram.text.analyzer; each begins with a few characters of its owner's key (see
-- index.py), so that a query, a beginning ("squir:*") included, touches only what its owner wrote.

-- Messages that match a query as a whole, best first: where all have all the words, the shorter says them more densely.
CREATE FUNCTION search_all(p_owner text, p_key bytea, p_query tsquery, p_limit bigint)
RETURNS TABLE (conversation text, title text, score double precision, seq bigint, id text, parent bigint, parent_id text,
               role text, text text, body bytea, status text, model text, tokens bigint, created_at bigint)
LANGUAGE sql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off AS
$$
SELECT c.id, c.title, 1 / ln(8 + octet_length(m.text)), m.seq, m.id, m.parent, name_of(m.conversation, m.parent),
       m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at
FROM message m JOIN conversation c ON c.key = m.conversation
WHERE m.terms @@ p_query AND (p_key IS NULL OR m.conversation = p_key)
      AND c.owner = p_owner AND (c.expires_at IS NULL OR c.expires_at > micros())
ORDER BY octet_length(m.text), m.created_at DESC, m.conversation, m.seq DESC
LIMIT p_limit
$$;

-- Messages that match any of the queries, best first, by BM25 (Robertson, Zaragoza 2009) with each word counted once.
-- A query that more than p_common messages match is looked at only where no rarer one matches anything: so the cost is
-- bounded, however much the owner wrote, and what is left out would hardly have counted.
CREATE FUNCTION search_any(p_owner text, p_key bytea, p_queries tsquery[], p_common bigint, p_limit bigint)
RETURNS TABLE (conversation text, title text, score double precision, seq bigint, id text, parent bigint, parent_id text,
               role text, text text, body bytea, status text, model text, tokens bigint, created_at bigint)
LANGUAGE sql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off AS
$$
WITH hit AS MATERIALIZED (
    SELECT q.n, m.conversation, m.seq, m.size
    FROM unnest(p_queries) WITH ORDINALITY AS q (query, n)
    CROSS JOIN LATERAL (
        SELECT conversation, seq, octet_length(text) AS size FROM message
        WHERE terms @@ q.query AND (p_key IS NULL OR conversation = p_key)
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
)
SELECT c.id, c.title, b.score, m.seq, m.id, m.parent, name_of(m.conversation, m.parent),
       m.role, m.text, m.body, m.status, m.model, m.tokens, m.created_at
FROM (
    SELECT b.conversation, b.seq, b.score, c.id, c.title FROM best b JOIN conversation c ON c.key = b.conversation
    WHERE c.owner = p_owner AND (c.expires_at IS NULL OR c.expires_at > micros())
    ORDER BY b.score DESC, b.conversation, b.seq DESC LIMIT p_limit
) b JOIN message m ON m.conversation = b.conversation AND m.seq = b.seq JOIN conversation c ON c.key = b.conversation
ORDER BY b.score DESC, b.conversation, b.seq DESC
$$;
