"""The service as operators run it: a supervisor and its workers, on ports of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardlib.testing import ports
from shardlib.testing.databases import TestCluster
from tests.support.waiting import wait_until

PATIENCE_SECONDS = 60.0  # on a busy machine


class Running:
    """A started service."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, api: str, internal: str) -> None:
        self.process = process
        self.api = f"http://{api}"
        self.internal = f"http://{internal}"
        self._log = log

    def log(self) -> list[dict[str, Any]]:
        """Return what it has logged."""
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]

    def workers(self) -> list[int]:
        """Return the pids of the workers that live."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in children.split() if is_alive(int(pid))]

    def ask(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a page of the internal port; 0 when nobody is there."""
        try:
            with urllib.request.urlopen(self.internal + path, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def ready(self) -> dict[str, Any]:
        """Return what /readyz?verbose says."""
        found: dict[str, Any] = json.loads(self.ask("/readyz?verbose")[1] or b"{}")
        return found

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Return the exit status, once it is there."""
        return self.process.wait(seconds)


@contextmanager
def run(cluster: TestCluster, directory: Path, **settings: object) -> Iterator[Running]:
    """Run ``python -m service api``; settings are its variables without their prefix."""
    api, internal = (f"127.0.0.1:{port}" for port in ports.take(2))
    log = directory / "service.log"
    environment = environment_for(cluster, {"listen": api, "internal": internal, **settings})
    with log.open("wb") as output:
        command = [sys.executable, "-m", "service", "api"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    running = Running(process, log, api, internal)
    children: list[int] = []
    try:
        wait_until(lambda: running.ask("/readyz")[0] == 200 or process.poll() is not None, PATIENCE_SECONDS)
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield running
        children = running.workers() if process.poll() is None else []
    finally:
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(is_alive, children)), PATIENCE_SECONDS)


def environment_for(cluster: TestCluster, settings: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of a service on a cluster."""
    ours = {
        "SERVICE_IDENTIFIER_KEYS": "1:" + "ab" * 32,
        "SERVICE_CURSOR_KEY": "a key for tests and for nothing else",
        "SERVICE_DRAIN_DELAY_SECONDS": "0.2",
    }
    chosen = {f"SERVICE_{name.upper()}": str(value) for name, value in settings.items()}
    return {**os.environ, **cluster.environment, **ours, **chosen}


def is_alive(pid: int) -> bool:
    """Return whether a process runs: zombies don't."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return False
