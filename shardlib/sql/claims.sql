-- name: insert
-- Claim a free value; no row means that somebody stands there.
INSERT INTO shardlib.identifier (value, owner, token, state, request_id) VALUES ($1, $2, $3, 'pending', $4)
ON CONFLICT (value) DO NOTHING RETURNING token;

-- name: entry
-- Who claims or holds a value.
SELECT owner, token, state, request_id FROM shardlib.identifier WHERE value = $1;

-- name: replace
-- Take a value over from a claim that is settled; no row means that somebody else was first.
UPDATE shardlib.identifier SET owner = $3, token = $4, state = 'pending', request_id = $5, claimed_at = now()
 WHERE value = $1 AND token = $2 RETURNING token;

-- name: confirm
-- Mark a claim as committed, unless it was taken over.
UPDATE shardlib.identifier SET state = 'committed' WHERE value = $1 AND token = $2;

-- name: remove
-- Free a value whose claim is settled, unless it was taken over.
DELETE FROM shardlib.identifier WHERE value = $1 AND token = $2;

-- name: commit
-- Decide for a claim, in the transaction that makes its value the owner's; no row means that it is too late.
INSERT INTO shardlib.claim_decision (keyspace, bucket, owner, token, outcome)
SELECT $1, $2, $3, $4, 'commit'
 WHERE to_timestamp(('x' || translate(left($4::uuid::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
       BETWEEN clock_timestamp() - interval '1 day' AND clock_timestamp() + interval '1 day'
ON CONFLICT (keyspace, bucket, owner, token) DO NOTHING RETURNING outcome;

-- name: abort
-- Decide against a claim, after waiting for a decision in flight; no row means that one stands.
INSERT INTO shardlib.claim_decision (keyspace, bucket, owner, token, outcome) VALUES ($1, $2, $3, $4, 'abort')
ON CONFLICT (keyspace, bucket, owner, token) DO NOTHING RETURNING outcome;

-- name: outcome
-- What was decided about a claim.
SELECT outcome FROM shardlib.claim_decision WHERE keyspace = $1 AND bucket = $2 AND owner = $3 AND token = $4;

-- name: forgotten
-- Claims that nobody finished: the oldest first.
SELECT value, owner, token, state, request_id, claimed_at FROM shardlib.identifier
 WHERE state = 'pending' AND claimed_at < now() - make_interval(secs => $1) AND /*mine:value*/
 ORDER BY claimed_at LIMIT $2;
