"""What an import did, for people and for scripts."""

from __future__ import annotations

from time import monotonic

import msgspec

from service.bulk.importing import Import


class Summary(msgspec.Struct):
    """Counts cover the whole file, a resumed run's earlier part included; the rate is this run's."""

    file: str
    rejected_file: str
    lines: int = 0
    created: int = 0
    present: int = 0
    rejected: int = 0
    reasons: dict[str, int] = {}
    resumed_after_line: int = 0
    complete: bool = False
    note: str = ""
    seconds: float = 0.0
    users_per_second: float = 0.0
    began: float = msgspec.field(default_factory=monotonic)

    def take(self, run: Import) -> None:
        """Take over what a run counted."""
        tally = run.tally
        self.lines, self.created, self.present = run.position.lines, tally.created, tally.present
        self.rejected, self.reasons = tally.rejected, tally.reasons
        self.resumed_after_line, self.note, self.complete = run.resumed_after, run.note, run.complete
        self.seconds = round(monotonic() - self.began, 3)
        self.users_per_second = round((tally.rows - run.rows_before) / max(self.seconds, 0.001), 1)

    def json(self) -> str:
        """Return it as one JSON document."""
        plain = msgspec.structs.asdict(self)
        del plain["began"]
        return msgspec.json.encode(plain).decode()

    def text(self) -> str:
        """Return it in words."""
        if self.complete and not self.created:
            head = f"Nothing new: all {self.present:,} users were there already."
        else:
            state = "" if self.complete else "stopped early: "
            head = f"{state}{self.created:,} users created, {self.present:,} were there already."
        lines = [head, f"{self.lines:,} lines in {self.seconds:.1f} s, {self.users_per_second:,.0f} rows/s."]
        if self.resumed_after_line:
            lines.append(f"Went on after line {self.resumed_after_line:,} of an earlier run, which is counted in.")
        if self.note:
            lines.append(self.note[:1].upper() + self.note[1:] + ".")
        if self.rejected:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.reasons.items()))
            lines.append(f"{self.rejected:,} lines rejected ({reasons}): see {self.rejected_file}")
        return "\n".join(lines)
