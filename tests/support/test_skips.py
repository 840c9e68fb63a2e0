"""A skip whose reason nobody allowed fails the session; each skip is listed."""

from __future__ import annotations

import pytest

from tests.support.skips import allowed_reasons

SKIPPING = """
import pytest
def test_runs(): pass
@pytest.mark.skip(reason={reason!r})
def test_does_not(): pass
"""
ALLOWED = allowed_reasons()[0].pattern


def run(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(source)
    return pytester.runpytest_inprocess("-p", "tests.support.skips")


def test_an_unknown_reason_fails_the_session(pytester: pytest.Pytester) -> None:
    result = run(pytester, SKIPPING.format(reason="no time today"))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*skipped, and why*", "*1  no time today*NOT ALLOWED*"])


def test_an_allowed_reason_is_listed(pytester: pytest.Pytester) -> None:
    result = run(pytester, SKIPPING.format(reason=ALLOWED))
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*skipped, and why*", f"*1  {ALLOWED}"])
    result.stdout.no_fnmatch_line("*NOT ALLOWED*")


def test_a_skipped_module_counts(pytester: pytest.Pytester) -> None:
    result = run(pytester, "import pytest\npytest.skip('not here', allow_module_level=True)")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*1  not here*NOT ALLOWED*"])


def test_an_expected_failure_is_no_skip(pytester: pytest.Pytester) -> None:
    result = run(pytester, "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_it(): assert False")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*skipped, and why*")
