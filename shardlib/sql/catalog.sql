-- name: position
-- The catalog's incarnation (its timeline), epoch and format: what each poll asks.
SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer AS incarnation, epoch, format
  FROM shardlib.catalog;

-- name: nodes
-- All nodes.
SELECT name, url, admin_url, replication_url, replicas, weight, region, zone FROM shardlib.node ORDER BY name;

-- name: keyspaces
-- All keyspaces with their owners in bucket order.
SELECT k.name, k.hash, k.buckets, array_agg(b.node ORDER BY b.bucket) AS owners
  FROM shardlib.keyspace k JOIN shardlib.bucket b ON b.keyspace = k.name
 GROUP BY k.name ORDER BY k.name;

-- name: marked_buckets
-- The buckets that have ever moved or are flagged as moving.
SELECT keyspace, bucket, node, since_epoch, since_timeline, since_lsn, move
  FROM shardlib.bucket WHERE since_epoch IS NOT NULL OR move IS NOT NULL;

-- name: raise_epoch
-- Compare-and-set on the epoch: no row means that somebody else was first.
UPDATE shardlib.catalog SET epoch = epoch + 1 WHERE epoch = $1 RETURNING epoch;

-- name: announce
-- Tell listeners that the epoch rose; a hint only, they poll as well.
SELECT pg_notify('shardlib_topology', $1::text);

-- name: put_node
-- Add a node or replace what is known of it.
INSERT INTO shardlib.node (name, url, admin_url, replication_url, replicas, weight, region, zone)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (name) DO UPDATE SET url = $2, admin_url = $3, replication_url = $4, replicas = $5, weight = $6,
       region = $7, zone = $8;

-- name: remove_node
-- Forget a node; the foreign key refuses while it owns a bucket.
DELETE FROM shardlib.node WHERE name = $1 RETURNING name;

-- name: put_keyspace
-- Add a keyspace.
INSERT INTO shardlib.keyspace (name, hash, buckets) VALUES ($1, $2, $3);

-- name: put_owners
-- Give each bucket of a new keyspace its first owner; $2 is in bucket order.
INSERT INTO shardlib.bucket (keyspace, bucket, node)
SELECT $1, ordinality - 1, node FROM unnest($2::text[]) WITH ORDINALITY AS owner (node, ordinality);
