-- The catalog: who owns which bucket, at which epoch. May be run again.
CREATE SCHEMA IF NOT EXISTS shardlib;

CREATE TABLE IF NOT EXISTS shardlib.catalog (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    format integer NOT NULL,
    epoch bigint NOT NULL
);
COMMENT ON TABLE shardlib.catalog IS 'One row: the format of this schema, and the epoch of the topology';
INSERT INTO shardlib.catalog (format, epoch) VALUES (1, 0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS shardlib.node (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,30}$'),
    url text NOT NULL,
    admin_url text NOT NULL DEFAULT '',
    replication_url text NOT NULL DEFAULT '',
    replicas text[] NOT NULL DEFAULT '{}',
    weight double precision NOT NULL DEFAULT 1 CHECK (weight >= 0),
    region text NOT NULL DEFAULT '',
    zone text NOT NULL DEFAULT ''
);
COMMENT ON TABLE shardlib.node IS 'Addresses of the nodes; never a password';

CREATE TABLE IF NOT EXISTS shardlib.keyspace (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,30}$'),
    hash text NOT NULL,
    buckets integer NOT NULL CHECK (buckets BETWEEN 1 AND 65536 AND buckets & (buckets - 1) = 0)
);

CREATE TABLE IF NOT EXISTS shardlib.bucket (
    keyspace text NOT NULL REFERENCES shardlib.keyspace,
    bucket integer NOT NULL,
    node text NOT NULL REFERENCES shardlib.node,
    since_epoch bigint,
    since_timeline integer,
    since_lsn bigint,
    move text,
    PRIMARY KEY (keyspace, bucket)
);
COMMENT ON COLUMN shardlib.bucket.since_epoch IS 'The epoch at which its owner gained it; NULL for the first owner';
COMMENT ON COLUMN shardlib.bucket.move IS 'The move that flags it as moving, if any';
