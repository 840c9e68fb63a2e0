"""The reference pages name everything that exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.problem import Kind
from service.settings import Settings
from shardlib import errors

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
ERRORS = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
VARIABLES = [f"SERVICE_{name.upper()}" for name in Settings.__struct_fields__ if name != "catalog_url"]


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_told(name: str) -> None:
    heads = ("ShardlibError", "Retryable", "OutcomeUnknown", "Rejected", "Broken")
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    assert (name if name in heads else f"| `{name}` |") in page


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_setting_is_told(variable: str) -> None:
    assert f"| `{variable}` |" in (REFERENCE / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", Kind)
def test_every_problem_is_told(kind: Kind) -> None:
    row = f"| `{kind.uri}` | {kind.status} | {kind.title}. {kind.advice} |"
    assert row in (REFERENCE / "http.md").read_text(encoding="utf-8")
