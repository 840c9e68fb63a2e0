-- name: claim
-- Claim the free ones among many values; the others don't come back.
WITH claimed AS (
    INSERT INTO shardlib.identifier (value, owner, token, state, request_id)
    SELECT value, owner, $4, 'committed', request_id
      FROM unnest(string_to_array($1::text, E'\x1f'), string_to_array($2::text, E'\x1f'),
                  string_to_array($3::text, E'\x1f', '')) AS wanted (value, owner, request_id)
    ON CONFLICT (value) DO NOTHING RETURNING value
) SELECT string_agg(value, E'\x1f') FROM claimed;

-- name: plan_afresh
-- In this transaction: a plan that was kept from when the table was small reads all of it, now that it is large.
SET LOCAL plan_cache_mode = force_custom_plan;

-- name: standing
-- Who claims or holds each of many values.
SELECT value, owner, token, state, request_id FROM shardlib.identifier
 WHERE value = ANY((SELECT string_to_array($1::text, E'\x1f'))::text[]);

-- name: decide
-- Decide for the claims of many owners under one token; owners for whom it is too late don't come back.
WITH decided AS (
    INSERT INTO shardlib.claim_decision (keyspace, bucket, owner, token, outcome)
    SELECT $1, bucket, owner, $4, 'commit'
      FROM unnest(string_to_array($2::text, E'\x1f')::integer[], string_to_array($3::text, E'\x1f'))
           AS home (bucket, owner)
     WHERE to_timestamp(('x' || translate(left($4::uuid::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
           BETWEEN clock_timestamp() - interval '1 day' AND clock_timestamp() + interval '1 day'
    ON CONFLICT (keyspace, bucket, owner, token) DO NOTHING RETURNING owner
) SELECT string_agg(owner, E'\x1f') FROM decided;
