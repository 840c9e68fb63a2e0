"""The arithmetic that figures are judged by, and what keeps peers honest."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import figures, peers
from bench.harness import RESULTS, Goal, Measure, compared, setting, take_turns
from bench.plot import strip_plot


def drifting(name: str, log: list[str], figure: float) -> Measure:
    """Measure something that gets slower each time anybody measures."""
    async def measure() -> float:
        log.append(name)
        return figure - len(log)

    return measure


async def test_turns_are_forth_and_back_and_the_first_round_is_thrown_away() -> None:
    log: list[str] = []
    taken = await take_turns({name: drifting(name, log, 100.0) for name in "abc"}, rounds=2)
    assert "".join(log) == "abccba" * 3
    assert {name: len(figures) for name, figures in taken.items()} == {"a": 2, "b": 2, "c": 2}


async def test_a_linear_drift_cancels() -> None:
    log: list[str] = []
    taken = await take_turns({name: drifting(name, log, 100.0) for name in "ab"}, rounds=3)
    assert taken["a"] == taken["b"]


def test_the_ratio_is_judged_by_rounds_not_by_medians() -> None:
    judged = compared("x", "/s", [10.0, 40.0, 90.0], [5.0, 10.0, 90.0], Goal(2.0))
    assert (judged.ours, judged.peer, judged.ratio) == (40.0, 10.0, 2.0)
    assert judged.ratio_quartiles == (1.5, 3.0)
    assert judged.met is True


@pytest.mark.parametrize(
    "ratio, sense, met", [(1.1, "at most", True), (1.2, "at most", False), (1.0, "at least", False)]
)
def test_goals(ratio: float, sense: str, met: bool) -> None:
    assert Goal(1.1, sense).met_by(ratio) is met


def test_the_plot_is_well_formed_and_has_a_dot_for_each_round() -> None:
    drawn = strip_plot("a < b", [("x & y", [1.0, 2.0, 3.0], ">= 2.2"), ("z", [0.5], "")])
    tags = Counter(element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawn).iter())
    assert tags["circle"] == 4


def test_peers_are_short_enough_to_be_read() -> None:
    for file in Path(peers.__file__).parent.glob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 80, file.name


def test_readme_shows_the_recorded_figures() -> None:
    readme = figures.README.read_text(encoding="utf-8")
    assert readme == figures.updated(readme, figures.figures())


def test_a_measure_that_fails_ends_the_comparison() -> None:
    async def broken() -> float:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(take_turns({"a": broken}, rounds=1))


def test_of_the_kernel_only_the_version_is_told() -> None:
    kept = [json.loads(file.read_text(encoding="utf-8"))["setting"] for file in RESULTS.glob("*.json")]
    told = [str(each["kernel"]) for each in (setting(), *kept)]
    assert [kernel for kernel in told if not re.fullmatch(r"\d+\.\d+", kernel)] == []
