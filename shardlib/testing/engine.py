"""One real Postgres server, and everything a test may want to do to it.

A server is a directory (``data``, ``log``) and a port. Whether it runs is asked of the machine, never remembered, so
two processes may hold a ``PostgresServer`` for the same directory, and what a crash left is found and cleared.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from shardlib.testing import processes, recognise, template
from shardlib.testing.binaries import Binaries
from shardlib.testing.programs import EngineError, finish, identity, launch
from shardlib.testing.secrets_file import ADMIN, SUPERUSER, Secrets
from shardlib.testing.settings import ACCESS, COMMON, SINCE_18, Settings, render

START_SECONDS = 60.0  # recovery after a crash included
STOP_SECONDS = 30.0
POLL_SECONDS = 0.01
is_postgres = recognise.program("postgres")
READY = "ready"  # what line 8 of postmaster.pid says when connections are taken


@dataclass
class PostgresServer:
    """A Postgres server on the loopback address; ``follows`` makes it a streaming replica of another one.

    With ``tied`` it dies with the process that started it, by whatever death; else it outlives it.
    Methods block for the time that Postgres takes: some 50 ms to start or stop.
    """

    name: str  # also its replication slot's, so: letters, digits and _
    directory: Path
    port: int
    binaries: Binaries
    secrets: Secrets
    settings: Settings
    follows: PostgresServer | None = None
    tied: bool = True
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.directory / "log"

    @property
    def exists(self) -> bool:
        """Whether the data directory has been made."""
        return self.data.exists()

    def url(self, database: str, role: str) -> str:
        """Return the address of a database, without a password."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    # -- making

    def create(self, source: Path) -> None:
        """Make the data directory of a primary from a template, with a system identifier and passwords of its own."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        template.give_away(self.directory)
        partial = self.directory / "new"
        shutil.rmtree(partial, ignore_errors=True)
        template.clone(self.binaries, source, partial)
        self._write_settings(partial)  # first: pg_resetwal wrote wal_level=minimal, from which no replica can start
        template.single_user(self.binaries, partial, "postgres", self.secrets.script())
        partial.rename(self.data)

    def create_replica(self) -> None:
        """Copy the primary's data directory: cold if that isn't running, else by pg_basebackup."""
        primary = self._primary()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        template.give_away(self.directory)
        partial = template.fresh(self.data)
        template.give_away(partial)
        if primary.running:
            primary.ensure_slot(self.name)
            self.binaries.run(
                "pg_basebackup", "-D", str(partial), "-d", self._upstream(), "-S", self.name,
                "-X", "stream", "-c", "fast", "--no-sync",
            )
        else:
            partial.rmdir()
            template.copy(primary.data, partial)
        (partial / "standby.signal").touch()
        template.give_away(partial)
        partial.rename(self.data)

    def ensure_slot(self, slot: str) -> None:
        """Make a physical replication slot unless it exists."""
        self.psql(
            f"SELECT pg_create_physical_replication_slot('{slot}', true)"
            f" WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        )

    def _primary(self) -> PostgresServer:
        if self.follows is None:
            raise EngineError(f"{self.name} is no replica")
        return self.follows

    def _upstream(self) -> str:
        return f"host=127.0.0.1 port={self._primary().port} user={ADMIN} passfile={self.secrets.passfile}"

    # -- running

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None when none runs, whatever a stale pid file says."""
        try:
            written = int(self._status_lines()[0])
        except (ValueError, IndexError):
            return None
        return written if processes.lives_in(written, self.data) and is_postgres(written) else None

    @property
    def running(self) -> bool:
        """Whether there is a postmaster, ready or not."""
        return self.pid is not None

    def processes(self) -> list[int]:
        """List its live processes: the postmaster and its children, or what a killed one left."""
        return [pid for pid in processes.working_below(self.directory) if is_postgres(pid)]

    @property
    def ready(self) -> bool:
        """Whether it takes connections, by its own word."""
        lines = self._status_lines()
        return len(lines) >= 8 and lines[7].strip() == READY and self.running

    def _status_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def start(self) -> None:
        """Start, and wait until connections are taken; fine when it runs already."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start without waiting; fine when it runs already."""
        if self.running:
            return
        self._reap()
        self.clear_away()
        self._write_settings(self.data)
        command = [self.binaries.path("postgres"), "-D", str(self.data)]
        self._process = launch(command, self.data, self.log, who=identity(), tied=self.tied)

    def clear_away(self) -> None:
        """End what a killed postmaster left (Postgres refuses to start beside it), and remove its pid file."""
        left = processes.wait_gone(self.processes(), 5.0)
        processes.send(left, signal.SIGKILL)
        processes.wait_gone(left, 5.0)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _write_settings(self, data: Path) -> None:
        own: dict[str, str | int] = {"port": self.port, "cluster_name": self.name}
        if self.follows is not None:
            own |= {"primary_conninfo": f"{self._upstream()} application_name={self.name}",
                    "primary_slot_name": self.name}
        newest: Settings = SINCE_18 if self.binaries.major >= 18 else {}
        (data / "postgresql.conf").write_text(render(COMMON, newest, self.settings, own), encoding="utf-8")
        (data / "pg_hba.conf").write_text(ACCESS, encoding="utf-8")

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until connections are taken; raise EngineError with the log's end when that doesn't come."""
        until = time.monotonic() + seconds
        while not self.ready:
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > until:
                why = "ended at once" if ended else f"isn't ready after {seconds:.0f} s"
                raise EngineError(f"Postgres {self.name} on port {self.port} {why}; its log says:\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of the server's log."""
        if not self.log.exists():
            return "(nothing)"
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    # -- ending

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Shut down in order: sessions are ended, data is written. Fine when it doesn't run."""
        self.ask_to_stop()
        self.wait_stopped(seconds)

    def ask_to_stop(self) -> None:
        """Send the signal of a fast shutdown, without waiting."""
        self.thaw()
        pid = self.pid
        if pid is not None:
            processes.send([pid], signal.SIGINT)

    def wait_stopped(self, seconds: float = STOP_SECONDS) -> None:
        """Wait for the end of all its processes; kill them when the time is up."""
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            self._reap()
            time.sleep(POLL_SECONDS)
        if processes.wait_gone(self.processes(), max(0.0, until - time.monotonic())):
            self.kill()
        self._bury()

    def kill(self) -> None:
        """Kill -9 the postmaster and every backend at once, as a crash of the machine would."""
        status = self._status_lines()
        processes.end(self.processes, signal.SIGKILL)
        if len(status) >= 7 and status[6].strip():
            processes.remove_shared_memory(int(status[6].split()[1]))
        self._bury()

    def _bury(self) -> None:
        """Wait for the process that was started, whose children are gone: it may be a moment behind them."""
        if self._process is not None:
            self._process.wait(STOP_SECONDS)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.poll()

    # -- trouble

    def freeze(self) -> None:
        """SIGSTOP all its processes: connections stay open, and nothing answers. New backends can't start."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, what: signal.Signals) -> None:
        """Signal the postmaster first, so that it forks no more, then the others."""
        pid = self.pid
        if pid is not None:
            processes.send([pid], what)
        processes.send(self.processes(), what)

    def promote(self) -> None:
        """Make a replica a primary, and wait until it is one."""
        self.psql("SELECT pg_promote(true, 60)")
        self.follows = None

    def pause_replay(self) -> None:
        """Let a replica receive but not apply, and wait until that holds."""
        self.psql("SELECT pg_wal_replay_pause()")
        self._wait_for("SELECT pg_get_wal_replay_pause_state() = 'paused'")

    def resume_replay(self) -> None:
        """Let a replica apply again."""
        self.psql("SELECT pg_wal_replay_resume()")

    def wait_replayed(self, seconds: float = 10.0) -> None:
        """Wait until this replica has applied all that its primary has written by now."""
        position = self._primary().psql("SELECT pg_current_wal_flush_lsn()")
        self._wait_for(f"SELECT pg_last_wal_replay_lsn() >= '{position}'", seconds)

    def _wait_for(self, question: str, seconds: float = 10.0) -> None:
        until = time.monotonic() + seconds
        while self.psql(question) != "t":
            if time.monotonic() > until:
                raise EngineError(f"{self.name}: not true after {seconds:.0f} s: {question}")
            time.sleep(POLL_SECONDS)

    # -- asking

    def psql(self, sql: str, *, database: str = "postgres", role: str = SUPERUSER) -> str:
        """Run statements, each in its own transaction, and return the last lines unaligned; EngineError on an error."""
        command = [self.binaries.path("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d",
                   f"host=127.0.0.1 port={self.port} user={role} dbname={database} connect_timeout=10"]
        return finish(command, sql, {"PGPASSFILE": str(self.secrets.passfile)}).strip()
