-- The roles of a local server: run once in template1, so that every database made later has the grants.
-- An empty line ends each statement (this runs in single-user mode).

-- the application: owns nothing
CREATE ROLE shardlib LOGIN;

-- the administrator and mover: owns the databases, and is no superuser
CREATE ROLE shardlib_admin LOGIN REPLICATION;

GRANT pg_create_subscription, pg_monitor, pg_signal_backend, pg_use_reserved_connections TO shardlib_admin;

GRANT SET ON PARAMETER session_replication_role TO shardlib_admin;

GRANT EXECUTE ON FUNCTION
    pg_replication_origin_create(text),
    pg_replication_origin_drop(text),
    pg_replication_origin_oid(text),
    pg_replication_origin_session_setup,
    pg_replication_origin_session_reset(),
    pg_replication_origin_session_is_setup(),
    pg_replication_origin_session_progress(boolean),
    pg_replication_origin_xact_setup(pg_lsn, timestamptz),
    pg_replication_origin_xact_reset(),
    pg_replication_origin_advance(text, pg_lsn),
    pg_replication_origin_progress(text, boolean),
    pg_show_replication_origin_status()
TO shardlib_admin;

