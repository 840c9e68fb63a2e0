"""Write the recorded results into README: ``python -m bench.figures``. Nothing stands there that wasn't measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.harness import RESULTS

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN = "<!-- figures: made by `python -m bench.figures` from bench/results -->\n"
END = "<!-- end of figures -->\n"
ORDER = ("point_ops", "http_get", "routing")
PROSE = """\
Taken in turns, on the same rows and servers; the ratio is the median of all rounds' ratios, with its quartiles.
"""


def figures(results: Path = RESULTS) -> str:
    """Return the section: a table of every recorded comparison, and what it was measured on."""
    documents = [json.loads(file.read_text(encoding="utf-8")) for name in ORDER
                 if (file := results / f"{name}.json").exists()]
    if not documents:
        return ""
    rows = [row(result) for document in documents for result in document["results"]]
    head = ["| | ours | peer | ours / peer | goal |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(["## Figures", "", PROSE, *head, *rows, "", measured_on(documents[0]["setting"]), ""])


def row(result: dict[str, Any]) -> str:
    """Return one comparison as a row."""
    low, high = result["ratio_quartiles"]
    goal = result["goal"].replace(">=", "≥").replace("<=", "≤")
    missed = "" if result["met"] in (True, None) else ", missed"
    figures = f"{readable(result['ours'])} {result['unit']} | {readable(result['peer'])} {result['unit']}"
    return f"| {result['name']} | {figures} | {result['ratio']:.2f} ({low:.2f} to {high:.2f}) | {goal}{missed} |"


def readable(figure: float) -> str:
    """Return a figure with three digits that mean something."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def measured_on(setting: dict[str, Any]) -> str:
    """Return the circumstances in a sentence."""
    return (
        f"{setting['cores']} cores ({setting['cpu']}), Python {setting['python']}, asyncpg {setting['asyncpg']},"
        f" uvloop {setting['uvloop']}, Postgres {setting['postgres']} with fsync off, all on one machine, whose load"
        f" average was {setting['load_average']:.0f} then. How: [bench/](bench/), `make bench`;"
        " every round: [bench/results/](bench/results/)."
    )


def updated(readme: str, section: str) -> str:
    """Return README's text with the section in its place."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}{section and chr(10) + section + chr(10)}{end}{after}"


def main() -> None:
    """Rewrite the section."""
    README.write_text(updated(README.read_text(encoding="utf-8"), figures()), encoding="utf-8")


if __name__ == "__main__":
    main()
