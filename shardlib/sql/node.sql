-- The bookkeeping of a node, format 1: one set of plain tables for all keyspaces. May be run again.
CREATE SCHEMA IF NOT EXISTS shardlib;

CREATE TABLE IF NOT EXISTS shardlib.node (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    name text NOT NULL,
    format integer NOT NULL,
    floor_epoch bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN shardlib.node.floor_epoch IS 'The oldest snapshot that may still talk to this node';

CREATE TABLE IF NOT EXISTS shardlib.keyspace (
    name text PRIMARY KEY,
    hash text NOT NULL,
    buckets integer NOT NULL,
    bucket_sql text NOT NULL
);
COMMENT ON COLUMN shardlib.keyspace.bucket_sql IS 'The bucket of a key, as SQL; %s stands for the key column';

CREATE TABLE IF NOT EXISTS shardlib.attached_table (
    table_name text PRIMARY KEY,
    keyspace text NOT NULL REFERENCES shardlib.keyspace,
    key_column name NOT NULL
);
COMMENT ON TABLE shardlib.attached_table IS 'The tables of each keyspace, with the column that holds the key';

CREATE TABLE IF NOT EXISTS shardlib.foreign_bucket (
    keyspace text NOT NULL,
    bucket integer NOT NULL,
    move text NOT NULL,
    attempt integer NOT NULL,
    PRIMARY KEY (keyspace, bucket, move, attempt)
);
COMMENT ON TABLE shardlib.foreign_bucket IS 'Buckets of which rows may lie here although this node does not own them';

CREATE TABLE IF NOT EXISTS shardlib.gained_bucket (
    keyspace text NOT NULL,
    bucket integer NOT NULL,
    epoch bigint NOT NULL,
    PRIMARY KEY (keyspace, bucket)
);
COMMENT ON TABLE shardlib.gained_bucket IS 'Since which epoch this node owns a bucket that it gained';
CREATE INDEX IF NOT EXISTS gained_bucket_epoch ON shardlib.gained_bucket (keyspace, epoch);

CREATE TABLE IF NOT EXISTS shardlib.request (
    keyspace text NOT NULL,
    bucket integer NOT NULL,
    id text NOT NULL,
    fingerprint text NOT NULL,
    answer bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (keyspace, bucket, id)
);
COMMENT ON TABLE shardlib.request IS 'Answers of requests that carried an id, for their retries';

CREATE OR REPLACE FUNCTION shardlib.timeline() RETURNS integer
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE WHEN pg_is_in_recovery()
              THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), (pg_control_checkpoint()).timeline_id)
              ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END $$;
COMMENT ON FUNCTION shardlib.timeline IS 'The timeline that this server writes, or replays';

CREATE TABLE IF NOT EXISTS shardlib.branch (
    timeline integer PRIMARY KEY,
    lsn bigint NOT NULL
);
COMMENT ON TABLE shardlib.branch IS 'Where each timeline left the one before it: what that wrote further on was lost';

-- After a promotion the replay position stands still at the branch, until the server is started again.
CREATE OR REPLACE FUNCTION shardlib.note_branch() RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ INSERT INTO shardlib.branch (timeline, lsn)
          SELECT shardlib.timeline(), (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint
           WHERE pg_last_wal_replay_lsn() IS NOT NULL
          ON CONFLICT DO NOTHING $$;
COMMENT ON FUNCTION shardlib.note_branch IS 'Remember where the present timeline began, unless that is known';
REVOKE EXECUTE ON FUNCTION shardlib.note_branch() FROM PUBLIC;

CREATE OR REPLACE FUNCTION shardlib.write_lost(timeline integer, lsn bigint) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$ SELECT EXISTS (SELECT FROM shardlib.branch b WHERE b.timeline > $1 AND b.lsn < $2) $$;
COMMENT ON FUNCTION shardlib.write_lost IS 'Whether a failover lost what was written at that position of that timeline';

CREATE OR REPLACE FUNCTION shardlib.owned(keyspace text, bucket integer, epoch bigint) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$ SELECT NOT EXISTS (SELECT FROM shardlib.foreign_bucket f WHERE f.keyspace = $1 AND f.bucket = $2)
             AND NOT EXISTS (SELECT FROM shardlib.gained_bucket g
                              WHERE g.keyspace = $1 AND g.bucket = $2 AND g.epoch > $3) $$;
COMMENT ON FUNCTION shardlib.owned IS 'Whether this node owns the bucket and did so at that epoch';

CREATE OR REPLACE FUNCTION shardlib.attach(keyspace text, table_name regclass, key_column name) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    qualified text := (SELECT format('%I.%I', n.nspname, c.relname)
                         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $2);
    kind "char" := (SELECT relkind FROM pg_class WHERE oid = $2);
BEGIN
    IF NOT EXISTS (SELECT FROM shardlib.keyspace k WHERE k.name = $1) THEN
        RAISE 'there is no keyspace %', $1 USING ERRCODE = 'undefined_object',
            HINT = 'create it first: shardctl create-keyspace';
    END IF;
    IF kind <> 'r' THEN
        RAISE '% is not a plain table', qualified USING ERRCODE = 'wrong_object_type',
            HINT = 'keyspaces hold plain tables: buckets are a predicate, partitions would cost every read';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute a
                    WHERE a.attrelid = $2 AND a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped) THEN
        RAISE '% has no column %', qualified, $3 USING ERRCODE = 'undefined_column';
    END IF;
    INSERT INTO shardlib.attached_table (table_name, keyspace, key_column) VALUES (qualified, $1, $3)
    ON CONFLICT ON CONSTRAINT attached_table_pkey DO UPDATE SET keyspace = $1, key_column = $3;
END $$;
COMMENT ON FUNCTION shardlib.attach IS 'Declare a table to a keyspace, with the column that holds the key';
