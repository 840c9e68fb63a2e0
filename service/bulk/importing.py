"""An import from its first line to its last: read ahead, load, report, checkpoint.

DESIGN. At most ``PARSED_AHEAD`` and ``BATCHES_UNDER_WAY`` batches are held at a time, however long the input is. A
batch's rejections and its checkpoint are written when it and all earlier ones are done, in that order, so what a
checkpoint vouches for is in the cluster and in the report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from service.bulk import checkpoint
from service.bulk.checkpoint import Checkpoint, Tally
from service.bulk.lines import Batch, Lines, OtherInput, Position
from service.bulk.load import Claimed, Loader, Outcome
from service.bulk.progress import Progress
from service.bulk.report import Rejection, Report
from service.bulk.rows import Reader, Row

Parsed = tuple[Batch, list[Row], list[Rejection]]

BATCH_LINES = 3000  # a thousand rows for each of three nodes: commits are rare, and little is held in memory
BATCH_BYTES = 4 << 20
BATCHES_UNDER_WAY = 4  # one claims, the others are written or wait for an earlier one
PARSED_AHEAD = 2  # batches; a server that pauses for a moment finds work when it is back
_LINES_AT_A_TIME = 100  # parsed before the event loop has its turn: servers wait for it meanwhile
_WITNESSES = 5  # users that a checkpoint names


@dataclass(slots=True)
class Files:
    """Where an import keeps what it knows."""

    report: Path
    checkpoint: Path | None  # None: it can't be resumed, only repeated


@dataclass(slots=True)
class Import:
    """One run."""

    loader: Loader
    reader: Reader
    files: Files
    progress: Callable[[Position], Progress]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tally: Tally = field(default_factory=Tally)
    position: Position = field(default_factory=Position)
    resumed_after: int = 0
    rows_before: int = 0
    complete: bool = False
    note: str = ""
    _witnesses: tuple[UUID, ...] = ()

    async def run(self, open_lines: Callable[[], Lines]) -> None:
        """Import the rest of the input, or until ``stop`` is set."""
        lines, keep_bytes = await self._resume(open_lines)
        progress = self.progress(self.position)
        try:
            with Report(self.files.report, keep_bytes) as report:
                await self._load(lines, report, progress)
        finally:
            progress.close()
        self.complete = not self.stop.is_set()
        if self.files.checkpoint is not None and self.complete:
            checkpoint.remove(self.files.checkpoint)

    # -- where to begin

    async def _resume(self, open_lines: Callable[[], Lines]) -> tuple[Lines, int]:
        """Return the lines that are left, and how much of the report stays."""
        lines = open_lines()
        found = checkpoint.load(self.files.checkpoint) if self.files.checkpoint is not None else None
        if found is None:
            return lines, 0
        reason = await self._mistrust(found)
        if not reason:
            try:
                lines.skip(found.position)
            except OtherInput as error:
                lines, reason = open_lines(), str(error)
        if reason:
            self.note = f"started over: {reason}"
            return lines, 0
        self.tally, self.position = found.tally, found.position
        self.resumed_after, self.rows_before = found.position.lines, found.tally.rows
        self._witnesses = tuple(map(UUID, found.witnesses))
        return lines, found.rejected_bytes

    async def _mistrust(self, found: Checkpoint) -> str:
        """Return why the checkpoint can't be relied on, or nothing."""
        if found.rejected_bytes > (self.files.report.stat().st_size if self.files.report.exists() else 0):
            return "the report of rejected rows is gone"
        witnesses = [UUID(text) for text in found.witnesses]
        there = await self.loader.existing((user_id, self.reader.bucket_of(user_id)) for user_id in witnesses)
        return "" if there == set(witnesses) else "the cluster doesn't have the users that were imported"

    # -- the pipeline

    async def _load(self, lines: Lines, report: Report, progress: Progress) -> None:
        slots = asyncio.Semaphore(BATCHES_UNDER_WAY - 1)
        last: asyncio.Task[None] | None = None
        parsed: asyncio.Queue[Parsed | None] = asyncio.Queue(PARSED_AHEAD)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._parse(lines, parsed))
            while (ahead := await parsed.get()) is not None:
                batch, rows, rejections = ahead
                await slots.acquire()
                claimed = await self.loader.claim(rows)
                claimed.rejections += rejections
                last = tasks.create_task(self._finish((batch, claimed), last, report, progress))
                last.add_done_callback(lambda _task: slots.release())

    async def _finish(
        self,
        work: tuple[Batch, Claimed],
        earlier: asyncio.Task[None] | None,
        report: Report,
        progress: Progress,
    ) -> None:
        batch, claimed = work
        outcome = await self.loader.finish(claimed, earlier)
        self._count(outcome)
        self.position = batch.end
        rejected_bytes = report.add(outcome.rejections)
        self._witnesses = tuple(outcome.created[-_WITNESSES:]) or self._witnesses
        if self.files.checkpoint is not None:
            names = tuple(map(str, self._witnesses))
            made = Checkpoint(position=batch.end, tally=self.tally, rejected_bytes=rejected_bytes, witnesses=names)
            checkpoint.save(self.files.checkpoint, made)
        progress.show(self.position, self.tally)

    def _count(self, outcome: Outcome) -> None:
        self.tally.created += len(outcome.created)
        self.tally.present += outcome.present
        for rejection in outcome.rejections:
            self.tally.reasons[rejection.reason] = self.tally.reasons.get(rejection.reason, 0) + 1

    async def _parse(self, lines: Lines, parsed: asyncio.Queue[Parsed | None]) -> None:
        for batch in lines.batches(BATCH_LINES, BATCH_BYTES):
            rows: list[Row] = []
            rejections: list[Rejection] = []
            for start in range(0, len(batch.lines), _LINES_AT_A_TIME):
                some = self.reader.read(batch.lines[start : start + _LINES_AT_A_TIME])
                rows += some[0]
                rejections += some[1]
                await asyncio.sleep(0)
            await parsed.put((batch, rows, rejections))
            if self.stop.is_set():
                break
        await parsed.put(None)
