"""``python -m migrations``: what it prints, and its exit status."""

from __future__ import annotations

import asyncio
import json

import pytest

from migrations.__main__ import main
from tests.migrations.workbench import Bench

TABLE = "CREATE TABLE person (id bigint PRIMARY KEY, name text NOT NULL);"
FILES = {
    "node/0001_pre_person": TABLE,
    "node/0002_post_drop": "ALTER TABLE person DROP name;",
    "node/0003_pre_x": "SELECT 1;",
}

Output = pytest.CaptureFixture[str]


async def command(bench: Bench, *words: str) -> int:
    return await asyncio.to_thread(main, [*words, "--directory", str(bench.directory)])


async def test_a_release_from_plan_to_status(bench: Bench, capsys: Output) -> None:
    bench.write(FILES)
    assert await command(bench, "plan", "--json") == 0
    assert json.loads(capsys.readouterr().out)["node1"] == ["0001_pre_person", "0002_post_drop", "0003_pre_x"]
    assert await command(bench, "plan", "--phase", "pre") == 0
    assert "node1        0001_pre_person\n" in capsys.readouterr().out
    assert await command(bench, "apply", "--phase", "pre") == 1
    assert "not applied: 0003_pre_x: behind a post migration" in capsys.readouterr().err
    assert await command(bench, "apply", "--phase", "post", "--json") == 0
    assert {step["migration"] for step in json.loads(capsys.readouterr().out)["applied"]} == {"0002_post_drop"}
    assert await command(bench, "status") == 0
    assert "node3        at 0002; pending: 0003_pre_x\n" in capsys.readouterr().out
    assert await command(bench, "apply", "--parallel", "1") == 0
    assert "3 applied; 4 databases are up to date" in capsys.readouterr().out


async def test_a_failure_says_who_has_what(bench: Bench, capsys: Output) -> None:
    bench.write({**FILES, "node/0003_pre_x": "SELECT 1/0;"})
    assert await command(bench, "apply") == 1
    said = capsys.readouterr()
    assert "failed: node1: division by zero; in 0003_pre_x" in said.err
    assert "node1        at 0002; pending: 0003_pre_x\n" in said.out
    assert "node2        at 0000; pending: 0001_pre_person, 0002_post_drop, 0003_pre_x\n" in said.out


async def test_what_is_refused_is_said_and_nothing_is_done(bench: Bench, capsys: Output) -> None:
    bench.write({"node/0002_pre_x": "SELECT 1;"})
    assert await command(bench, "apply") == 2
    assert "refused: node/0002_pre_x.sql should have number 0001" in capsys.readouterr().err


async def test_status_shows_a_problem_and_fails(bench: Bench, capsys: Output) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    await command(bench, "apply")
    bench.write({"node/0001_pre_person": TABLE + "SELECT 1;"})
    capsys.readouterr()
    assert await command(bench, "status", "--json") == 1
    assert "was changed after it was applied" in json.loads(capsys.readouterr().out)[1]["problem"]


def test_without_a_catalog_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.delenv("SHARDLIB_CATALOG_URL", raising=False)
    assert main(["status"]) == 2
    assert "SHARDLIB_CATALOG_URL isn't set" in capsys.readouterr().err


def test_a_fleet_of_no_nodes_at_a_time_is_a_wrong_option(capsys: Output) -> None:
    with pytest.raises(SystemExit):
        main(["apply", "--parallel", "0"])
    assert "at least 1" in capsys.readouterr().err
