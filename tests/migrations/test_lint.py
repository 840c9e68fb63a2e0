"""What may not stand in a migration, each with the word that tells the reader what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrations.files import Migration, read
from migrations.lint import complaints

WRONG = [
    ("pre", "BEGIN; CREATE TABLE t (a int); COMMIT;", "the runner makes the transaction"),
    ("pre", "SET lock_timeout = '1s'; SELECT 1;", "SET LOCAL"),
    ("pre", "DROP TABLE users;", "post migration"),
    ("pre", "ALTER TABLE users DROP COLUMN name;", "post migration"),
    ("pre", "ALTER TABLE users RENAME TO people;", "post migration"),
    ("pre", "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON users (name);", "tx: off"),
    ("pre", "CREATE UNIQUE INDEX i ON public.users (name);", "CONCURRENTLY"),
    ("pre", "CREATE INDEX ON users (name);", "CONCURRENTLY"),
    ("pre", "ALTER TABLE users ADD CONSTRAINT c CHECK (age > 0);", "NOT VALID"),
    ("pre", "ALTER TABLE ONLY users ADD FOREIGN KEY (team) REFERENCES teams;", "NOT VALID"),
    ("pre", "ALTER TABLE users ALTER COLUMN visits TYPE bigint;", "add a column"),
    ("post", "ALTER TABLE users ADD a int, ALTER visits SET DATA TYPE bigint;", "add a column"),
    ("pre", "VACUUM users;", "tx: off"),
    ("pre", "-- tx: off\nCREATE INDEX CONCURRENTLY i ON users (name);", "repeatable"),
    ("pre", "-- tx: off\nUPDATE users SET name = '';", "repeatable"),
    ("post", "-- nothing\n", "no statement"),
]
RIGHT = [
    ("pre", "CREATE TABLE t (a int CHECK (a > 0)); CREATE INDEX i ON t (a); CREATE INDEX ON t(a);"),
    ("pre", "SET LOCAL work_mem = '64MB'; UPDATE t SET a = 'drop table t; commit';"),
    ("pre", "ALTER TABLE users ADD CONSTRAINT c CHECK (age > 0) NOT VALID;"),
    ("pre", "ALTER TABLE users ADD COLUMN age int;"),
    ("pre", "ALTER TABLE users ALTER COLUMN name TYPE text;"),
    ("post", "ALTER TABLE users DROP COLUMN name; DROP TABLE old;"),
    ("pre", "-- tx: off\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON users (name);"),
    ("post", "-- tx: off\nDROP INDEX CONCURRENTLY IF EXISTS i; REINDEX TABLE CONCURRENTLY users; ANALYZE;"),
    ("pre", "-- tx: off\nDO $$ BEGIN UPDATE t SET a = 1; COMMIT; END $$;"),
]


def migration(directory: Path, phase: str, text: str) -> Migration:
    (directory / f"0001_{phase}_x.sql").write_text(text, encoding="utf-8")
    return read(directory)[0]


@pytest.mark.parametrize("phase,text,said", WRONG)
def test_what_is_wrong_is_said(tmp_path: Path, phase: str, text: str, said: str) -> None:
    assert any(said in complaint for complaint in complaints(migration(tmp_path, phase, text)))


@pytest.mark.parametrize("phase,text", RIGHT)
def test_what_is_right_passes(tmp_path: Path, phase: str, text: str) -> None:
    assert complaints(migration(tmp_path, phase, text)) == ()
