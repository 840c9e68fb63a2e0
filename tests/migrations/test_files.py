"""Which files are migrations, in which order, with which directives; what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrations.files import Phase, Refused, read
from migrations.fleet import FILES
from migrations.lint import complaints


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / f"{name}.sql").write_text(text, encoding="utf-8")
    return directory


def test_files_are_read_in_order_with_their_directives(tmp_path: Path) -> None:
    first, second = read(
        write(
            tmp_path,
            **{
                "0001_pre_users": "-- Users: the accounts\nCREATE TABLE users (id int);\n",
                "0002_post_index": "-- tx: off\n-- lock_timeout: 500ms\n\n-- statement_timeout: 1s\nVACUUM;\n",
            },
        )
    )
    assert (first.number, first.phase, first.in_transaction, first.lock_timeout) == (1, Phase.PRE, True, "2s")
    assert (second.number, second.phase, second.in_transaction, second.lock_timeout) == (2, Phase.POST, False, "500ms")
    assert second.statement_timeout == "0", "directives end with the head of the file"


def test_no_directory_is_no_migrations(tmp_path: Path) -> None:
    assert read(tmp_path / "catalog") == ()


@pytest.mark.parametrize(
    "names,said",
    [
        (["0001_pre_a", "0003_pre_b"], "should have number 0002"),
        (["0001_pre_a", "0001_pre_b"], "should have number 0002"),
        (["0002_pre_a"], "should have number 0001"),
        (["1_pre_a"], "the name of a migration"),
        (["0001_users"], "the name of a migration"),
        (["0001_pre_Users"], "the name of a migration"),
    ],
)
def test_a_name_or_number_out_of_place_is_refused(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        read(write(tmp_path, **dict.fromkeys(names, "SELECT 1;")))


@pytest.mark.parametrize("line", ["-- tx: no", "-- lock_timeout: soon", "-- lock-timeout: 2s\n-- lock_timout: 2s"])
def test_a_directive_that_nobody_knows_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(Refused, match="isn't tx: on"):
        read(write(tmp_path, **{"0001_pre_a": f"{line}\nSELECT 1;\n"}))


def test_the_checksum_ignores_line_ends_and_nothing_else(tmp_path: Path) -> None:
    def checksum(text: str) -> str:
        (tmp_path / "0001_pre_a.sql").write_bytes(text.encode())
        return read(tmp_path)[0].checksum

    plain = checksum("SELECT 1;\nSELECT 2;\n")
    assert checksum("SELECT 1;  \r\nSELECT 2;\r\n\r\n") == plain
    assert checksum("SELECT 1;\nSELECT  2;\n") != plain


@pytest.mark.parametrize("kind", ["catalog", "node"])
def test_our_own_migrations_keep_the_rules(kind: str) -> None:
    assert [complaints(migration) for migration in read(FILES / kind)] == [()] * len(read(FILES / kind))
