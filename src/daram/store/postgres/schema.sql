-- What schema.py asks and does; {schema} becomes the quoted name of the schema, %s is psycopg's.

-- name: identify
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1),
       (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1),
       (SELECT obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = 'migration'),
       current_setting('server_version_num')::integer,
       current_setting('server_encoding');

-- name: ledger
SELECT number, phase, checksum FROM {schema}.migration ORDER BY number;

-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended(%s, 0));

-- name: make
CREATE SCHEMA {schema};

-- name: begin
CREATE TABLE IF NOT EXISTS {schema}.migration (
    number     integer PRIMARY KEY,
    phase      text NOT NULL,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE {schema}.migration IS 'Daram: the steps that made this schema';

-- name: enter
SELECT set_config('search_path', quote_ident(%s) || ', pg_temp', true),
       set_config('statement_timeout', '0', true);  -- an index of a large table takes its time

-- name: enlist
INSERT INTO migration (number, phase, name, checksum) VALUES (%s, %s, %s, %s);
