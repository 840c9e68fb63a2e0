-- What has been applied to this database. May be run again.
CREATE SCHEMA IF NOT EXISTS migrations;

CREATE TABLE IF NOT EXISTS migrations.ledger (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    finished boolean NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
COMMENT ON TABLE migrations.ledger IS 'One row for each migration; not finished: one without a transaction that died half way';
