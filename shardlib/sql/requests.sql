-- name: enter
-- Begin a request under its id; no row means that a twin was here before (it waits for one in flight).
INSERT INTO shardlib.request (keyspace, bucket, id, fingerprint) VALUES ($1, $2, $3, $4)
ON CONFLICT (keyspace, bucket, id) DO NOTHING RETURNING true;

-- name: answer
-- The stored answer of the twin.
SELECT fingerprint, answer FROM shardlib.request WHERE keyspace = $1 AND bucket = $2 AND id = $3;

-- name: again
-- Touch the answer that is handed out again, so that this COMMIT waits for the standby that the first may not have.
UPDATE shardlib.request SET created_at = created_at WHERE keyspace = $1 AND bucket = $2 AND id = $3;

-- name: has_changed_anything
-- Whether the transaction has changed anything so far, in this database.
SELECT pg_current_xact_id_if_assigned() IS NOT NULL;

-- name: leave
-- Keep the answer for retries, in the transaction that it describes.
UPDATE shardlib.request SET answer = $4 WHERE keyspace = $1 AND bucket = $2 AND id = $3;
