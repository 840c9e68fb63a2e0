"""A skipped test is a test that didn't run: only known reasons are accepted, and all are listed at the end."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def allowed_reasons() -> list[re.Pattern[str]]:
    """Read the reasons that are accepted."""
    lines = ALLOWED.read_text(encoding="utf-8").splitlines()
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def is_allowed(reason: str) -> bool:
    """Tell whether one of the accepted reasons describes this one in full."""
    return any(pattern.fullmatch(reason) for pattern in allowed_reasons())


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test or module was skipped."""
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return told.removeprefix("Skipped: ")


class SkipAudit:
    """Collects the skips of a session and fails it over an unknown reason."""

    def __init__(self) -> None:
        """Start with none."""
        self.skips: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skips[reason_of(report)] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a skipped module."""
        if report.skipped:
            self.skips[reason_of(report)] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session when a reason isn't allowed."""
        if session.exitstatus == pytest.ExitCode.OK and not all(map(is_allowed, self.skips)):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List what was skipped, and why."""
        if not self.skips:
            return
        terminalreporter.section("skipped, and why")
        for reason, count in sorted(self.skips.items()):
            verdict = "" if is_allowed(reason) else "   NOT ALLOWED: see tests/support/allowed_skips.txt"
            terminalreporter.line(f"{count:5d}  {reason}{verdict}", red=bool(verdict))


def pytest_configure(config: pytest.Config) -> None:
    """Watch over every session."""
    config.pluginmanager.register(SkipAudit(), "skip-audit")
