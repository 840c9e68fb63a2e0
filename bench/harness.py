"""Compare ways of doing the same work on a machine that is never quiet.

DESIGN. Figures taken minutes apart can't be compared: other work, frequency and caches drift. So contenders take
turns, forth and back (A B C C B A), which cancels any linear drift within a round; what is judged is the *ratio of
each round*, and its median and quartiles over the rounds. All rounds are kept, so that a doubter can compute
anything else.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.plot import strip_plot

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("aiohttp", "asyncpg", "msgspec", "uvloop")

Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a ratio has to be: at least, or at most."""

    bound: float
    sense: str = "at least"  # or "at most"

    def met_by(self, ratio: float) -> bool:
        return ratio >= self.bound if self.sense == "at least" else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.sense == 'at least' else '<='} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of ours against one peer's: medians over the rounds, and the ratio ours / peer with its quartiles."""

    name: str
    unit: str
    ours: float
    peer: float
    ratio: float
    ratio_quartiles: tuple[float, float]
    goal: str = ""
    met: bool | None = None
    rounds: Sequence[tuple[float, float]] = field(default=(), repr=False)  # (ours, peer) of each round

    def line(self) -> str:
        low, high = self.ratio_quartiles
        verdict = "" if self.met is None else f"   goal {self.goal}: {'met' if self.met else 'MISSED'}"
        return (f"{self.name:<42} {self.ours:>10,.6g} vs {self.peer:>10,.6g} {self.unit:<8}"
                f" ratio {self.ratio:5.2f} ({low:.2f}-{high:.2f}){verdict}")


def compared(
    name: str, unit: str, ours: Sequence[float], peer: Sequence[float], goal: Goal | None = None
) -> Comparison:
    """Judge paired figures: the n-th of ours and the n-th of the peer's were taken in the same round."""
    pairs = list(zip(ours, peer, strict=True))
    ratios = [mine / other for mine, other in pairs]
    middle = statistics.median(ratios)
    return Comparison(
        name, unit, statistics.median(ours), statistics.median(peer), middle, quartiles(ratios),
        str(goal or ""), goal.met_by(middle) if goal else None, pairs,
    )


def within(name: str, unit: str, ours: float, budget: float) -> Comparison:
    """Judge a single figure against a budget that it may not exceed."""
    return compared(name, unit, [ours], [budget], Goal(1.0, "at most"))


def quartiles(figures: Sequence[float]) -> tuple[float, float]:
    if len(figures) < 2:
        return figures[0], figures[0]
    cuts = statistics.quantiles(figures, n=4, method="inclusive")
    return cuts[0], cuts[2]


async def take_turns(contenders: dict[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Measure each contender twice a round, forth and back; return the mean of the two for every round.

    A measure returns its figure. One round is run first and thrown away.
    """
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for name in [*contenders, *reversed(contenders)]:
            gc.collect()
            taken[name].append(await contenders[name]())
        for name, pair in taken.items():
            if number:
                figures[name].append(statistics.fmean(pair))
    return figures


def setting(**more: object) -> dict[str, object]:
    """Describe what the figures depend on: machine, load, versions, commit."""
    return {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "commit": _commit(),
        **more,
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    """Return the commit, with a + when the library or the service differ from it."""
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=RESULTS.parent)
        return done.stdout.strip()

    changed = git("status", "--porcelain", ":/shardlib", ":/service")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def report(name: str, results: Sequence[Comparison], circumstances: dict[str, object]) -> None:
    """Print the results; write them to results/NAME.json and drawn to results/NAME.svg."""
    for result in results:
        print(result.line(), flush=True)
    RESULTS.mkdir(exist_ok=True)
    document: dict[str, Any] = {"name": name, "setting": circumstances, "results": [asdict(each) for each in results]}
    text = json.dumps(document, indent=1, default=str)
    (RESULTS / f"{name}.json").write_text(_rounded(text) + "\n", encoding="utf-8")
    drawn = [(each.name, [ours / peer for ours, peer in each.rounds], each.goal) for each in results]
    (RESULTS / f"{name}.svg").write_text(strip_plot(f"{name}: ours / peer, every round", drawn), encoding="utf-8")


def _rounded(text: str) -> str:
    """Put each round on one line and drop digits that mean nothing."""
    def tidy(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.5g}")
        if isinstance(value, list):
            return [tidy(item) for item in value]
        if isinstance(value, dict):
            return {key: tidy(item) for key, item in value.items()}
        return value

    document = tidy(json.loads(text))
    results = document.pop("results")
    head = json.dumps(document, indent=1)[:-2]
    lines = ",\n".join("  " + json.dumps(result) for result in results)
    return f'{head},\n "results": [\n{lines}\n ]\n}}'
