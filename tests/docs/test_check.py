"""The documentation's check finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.check import faults

TARGETS = {"test", "up"}
GOOD = """\
# A page

[itself](#a-page), [another](other.md#two-words), [the web](https://example.org)

```python
async with connect() as cluster:
    row = await cluster.shard(1).fetchrow("SELECT 1")
```

```shell
make up && make test
python -m docs.check
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "other.md").write_text("# Other\n\n## Two words\n", encoding="utf-8")
    return tmp_path / "page.md"


def test_a_good_page_has_no_faults(page: Path) -> None:
    page.write_text(GOOD, encoding="utf-8")
    assert list(faults(page, TARGETS)) == []


@pytest.mark.parametrize(
    "good, bad, fault",
    [
        ("other.md#two-words", "gone.md", "3: no such file: gone.md"),
        ("#two-words", "#three-words", "3: no such heading: other.md#three-words"),
        ("(#a-page)", "(#the-page)", "3: no such heading: #the-page"),
        ("await cluster", "await await cluster", "7: invalid syntax"),
        ("make test", "make tset", "11: no such make target: tset"),
        ("docs.check", "docs.chekc", "12: no such module: docs.chekc"),
    ],
)
def test_a_fault_is_found(page: Path, good: str, bad: str, fault: str) -> None:
    page.write_text(GOOD.replace(good, bad), encoding="utf-8")
    assert list(faults(page, TARGETS)) == [fault]
