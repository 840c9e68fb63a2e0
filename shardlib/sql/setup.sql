-- name: one_at_a_time
-- Two installers of one database wait for each other.
SELECT pg_advisory_xact_lock(hashtextextended('shardlib setup', 0));

-- name: grant_catalog
-- The application reads the catalog, nothing more.
GRANT USAGE ON SCHEMA shardlib TO :role;
GRANT SELECT ON ALL TABLES IN SCHEMA shardlib TO :role;

-- name: name_node
-- Say which node this database is; the row that stands there wins.
INSERT INTO shardlib.node (name, format) VALUES ($1, $2)
ON CONFLICT (singleton) DO UPDATE SET format = greatest(node.format, excluded.format)
RETURNING name, format;

-- name: grant_node
-- The application reads the bookkeeping, and writes what belongs to its keys; never TRUNCATE, never another key.
-- What earlier versions granted is taken back first.
GRANT USAGE ON SCHEMA shardlib TO :role;
REVOKE ALL ON shardlib.request, shardlib.claim_decision, shardlib.identifier FROM :role;
GRANT SELECT ON ALL TABLES IN SCHEMA shardlib TO :role;
GRANT INSERT, DELETE, UPDATE (answer, created_at) ON shardlib.request TO :role;
GRANT INSERT, DELETE ON shardlib.claim_decision TO :role;
GRANT INSERT, DELETE, UPDATE (owner, token, state, request_id, claimed_at) ON shardlib.identifier TO :role;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA shardlib TO :role;
REVOKE EXECUTE ON FUNCTION shardlib.attach(text, regclass, name) FROM PUBLIC, :role;

-- name: put_keyspace
-- Make a keyspace known on a node.
INSERT INTO shardlib.keyspace (name, hash, buckets, bucket_sql) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET hash = $2, buckets = $3, bucket_sql = $4;
