"""Scripts are cut at the semicolons that end a statement, and at no others."""

from __future__ import annotations

import pytest

from migrations.statements import split

SCRIPTS = [
    ("SELECT 1; SELECT 2", ["select 1", "select 2"]),
    ("-- only; a comment\n", []),
    ("/* a;\nb */ SELECT 1 -- c; d\n;", ["select 1"]),
    ("SELECT 'a;''b' ;", ["select ''"]),
    (r"SELECT E'a\';b'; X", ["select ''", "x"]),
    ('SELECT ";" FROM "Mixed Case";', ['select ";" from "Mixed Case"']),
    ("DO $$ BEGIN; COMMIT; END $$; SELECT 1", ["do ''", "select 1"]),
    ("DO $body$ $$ ; $$ $body$; SELECT $1", ["do ''", "select $1"]),
    ("CREATE  TABLE\n  t (a int);;", ["create table t (a int)"]),
]


@pytest.mark.parametrize("script,bare", SCRIPTS)
def test_statements_end_where_postgres_ends_them(script: str, bare: list[str]) -> None:
    assert [statement.bare for statement in split(script)] == bare


def test_a_statement_keeps_its_text() -> None:
    assert [statement.text for statement in split("SELECT 'A; B';\n-- why\nSELECT 2;\n")] == [
        "SELECT 'A; B'",
        "-- why\nSELECT 2",
    ]
