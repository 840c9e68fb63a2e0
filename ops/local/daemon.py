"""A server that isn't Postgres: started in a directory of its own, by which its processes are known."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shardlib.testing import processes
from shardlib.testing.programs import EngineError, launch
from shardlib.testing.recognise import Recogniser

POLL_SECONDS = 0.02


@dataclass
class Daemon:
    """What to start, and how to know it and that it is ready. All its processes work in ``directory``."""

    name: str
    directory: Path
    port: int
    command: list[str]
    is_ready: Callable[[], bool]
    is_ours: Recogniser
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_seconds: float = 30.0
    stop_seconds: float = 15.0
    tied: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.directory / "log"

    @property
    def _pid_file(self) -> Path:
        return self.directory / "pid"

    @property
    def pid(self) -> int | None:
        """The main process; None when it doesn't run, whatever a stale pid file says."""
        try:
            written = int(self._pid_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        return written if processes.lives_in(written, self.directory) and self.is_ours(written) else None

    @property
    def running(self) -> bool:
        """Whether the main process runs, ready or not."""
        return self.pid is not None

    def processes(self) -> list[int]:
        """List its live processes, or what a killed one left."""
        return [pid for pid in processes.working_in(self.directory) if self.is_ours(pid)]

    def launch(self) -> None:
        """Start without waiting; fine when it runs already."""
        if self.running:
            return
        self.clear_away()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._process = launch(self.command, self.directory, self.log, tied=self.tied, environment=self.environment)
        self._pid_file.write_text(str(self._process.pid), encoding="ascii")

    def clear_away(self) -> None:
        """End what a killed main process left."""
        self._reap()
        processes.end(self.processes, signal.SIGTERM)

    def wait_ready(self) -> None:
        """Wait until it is ready; EngineError with its log's end when that doesn't come."""
        until = time.monotonic() + self.ready_seconds
        while not self.is_ready():
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > until:
                why = "ended at once" if ended else f"isn't ready after {self.ready_seconds:.0f} s"
                raise EngineError(f"{self.name} on port {self.port} {why}; its log says:\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def ask_to_stop(self) -> None:
        """Send SIGTERM, without waiting."""
        pid = self.pid
        if pid is not None:
            processes.send([pid], signal.SIGCONT)
            processes.send([pid], signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Wait for the end of all its processes; kill them when the time is up."""
        main = self.pid
        if main is not None:
            self._wait_gone(main)
        processes.end(self.processes, signal.SIGKILL)
        self._reap()
        self._pid_file.unlink(missing_ok=True)

    def _wait_gone(self, pid: int) -> None:
        until = time.monotonic() + self.stop_seconds
        while processes.is_alive(pid) and time.monotonic() < until:
            self._reap()
            time.sleep(POLL_SECONDS)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.poll()

    def log_tail(self, lines: int = 20) -> str:
        """Return the end of its log."""
        if not self.log.exists():
            return "(nothing)"
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
