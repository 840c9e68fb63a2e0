"""What a database needs, by its ledger, the phase and what others have; what is refused."""

from __future__ import annotations

import pytest

from migrations.files import Migration, Phase, Refused
from migrations.plan import Applied, plan


def files(phases: str) -> list[Migration]:
    """Return migrations of these phases, a letter each: "<" for pre, ">" for post."""
    kinds = {"<": Phase.PRE, ">": Phase.POST}
    return [
        Migration(
            number, kinds[letter], f"{number:04}_{kinds[letter].value}_x", f"SELECT {number};\n", True, "2s", "60s"
        )
        for number, letter in enumerate(phases, start=1)
    ]


def ledger(migrations: list[Migration], count: int) -> list[Applied]:
    return [Applied(each.number, each.name, each.checksum, True) for each in migrations[:count]]


PLANS = [
    # files, applied, phase, level of the others -> to do, waiting
    ("<<>", 0, None, 0, [1, 2, 3], []),
    ("<<>", 0, Phase.PRE, 0, [1, 2], [3]),
    ("<<>", 2, Phase.PRE, 2, [], [3]),
    ("<<>", 2, Phase.POST, 2, [3], []),
    ("<><>", 2, Phase.PRE, 2, [3], [4]),
    ("<><", 1, Phase.PRE, 1, [], [2, 3]),
    ("<><", 1, Phase.POST, 1, [2], [3]),
    ("<><", 3, Phase.POST, 3, [], []),
    # a new node, or one that was left behind, catches up with the others whatever the phase
    ("<><", 0, Phase.PRE, 2, [1, 2, 3], []),
    ("<><>", 0, Phase.PRE, 3, [1, 2, 3], [4]),
    ("<><", 0, Phase.POST, 2, [1, 2], [3]),
]


@pytest.mark.parametrize("phases,applied,phase,level,todo,waiting", PLANS)
def test_a_phase_ends_where_the_other_begins(
    phases: str, applied: int, phase: Phase | None, level: int, todo: list[int], waiting: list[int]
) -> None:
    made = plan(files(phases), ledger(files(phases), applied), phase, level)
    assert ([each.number for each in made.todo], [each.number for each in made.waiting]) == (todo, waiting)


def test_post_before_its_pre_is_refused() -> None:
    with pytest.raises(Refused, match="--phase pre first"):
        plan(files("<>"), [], Phase.POST, 0)


def test_a_changed_file_is_refused_with_both_sums() -> None:
    had = files("<")
    row = Applied(1, had[0].name, "0" * 64, True)
    with pytest.raises(Refused, match=f"{'0' * 64}.*{had[0].checksum}.*as a new migration"):
        plan(had, [row], None, 1)


def test_one_that_died_half_way_may_be_mended_and_runs_again() -> None:
    had = files("<<")
    half = [*ledger(had, 1), Applied(2, had[1].name, "0" * 64, False)]
    assert [each.number for each in plan(had, half, None, 2).todo] == [2]


@pytest.mark.parametrize(
    "rows,said",
    [
        ([Applied(2, "0002_pre_x", "", True)], "without all before it"),
        ([Applied(1, "0001_pre_x", "", False), Applied(2, "0002_pre_x", "", True)], "without all before it"),
        ([Applied(1, "0001_pre_y", "", True)], "renumber it"),
    ],
)
def test_a_ledger_that_contradicts_the_files_is_refused(rows: list[Applied], said: str) -> None:
    with pytest.raises(Refused, match=said):
        plan(files("<<"), rows, None, 0)


def test_a_database_that_is_ahead_of_the_checkout_is_refused() -> None:
    with pytest.raises(Refused, match="not in this checkout"):
        plan(files("<"), ledger(files("<<"), 2), None, 2)
