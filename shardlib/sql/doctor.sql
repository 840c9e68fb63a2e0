-- name: server
-- What the server says of itself and of the role that asks.
SELECT current_user::text AS role, r.rolsuper AS superuser, pg_is_in_recovery() AS in_recovery,
       current_setting('server_version_num')::integer AS version, current_setting('server_encoding') AS encoding,
       current_setting('wal_level') AS wal_level, current_setting('password_encryption') AS password_encryption,
       extract(epoch FROM clock_timestamp())::double precision AS clock
  FROM pg_roles r WHERE r.rolname = current_user;

-- name: has_bookkeeping
-- Whether the node's bookkeeping is there.
SELECT to_regclass('shardlib.node') IS NOT NULL AND to_regclass('shardlib.foreign_bucket') IS NOT NULL;

-- name: node
-- The node's own name, format and floor.
SELECT name, format, floor_epoch, shardlib.timeline() AS timeline FROM shardlib.node;

-- name: owns
-- Tables that the asking role owns, or may empty: an application may do neither.
SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
   AND (pg_has_role(c.relowner, 'USAGE') OR has_table_privilege(c.oid, 'TRUNCATE')) ORDER BY 1;

-- name: keyspaces
-- The keyspaces that the node knows.
SELECT name, hash, buckets FROM shardlib.keyspace;

-- name: attached
-- The attached tables, whether each is there, and whether its replica identity holds its key column.
SELECT a.table_name, a.keyspace, a.key_column::text, to_regclass(a.table_name) IS NOT NULL AS there,
       EXISTS (SELECT FROM pg_index i JOIN pg_attribute c ON c.attrelid = i.indrelid AND c.attnum = ANY (i.indkey)
                WHERE i.indrelid = to_regclass(a.table_name) AND c.attname = a.key_column
                  AND (i.indisreplident OR (i.indisprimary AND t.relreplident = 'd')))
       OR coalesce(t.relreplident = 'f', false) AS identity_has_key
  FROM shardlib.attached_table a LEFT JOIN pg_class t ON t.oid = to_regclass(a.table_name) ORDER BY 1;

-- name: unattached
-- Plain tables that the asking role writes and that are in no keyspace.
SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'shardlib')
   AND n.nspname !~ '^pg_' AND has_table_privilege(c.oid, 'INSERT')
   AND NOT EXISTS (SELECT FROM shardlib.attached_table a WHERE to_regclass(a.table_name) = c.oid) ORDER BY 1;

-- name: foreign_buckets
-- How many buckets may lie here without being owned.
SELECT count(*) FROM shardlib.foreign_bucket;

-- name: mover
-- What the administrator's role may do.
SELECT r.rolreplication AS replication, pg_has_role('pg_create_subscription', 'MEMBER') AS create_subscription,
       pg_has_role('pg_monitor', 'MEMBER') AS monitor, pg_has_role('pg_signal_backend', 'MEMBER') AS signal_backend,
       has_parameter_privilege('session_replication_role', 'SET') AS replication_role
  FROM pg_roles r WHERE r.rolname = current_user;

-- name: room
-- Free replication slots and senders, lost slots, the oldest transaction in seconds, prepared transactions.
SELECT current_setting('max_replication_slots')::integer - (SELECT count(*) FROM pg_replication_slots) AS slots,
       current_setting('max_wal_senders')::integer - (SELECT count(*) FROM pg_stat_replication) AS senders,
       (SELECT count(*) FROM pg_replication_slots WHERE wal_status IN ('lost', 'unreserved')) AS lost_slots,
       coalesce((SELECT extract(epoch FROM max(now() - xact_start)) FROM pg_stat_activity
                  WHERE state LIKE 'idle in transaction%' AND datname = current_database()),
                0)::double precision AS idle_seconds,
       (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()) AS prepared;

-- name: streaming
-- The standbys that stream from here.
SELECT application_name, client_addr::text, state, sync_state FROM pg_stat_replication
 WHERE state = 'streaming' AND pid NOT IN (SELECT active_pid FROM pg_replication_slots
                                            WHERE slot_type = 'logical' AND active_pid IS NOT NULL);

-- name: position
-- How far the primary's log is flushed.
SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS lsn;

-- name: replayed
-- How far a replica is, and on which timeline.
SELECT pg_is_in_recovery() AS in_recovery, (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint AS lsn,
       pg_is_in_recovery() AND pg_is_wal_replay_paused() AS paused, shardlib.timeline() AS timeline;

-- name: pending_claims
-- Claims that nobody finished for ten minutes.
SELECT count(*) FROM shardlib.identifier
 WHERE state = 'pending' AND claimed_at < now() - interval '10 minutes';
