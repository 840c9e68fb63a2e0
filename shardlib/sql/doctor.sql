-- name: server
-- What the server says of itself and of the role that asks.
SELECT current_user::text AS role, r.rolsuper AS superuser, pg_is_in_recovery() AS in_recovery,
       current_setting('server_version_num')::integer AS version, current_setting('server_encoding') AS encoding,
       current_setting('wal_level') AS wal_level, current_setting('password_encryption') AS password_encryption,
       extract(epoch FROM clock_timestamp())::double precision AS clock,
       (SELECT system_identifier FROM pg_control_system()) AS system, current_database()::text AS database
  FROM pg_roles r WHERE r.rolname = current_user;

-- name: has_bookkeeping
-- Whether the node's bookkeeping is there.
SELECT to_regclass('shardlib.node') IS NOT NULL AND to_regclass('shardlib.foreign_bucket') IS NOT NULL;

-- name: node
-- The node's own name, format and floor, and the newest epoch that it has heard of.
SELECT name, format, floor_epoch, shardlib.timeline() AS timeline,
       greatest(floor_epoch, (SELECT max(epoch) FROM shardlib.gained_bucket)) AS newest_epoch FROM shardlib.node;

-- name: owns
-- What the asking role owns, or may empty: an application may do neither.
SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'S', 'v', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND (pg_has_role(c.relowner, 'USAGE') OR c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'TRUNCATE'))
UNION ALL
SELECT format('schema %I', nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND pg_has_role(nspowner, 'USAGE')
UNION ALL
SELECT format('database %I', datname) FROM pg_database WHERE datname = current_database() AND pg_has_role(datdba, 'USAGE')
ORDER BY 1;

-- name: keyspaces
-- The keyspaces that the node knows.
SELECT name, hash, buckets, bucket_sql FROM shardlib.keyspace;

-- name: attached
-- The attached tables as they stand here, and whether the asking role may change a row's key.
SELECT a.table_name, a.keyspace, a.key_column::text, k.attnum IS NOT NULL AS there,
       t.relkind::text AS kind, t.relpersistence::text AS persistence, pg_relation_size(t.oid) AS bytes,
       format_type(k.atttypid, NULL) AS key_type, k.attnotnull AS key_not_null,
       coalesce((SELECT collisdeterministic FROM pg_collation WHERE oid = k.attcollation), true) AS deterministic,
       has_column_privilege(t.oid, k.attnum, 'UPDATE') AS may_change_key,
       t.relreplident = 'f' OR EXISTS (
           SELECT FROM pg_index i WHERE i.indrelid = t.oid AND k.attnum = ANY (i.indkey)
              AND (i.indisreplident OR (i.indisprimary AND t.relreplident = 'd'))) AS identity_has_key,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                  AND k.attnum = ANY (i.indkey)) AS unique_has_key,
       ARRAY(SELECT i.indexrelid::regclass::text FROM pg_index i
              WHERE i.indrelid = t.oid AND i.indisunique AND NOT k.attnum = ANY (i.indkey)
                AND NOT EXISTS (SELECT FROM pg_attribute u WHERE u.attrelid = t.oid AND u.attnum = ANY (i.indkey)
                                   AND u.atttypid = 'uuid'::regtype) ORDER BY 1) AS loose_indexes,
       ARRAY(SELECT 'column ' || quote_ident(c.attname) || ' ' || format_type(c.atttypid, c.atttypmod)
                    || CASE WHEN c.attnotnull THEN ' not null' ELSE '' END
                    || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
               FROM pg_attribute c LEFT JOIN pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
              WHERE c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped)
       || ARRAY(SELECT CASE WHEN i.indisvalid THEN '' ELSE 'invalid ' END || pg_get_indexdef(i.indexrelid)
                  FROM pg_index i WHERE i.indrelid = t.oid)
       || ARRAY(SELECT 'constraint ' || quote_ident(conname) || ' ' || pg_get_constraintdef(oid)
                  FROM pg_constraint WHERE conrelid = t.oid AND contype <> 'n') AS parts
  FROM shardlib.attached_table a
  LEFT JOIN pg_class t ON t.oid = to_regclass(a.table_name)
  LEFT JOIN pg_attribute k ON k.attrelid = t.oid AND k.attname = a.key_column AND NOT k.attisdropped
 ORDER BY a.table_name;

-- name: foreign_buckets
-- The buckets that may lie here without being owned.
SELECT DISTINCT keyspace, bucket FROM shardlib.foreign_bucket ORDER BY keyspace, bucket;

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

-- name: idle_slots
-- Replication slots that nobody reads, and how many bytes of log each keeps.
SELECT slot_name::text AS name, (pg_current_wal_lsn() - restart_lsn)::bigint AS kept_bytes FROM pg_replication_slots
 WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 1;

-- name: position
-- How far the primary's log is flushed.
SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS lsn;

-- name: replayed
-- Whose replica this is, how far it has come and on which timeline.
SELECT (SELECT name FROM shardlib.node) AS name, pg_is_in_recovery() AS in_recovery,
       (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint AS lsn, shardlib.timeline() AS timeline,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused,
       EXISTS (SELECT FROM pg_stat_wal_receiver) AS receiving;

-- name: pending_claims
-- Claims that nobody finished for ten minutes.
SELECT count(*) FROM shardlib.identifier
 WHERE state = 'pending' AND claimed_at < now() - interval '10 minutes';

-- name: catalog
-- What the catalog says of itself.
SELECT format, epoch FROM shardlib.catalog;
