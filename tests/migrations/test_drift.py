"""Every kind of difference between nodes is found and named; what is the same everywhere is silent."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from migrations.__main__ import main
from migrations.drift import compare, digest
from tests.migrations.workbench import Bench

SCHEMA = """
CREATE TABLE person (id bigint PRIMARY KEY, name text NOT NULL, age int CHECK (age > 0));
CREATE INDEX person_name ON person (name);
CREATE TYPE colour AS ENUM ('red');
CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql AS 'SELECT 2 * a';
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER noted AFTER INSERT ON person FOR EACH ROW EXECUTE FUNCTION note();
CREATE VIEW adult AS SELECT id FROM person WHERE age > 17;
GRANT SELECT ON person TO shardlib;
"""
DRIFTS = [
    ("CREATE TABLE extra (a int)", "table public.extra"),
    ("ALTER TABLE person SET (fillfactor = 50)", "table public.person"),
    ("ALTER TABLE person REPLICA IDENTITY FULL", "table public.person"),
    ("ALTER TABLE person ADD COLUMN extra int", "column public.person.extra"),
    ("ALTER TABLE person ALTER name TYPE varchar(9)", "column public.person.name"),
    ("ALTER TABLE person ALTER name DROP NOT NULL", "column public.person.name"),
    ("ALTER TABLE person ALTER age SET DEFAULT 1", "column public.person.age"),
    ("ALTER TABLE person DROP CONSTRAINT person_age_check", "constraint public.person.person_age_check"),
    ("DROP INDEX person_name", "index public.person_name"),
    ("ALTER TABLE person DISABLE TRIGGER noted", "trigger public.person.noted"),
    ("ALTER TYPE colour ADD VALUE 'blue'", "type public.colour"),
    (
        "CREATE OR REPLACE FUNCTION twice(a int) RETURNS int LANGUAGE sql AS 'SELECT a + a'",
        "function public.twice(a integer)",
    ),
    ("CREATE OR REPLACE VIEW adult AS SELECT id FROM person WHERE age > 20", "view public.adult"),
    ("GRANT DELETE ON person TO shardlib", "grant public.person to shardlib"),
    ("GRANT UPDATE (id) ON person TO shardlib", "grant column public.person.id to shardlib"),
    ("REVOKE EXECUTE ON FUNCTION twice FROM public", "grant function public.twice(a integer) to public"),
    ("CREATE SCHEMA extra", "schema extra"),
    ("SELECT shardlib.attach('users', 'person', 'id')", "attached table public.person"),
]


async def _drift(bench: Bench, *options: str) -> int:
    return await asyncio.to_thread(main, ["drift", "--directory", str(bench.directory), *options])


async def test_each_kind_of_difference_is_found(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write({"node/0001_pre_person": SCHEMA})
    assert not (await bench.apply()).failed
    assert await _drift(bench) == 0
    assert "0 objects differ on 3 nodes" in capsys.readouterr().out
    for statement, _ in DRIFTS:
        await bench.execute("node2", statement)
    assert await _drift(bench) == 1
    said = capsys.readouterr().out
    assert [name for statement, name in DRIFTS if f"{name}\n" not in said] == []
    assert "    node1, node3: missing\n    node2: #4, integer" in said


async def test_the_document_for_scripts_names_nodes_and_definitions(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write({"node/0001_pre_person": SCHEMA})
    await bench.apply()
    await bench.execute("node3", "DROP INDEX person_name")
    assert await _drift(bench, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["digests"]["node1"] == said["digests"]["node2"] != said["digests"]["node3"]
    assert said["differences"] == [
        {
            "kind": "index",
            "name": "public.person_name",
            "variants": [
                ["CREATE INDEX person_name ON public.person USING btree (name)", ["node1", "node2"]],
                [None, ["node3"]],
            ],
        }
    ]


async def test_an_index_whose_build_died_is_a_difference(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write({"node/0001_pre_person": SCHEMA})
    await bench.apply()
    await bench.execute("node1", "INSERT INTO person VALUES (1, 'a'), (2, 'a')")
    build = "CREATE UNIQUE INDEX CONCURRENTLY once ON person (name)"
    with pytest.raises(asyncpg.UniqueViolationError):
        await bench.execute("node1", build)
    await bench.execute("node2", build)
    await bench.execute("node3", build)
    assert await _drift(bench) == 1
    assert "btree (name) (invalid)" in capsys.readouterr().out


async def test_a_node_out_of_reach_is_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    await bench.execute(
        "catalog", "UPDATE shardlib.node SET admin_url = 'postgresql://127.0.0.1:1/x' WHERE name = 'node3'"
    )
    assert await _drift(bench) == 2
    assert "can't reach node3" in capsys.readouterr().err


def test_the_order_of_objects_does_not_count() -> None:
    one = {("table", "a"): "1", ("table", "b"): "2"}
    other = dict(reversed(one.items()))
    assert digest(one) == digest(other)
    assert compare({"node1": one, "node2": other}) == ()
