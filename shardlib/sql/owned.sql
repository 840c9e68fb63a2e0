-- name: greet
-- What a connection asks when it opens: the floor, the timeline, the role, which start of the server this is.
-- And sets: while it works on a statement the server looks each second whether anybody still waits for the answer; a
-- transaction in which nobody does anything for five minutes ends.
SELECT set_config('client_connection_check_interval', '1000', false),
       set_config('idle_in_transaction_session_timeout', '300000', false),
       n.floor_epoch, n.format, shardlib.timeline() AS timeline, pg_is_in_recovery() AS in_recovery,
       extract(epoch FROM pg_postmaster_start_time())::double precision AS instance
  FROM shardlib.node n;

-- name: observe
-- What the monitor asks: role, timeline, how far the log is flushed or replayed.
SELECT pg_is_in_recovery() AS in_recovery, shardlib.timeline() AS timeline,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
           - '0/0'::pg_lsn)::bigint AS lsn,
       extract(epoch FROM pg_postmaster_start_time())::double precision AS instance;

-- name: flush_position
-- The token of all writes acknowledged before it was asked.
SELECT shardlib.timeline() AS timeline, (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS lsn;

-- name: note_branch
-- Remember where a timeline began; no standby is waited for: there may be none just then.
BEGIN; SET LOCAL synchronous_commit TO local; SELECT shardlib.note_branch(); COMMIT;

-- name: write_lost
-- Whether the node's history lacks a position of an older timeline.
SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint < $2 OR shardlib.write_lost($1, $2);

-- name: replay_position
-- How far a replica has replayed.
SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint AS lsn;

-- name: owned
-- Whether the node owns the bucket and did so at the request's epoch; as shardlib.owned, which Postgres can't inline.
SELECT NOT EXISTS (SELECT FROM shardlib.foreign_bucket WHERE keyspace = $1 AND bucket = $2)
   AND NOT EXISTS (SELECT FROM shardlib.gained_bucket WHERE keyspace = $1 AND bucket = $2 AND epoch > $3);

-- name: all_owned
-- The same of several buckets, as text, separated by commas.
SELECT bool_and(shardlib.owned($1, bucket, $3)) FROM unnest(string_to_array($2, ',')::integer[]) AS bucket;

-- name: key_columns
-- The key columns of a keyspace's tables.
SELECT DISTINCT key_column FROM shardlib.attached_table WHERE keyspace = $1;
