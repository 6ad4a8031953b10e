-- Documents. Whoever stages or publishes has the document's row: what is staged is all there when it is published.

CREATE TABLE document (
    owner      text COLLATE "C" NOT NULL,
    collection text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    name       text NOT NULL,
    title      text,
    media_type text,
    source     text,
    digest     text COLLATE "C" NOT NULL,
    bytes      bigint NOT NULL,
    state      text COLLATE "C" NOT NULL,
    error      text,
    metadata   bytea,                             -- MessagePack, NULL when empty
    embedder   text COLLATE "C",                  -- the model of which all passages have a vector
    revision   text COLLATE "C",                  -- the name of the published revision
    passages   bigint NOT NULL,
    etag       text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    live       bigint,                            -- the number of the published revision
    PRIMARY KEY (owner, collection, id)
);

CREATE INDEX document_list ON document (owner, collection, created_at DESC, id DESC);
CREATE INDEX document_unfinished ON document (created_at, owner, collection, id) WHERE state IN ('waiting', 'reading');

CREATE TABLE revision (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner      text COLLATE "C" NOT NULL,
    collection text COLLATE "C" NOT NULL,
    document   text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    staged     boolean NOT NULL DEFAULT true,
    staged_at  bigint NOT NULL,
    embedder   text COLLATE "C"                   -- that made the vectors staged with it
);

CREATE UNIQUE INDEX revision_name ON revision (owner, collection, document, name);
CREATE INDEX revision_staged ON revision (staged_at) WHERE staged;

CREATE TABLE passage (
    revision bigint NOT NULL,
    seq      bigint NOT NULL,
    text     text NOT NULL,
    begins   bigint NOT NULL,
    ends     bigint NOT NULL,
    page     bigint,
    heading  bytea,                               -- MessagePack, NULL when empty
    length   bigint NOT NULL,                     -- in terms
    terms    tsvector,                            -- see passages.py; NULL when there is nothing to find
    PRIMARY KEY (revision, seq)
);

CREATE INDEX passage_terms ON passage USING gin (terms) WITH (gin_pending_list_limit = 256);

-- Vectors, exactly and beside the row; and one bit of each number in it, by which all of a collection's are looked at.
CREATE TABLE passage_vector (
    revision bigint NOT NULL,
    seq      bigint NOT NULL,
    embedder text COLLATE "C",                    -- NULL: the revision's
    bits     varbit NOT NULL,
    value    bytea NOT NULL,                      -- float32, little-endian, unit length
    PRIMARY KEY (revision, seq)
);

ALTER TABLE passage_vector ALTER COLUMN value SET STORAGE EXTERNAL;

CREATE FUNCTION put_document(
    p_owner text, p_collection text, p_id text, p_name text, p_title text, p_media_type text, p_source text,
    p_digest text, p_bytes bigint, p_state text, p_error text, p_metadata bytea, p_etag text, p_any boolean, p_expect text
) RETURNS SETOF document LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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

CREATE FUNCTION drop_revisions(p_owner text, p_collection text, p_document text, p_keep bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v_id bigint;
BEGIN
    FOR v_id IN SELECT id FROM revision WHERE owner = p_owner AND collection = p_collection AND document = p_document
                                              AND id <> p_keep LOOP
        DELETE FROM passage WHERE revision = v_id;
        DELETE FROM passage_vector WHERE revision = v_id;
        DELETE FROM revision WHERE id = v_id;
    END LOOP;
END
$$;

CREATE FUNCTION stage_passages(
    p_owner text, p_collection text, p_document text, p_name text, p_seqs bigint[], p_texts text[], p_begins bigint[],
    p_ends bigint[], p_pages bigint[], p_headings bytea[], p_lengths bigint[], p_terms text[], p_vector_seqs bigint[],
    p_bits text[], p_values bytea[]
) RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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
    INSERT INTO revision AS r (owner, collection, document, name, staged_at)
    VALUES (p_owner, p_collection, p_document, p_name, micros())
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
    DELETE FROM passage_vector WHERE revision = v_id AND seq = ANY (p_seqs);
    INSERT INTO passage_vector (revision, seq, bits, value)
    SELECT v_id, v.seq, v.bits::varbit, v.value FROM unnest(p_vector_seqs, p_bits, p_values) AS v (seq, bits, value);
    RETURN 'staged';
END
$$;

CREATE FUNCTION publish_document(
    p_owner text, p_collection text, p_id text, p_name text, p_title text, p_media_type text, p_source text,
    p_digest text, p_bytes bigint, p_state text, p_error text, p_metadata bytea, p_etag text, p_revision text,
    p_embedder text, p_expect text, OUT kind text, OUT d document
) LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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
    INSERT INTO revision AS r (owner, collection, document, name, staged, staged_at, embedder)
    VALUES (p_owner, p_collection, p_id, p_revision, false, micros(), p_embedder)
    ON CONFLICT (owner, collection, document, name) DO UPDATE SET staged = false, embedder = excluded.embedder
    RETURNING r.id INTO v_id;
    PERFORM drop_revisions(p_owner, p_collection, p_id, v_id);
    SELECT count(*) INTO v_passages FROM passage p WHERE p.revision = v_id;
    SELECT count(*) INTO v_vectors FROM passage_vector v
    WHERE v.revision = v_id AND coalesce(v.embedder, p_embedder) = p_embedder;
    UPDATE document
    SET name = p_name, title = p_title, media_type = p_media_type, source = p_source, digest = p_digest, bytes = p_bytes,
        state = p_state, error = p_error, metadata = p_metadata, etag = p_etag, revision = p_revision, live = v_id,
        passages = v_passages, embedder = CASE WHEN v_vectors = v_passages AND v_passages > 0 THEN p_embedder END,
        updated_at = greatest(micros(), d.updated_at + 1)
    WHERE owner = p_owner AND collection = p_collection AND id = p_id RETURNING * INTO d;
END
$$;

CREATE FUNCTION discard_revision(p_owner text, p_collection text, p_id text, p_name text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    v_id bigint;
BEGIN
    PERFORM FROM document WHERE owner = p_owner AND collection = p_collection AND id = p_id FOR UPDATE;
    DELETE FROM revision WHERE owner = p_owner AND collection = p_collection AND document = p_id AND name = p_name
                               AND staged RETURNING id INTO v_id;
    DELETE FROM passage WHERE revision = v_id;
    DELETE FROM passage_vector WHERE revision = v_id;
END
$$;

-- The documents of an owner, of a collection or one (NULL: all); returns how many.
CREATE FUNCTION delete_documents(p_owner text, p_collection text, p_id text) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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

CREATE FUNCTION purge_staged(p_seconds bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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

-- Passages of published revisions that have all of a query; which, the caller's analyzer looks at again.
CREATE FUNCTION passages_with_all(p_owners text[], p_collections text[], p_queries tsquery[], p_limit bigint)
RETURNS TABLE (owner text, collection text, document text, name text, title text, seq bigint, text text, begins bigint,
               ends bigint, page bigint, heading bytea, revision text)
LANGUAGE sql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off AS
$$
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

-- As search_any (0009): the terms that few passages have choose the best ones; the caller puts these in order. Each query
-- is one term (p_terms says which) in one collection. having: of the passages with each term, p_common + 1 at most.
CREATE FUNCTION passages_with_any(
    p_owners text[], p_collections text[], p_queries tsquery[], p_terms bigint[], p_common bigint, p_limit bigint
)
RETURNS TABLE (owner text, collection text, document text, name text, title text, seq bigint, text text, begins bigint,
               ends bigint, page bigint, heading bytea, revision text, terms bigint[], having_term bigint[], average double precision)
LANGUAGE sql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off AS
$$
WITH hit AS MATERIALIZED (
    SELECT q.term, p.revision, p.seq, p.length
    FROM unnest(p_owners, p_collections, p_queries, p_terms) AS q (owner, collection, query, term)
    CROSS JOIN LATERAL (
        SELECT p.revision, p.seq, p.length FROM passage p
        WHERE p.terms @@ q.query
          AND (SELECT r.owner = q.owner AND r.collection = q.collection AND NOT r.staged
               FROM revision r WHERE r.id = p.revision)
        LIMIT p_common + 1) p
), frequency AS (
    SELECT term, count(*) AS df FROM hit GROUP BY term
), chosen AS (
    SELECT term, df FROM frequency
    WHERE df <= p_common OR NOT EXISTS (SELECT FROM frequency WHERE df <= p_common)
), corpus AS (
    SELECT greatest(avg(length), 1)::double precision AS length, count(*)::double precision AS hits FROM hit
), best AS (
    SELECT h.revision, h.seq,
           sum(ln(1 + w.hits / f.df) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * h.length / w.length))) AS score
    FROM hit h JOIN chosen f ON f.term = h.term CROSS JOIN corpus w
    GROUP BY h.revision, h.seq
    ORDER BY score DESC, h.revision, h.seq LIMIT p_limit
)
SELECT d.owner, d.collection, d.id, d.name, d.title, p.seq, p.text, p.begins, p.ends, p.page, p.heading,
       d.revision, f.terms, f.having_term, w.length
FROM best b
JOIN passage p ON p.revision = b.revision AND p.seq = b.seq
JOIN revision r ON r.id = p.revision
JOIN document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = r.id
CROSS JOIN corpus w
CROSS JOIN (SELECT array_agg(term) AS terms, array_agg(df) AS having_term FROM frequency) f
$$;

-- By the Hamming distance of the bits; the caller puts them in order by their values. OFFSET 0 keeps the steps apart:
-- document by document, and of each one its vectors by their key, whatever the planner believes of how many there are.
CREATE FUNCTION near_passages(p_owners text[], p_collections text[], p_bits varbit, p_embedder text, p_limit bigint)
RETURNS TABLE (owner text, collection text, document text, name text, title text, seq bigint, text text, begins bigint,
               ends bigint, page bigint, heading bytea, revision text, value bytea)
LANGUAGE sql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off AS
$$
SELECT d.owner, d.collection, d.id, d.name, d.title, p.seq, p.text, p.begins, p.ends, p.page, p.heading,
       d.revision, v.value
FROM (
    SELECT d.live, v.seq
    FROM unnest(p_owners, p_collections) AS q (owner, collection)
    CROSS JOIN LATERAL (
        SELECT d.live FROM document d WHERE d.owner = q.owner AND d.collection = q.collection AND d.live IS NOT NULL
        OFFSET 0) d
    CROSS JOIN LATERAL (SELECT r.embedder FROM revision r WHERE r.id = d.live OFFSET 0) r
    CROSS JOIN LATERAL (
        SELECT v.seq, v.embedder, v.bits FROM passage_vector v WHERE v.revision = d.live OFFSET 0) v
    WHERE coalesce(v.embedder, r.embedder) = p_embedder AND length(v.bits) = length(p_bits)
    ORDER BY CASE WHEN length(v.bits) = length(p_bits) THEN bit_count(v.bits # p_bits) END LIMIT p_limit
) n
CROSS JOIN LATERAL (
    SELECT v.value FROM passage_vector v WHERE v.revision = n.live AND v.seq = n.seq OFFSET 0) v
CROSS JOIN LATERAL (
    SELECT p.* FROM passage p WHERE p.revision = n.live AND p.seq = n.seq OFFSET 0) p
CROSS JOIN LATERAL (
    SELECT d.owner, d.collection, d.id, d.name, d.title, d.revision FROM revision r
    JOIN document d ON d.owner = r.owner AND d.collection = r.collection AND d.id = r.document AND d.live = r.id
    WHERE r.id = n.live OFFSET 0) d
$$;

CREATE FUNCTION put_vectors(
    p_owner text, p_collection text, p_id text, p_revision text, p_embedder text, p_seqs bigint[], p_bits text[],
    p_values bytea[]
) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
    d document;
    v_count bigint;
BEGIN
    SELECT * INTO d FROM document WHERE owner = p_owner AND collection = p_collection AND id = p_id FOR UPDATE;
    IF NOT FOUND OR d.revision IS DISTINCT FROM p_revision THEN
        RETURN;
    END IF;
    INSERT INTO passage_vector (revision, seq, embedder, bits, value)
    SELECT d.live, v.seq, p_embedder, v.bits::varbit, v.value
    FROM unnest(p_seqs, p_bits, p_values) AS v (seq, bits, value)
    JOIN passage p ON p.revision = d.live AND p.seq = v.seq
    ON CONFLICT (revision, seq) DO UPDATE
    SET embedder = excluded.embedder, bits = excluded.bits, value = excluded.value;
    SELECT count(*) INTO v_count FROM passage_vector v JOIN revision r ON r.id = v.revision
    WHERE v.revision = d.live AND coalesce(v.embedder, r.embedder) = p_embedder;
    UPDATE document SET embedder = CASE WHEN v_count = d.passages THEN p_embedder END
    WHERE owner = p_owner AND collection = p_collection AND id = p_id;
END
$$;
