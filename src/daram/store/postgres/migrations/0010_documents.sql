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
    embedder   text COLLATE "C",                  -- that made the vectors staged with it; NULL before it is published
    place      bigint NOT NULL                    -- the collection, as a number: a digest of its owner and its name
);

CREATE UNIQUE INDEX revision_name ON revision (owner, collection, document, name);
CREATE INDEX revision_staged ON revision (staged_at) WHERE staged;
CREATE INDEX revision_unseen ON revision (place) WHERE staged;
CREATE INDEX revision_embedder ON revision (place, embedder);

CREATE TABLE passage (
    revision bigint NOT NULL,
    seq      bigint NOT NULL,
    text     text NOT NULL,
    begins   bigint NOT NULL,
    ends     bigint NOT NULL,
    page     bigint,
    heading  bytea,                               -- MessagePack, NULL when empty
    length   bigint NOT NULL,                     -- in terms
    terms    tsvector,                            -- see documents.py; NULL when there is nothing to find
    PRIMARY KEY (revision, seq)
);

CREATE INDEX passage_terms ON passage USING gin (terms) WITH (gin_pending_list_limit = 256);

-- Vectors, exactly and beside the row; and one bit of each number in it, by which all of a collection's are looked at:
-- they stand one behind the other in the index, however many documents they are of.
CREATE TABLE passage_vector (
    place    bigint NOT NULL,                     -- the revision's
    revision bigint NOT NULL,
    seq      bigint NOT NULL,
    embedder text COLLATE "C",                    -- NULL: the revision's
    bits     varbit NOT NULL,
    value    bytea NOT NULL,                      -- float32, little-endian, unit length
    PRIMARY KEY (place, revision, seq)
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

CREATE FUNCTION stage_passages(
    p_owner text, p_collection text, p_document text, p_name text, p_place bigint, p_seqs bigint[], p_texts text[],
    p_begins bigint[], p_ends bigint[], p_pages bigint[], p_headings bytea[], p_lengths bigint[], p_terms text[], p_vector_seqs bigint[],
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

CREATE FUNCTION publish_document(
    p_owner text, p_collection text, p_id text, p_name text, p_title text, p_media_type text, p_source text,
    p_digest text, p_bytes bigint, p_state text, p_error text, p_metadata bytea, p_etag text, p_revision text,
    p_place bigint, p_embedder text, p_expect text, OUT kind text, OUT d document
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

CREATE FUNCTION discard_revision(p_owner text, p_collection text, p_id text, p_name text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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

-- The rarest terms choose the best passages, as many terms as p_budget passages have together; the caller puts these in
-- order. Each query is one term (p_terms says which) in one collection, p_first of them for each collection. Of every term
-- p_probe passages are looked at: where that is not all, the place of the last of them in the table tells how rare it is,
-- so that the common ones need not be counted. having: how many passages have each term, as far as that was found out;
-- size: how many there are in the collections, of their first 10,000 documents.
-- What is staged has terms too, and is left out by its revision; whose a passage is, is looked at for the best only.
CREATE FUNCTION passages_with_any(
    p_owners text[], p_collections text[], p_places bigint[], p_queries tsquery[], p_terms bigint[], p_first bigint,
    p_probe bigint, p_budget bigint, p_limit bigint
)
RETURNS TABLE (owner text, collection text, document text, name text, title text, seq bigint, text text, begins bigint,
               ends bigint, page bigint, heading bytea, revision text, terms bigint[], having_term bigint[],
               average double precision, size bigint)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off SET enable_memoize = off
SET plan_cache_mode = force_generic_plan AS
$$
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

-- By the Hamming distance of the bits; the caller puts them in order by their values. A vector is by the model of its own,
-- or else of its revision: the revisions of other models, and those that are staged, are left out by their numbers.
-- OFFSET 0 keeps the steps apart, whatever the planner believes of how many there are.
CREATE FUNCTION near_passages(
    p_owners text[], p_collections text[], p_places bigint[], p_bits varbit, p_embedder text, p_limit bigint
)
RETURNS TABLE (owner text, collection text, document text, name text, title text, seq bigint, text text, begins bigint,
               ends bigint, page bigint, heading bytea, revision text, value bytea)
LANGUAGE sql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off SET enable_memoize = off AS
$$
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

CREATE FUNCTION put_vectors(
    p_owner text, p_collection text, p_id text, p_revision text, p_embedder text, p_seqs bigint[], p_bits text[],
    p_values bytea[]
) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS
$$
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
