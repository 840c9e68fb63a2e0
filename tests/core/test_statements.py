"""What a statement is, by its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.statements import Effect, Kind, effect_of, kind_of

READS = [
    "SELECT 1",
    "select * from t where id = $1",
    "  \n\t SELECT 1;  ",
    "SELECT 1; -- and no more",
    "SELECT 1 /* insert */",
    "(SELECT 1) UNION (SELECT 2)",
    "((SELECT 1))",
    "VALUES (1)",
    "TABLE t",
    "SHOW work_mem",
    "EXPLAIN SELECT 1",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "-- delete\nSELECT 1",
    "/* set */ SELECT 1",
    "/* one /* two */ delete */ SELECT 1",
    "SELECT * FROM log WHERE action = 'delete'",
    "SELECT 'it''s an update; into temp'",
    r"SELECT E'it\'s an update'",
    'SELECT "update" FROM "insert into"',
    "SELECT $$ delete; $$, $a$ set $$ $a$",
    "SELECT last_update, updated_at, into_x FROM updates",
    "SELECT n -1 --2\n FROM t",
]
WRITES = [
    "INSERT INTO t VALUES (1)",
    "UPDATE t SET a = 1",
    "DELETE FROM t",
    "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE t",
    "CREATE TABLE t (id int)",
    "ALTER TABLE t ADD COLUMN a int",
    "DROP TABLE t",
    "GRANT SELECT ON t TO u",
    "VACUUM t",
    "SELECT * INTO u FROM t",
    "SELECT * FROM t FOR UPDATE",
    "WITH a AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM a",
    "with a as (\n  update t set b = 1 returning 1\n) select 1",
    "WITH a AS (DELETE FROM t RETURNING *) SELECT 1",
    "WITH a AS (MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE RETURNING 1) SELECT 1",
    "EXPLAIN ANALYZE DELETE FROM t",
    "EXPLAIN (ANALYZE) SELECT write_something()",
    "EXPLAIN UPDATE t SET a = 1",
    "/* select */ DELETE FROM t",
    "/* /* */ select */ DELETE FROM t",
    "/* /* */ select */ TRUNCATE t",
    "-- select\nDELETE FROM t",
    "SELECT 'a' INTO u",
    "",
    "nonsense",
]
SESSIONS = [
    *("BEGIN", "START TRANSACTION", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT a", "RELEASE a"),
    *("SET work_mem = '1MB'", "RESET ALL", "LISTEN a", "UNLISTEN *", "PREPARE a AS SELECT 1", "DEALLOCATE ALL"),
    *("DECLARE c CURSOR FOR SELECT 1", "FETCH c", "MOVE c", "CLOSE c", "LOAD 'a'", "DISCARD ALL", "LOCK t"),
    *("DO $$ BEGIN END $$", "CALL p()", "COPY t FROM STDIN"),
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    'SELECT "pg_advisory_lock"(1)',
    "SELECT set_config('a.b', '1', false)",
    "CREATE TEMP TABLE t (id int)",
    "create temporary table t (id int)",
    "SELECT 1 INTO TEMP t",
    "SELECT 1; SET work_mem = '1MB'",
    "SELECT 1;/* a */SET work_mem = '1MB'",
    "/* /* */ select */ SET work_mem = '1MB'",
    "SELECT 'a' ; SET a.b = 'c'",
]


@pytest.mark.parametrize(
    "query, kind",
    [
        *((query, Kind.READ) for query in READS),
        *((query, Kind.WRITE) for query in WRITES),
        *((query, Kind.SESSION) for query in SESSIONS),
    ],
)
def test_each_statement_has_its_kind(query: str, kind: Kind) -> None:
    assert kind_of(query) is kind


asides = st.sampled_from(
    ["/* select */", "/* /* delete */ set */", "-- select\n", "\n", " \t", "/**/", "--\n", "(", "/*'*/"]
)


@given(st.lists(asides, max_size=6), st.sampled_from([*SESSIONS, *WRITES[:20], *READS]))
def test_what_stands_before_a_statement_doesnt_change_it(before: list[str], query: str) -> None:
    assert kind_of("".join(before) + query) is kind_of(query)


literals = st.builds(
    lambda quote, text: quote + text.replace("'", "''").replace('"', '""').replace("$", "") + quote,
    st.sampled_from(["'", '"', "$$", "$tag$"]),
    st.text(alphabet=st.sampled_from("ab \n;-*/()'\"$"), max_size=20)
    | st.sampled_from(["; SET a = 1", "delete", "/*"]),
)


@given(literals, literals)
def test_what_stands_in_strings_and_quoted_names_means_nothing(one: str, other: str) -> None:
    assert kind_of(f"SELECT {one} , {other}") is Kind.READ
    assert kind_of(f"SELECT {one} INTO t") is Kind.WRITE
    assert kind_of(f"SELECT {one} ; SET a.b = {other}") is Kind.SESSION


@given(st.text(max_size=60))
def test_any_text_has_a_kind(text: str) -> None:
    assert kind_of(text) in Kind


@pytest.mark.parametrize(
    "verb, query, answer, effect",
    [
        ("execute", "UPDATE t SET a = 1", "UPDATE 1", Effect.TOUCHED),
        ("execute", "UPDATE t SET a = 1", "UPDATE 10", Effect.TOUCHED),
        ("execute", "UPDATE t SET a = 1", "UPDATE 0", Effect.NOTHING),
        ("execute", "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "INSERT 0 0", Effect.NOTHING),
        ("execute", "INSERT INTO t VALUES (1)", "INSERT 0 1", Effect.TOUCHED),
        ("execute", "WITH a AS (DELETE FROM t) UPDATE u SET a = 1", "UPDATE 0", Effect.UNKNOWN),
        ("execute", "WITH a AS (DELETE FROM t RETURNING 1) SELECT 1", "SELECT 1", Effect.UNKNOWN),
        ("execute", "SELECT * FROM t FOR UPDATE", "SELECT 1", Effect.UNKNOWN),
        ("execute", "COPY t FROM STDIN", "COPY 7", Effect.TOUCHED),
        ("execute", "COPY t FROM STDIN", "COPY 0", Effect.NOTHING),
        ("fetch", "UPDATE t SET a = 1 RETURNING a", [1], Effect.TOUCHED),
        ("fetch", "UPDATE t SET a = 1 RETURNING a", [], Effect.NOTHING),
        ("fetch", "UPDATE t SET a = 1", [], Effect.UNKNOWN),
        ("fetch", "UPDATE t SET a = 'returning'", [], Effect.UNKNOWN),
        ("fetchrow", "DELETE FROM t RETURNING 1", None, Effect.NOTHING),
        ("fetchrow", "DELETE FROM t", None, Effect.UNKNOWN),
        ("fetchrow", "SELECT * FROM t FOR UPDATE", (1,), Effect.UNKNOWN),
        ("fetchrow", "/* a */ WITH a AS (UPDATE t SET a = 1 RETURNING 1) SELECT count(*) FROM a", (0,), Effect.UNKNOWN),
        ("executemany", "INSERT INTO t VALUES ($1)", None, Effect.UNKNOWN),
    ],
)
def test_an_answer_proves_what_it_can_and_no_more(verb: str, query: str, answer: object, effect: Effect) -> None:
    assert effect_of(verb, query, answer) is effect
