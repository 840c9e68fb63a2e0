"""The local stack: starts, starts again, is repaired, and goes without a trace."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from ops.local.layout import INTERNAL, SERVICE, VALKEY, Layout
from ops.local.stack import Stack
from shardlib.testing import places, processes
from shardlib.testing.binaries import find_binaries
from tests.ops.conftest import Local, free_offset
from tests.ops.people import REPOSITORY, nobody
from tests.support.waiting import wait_until

COLD_SECONDS, WARM_SECONDS = 15.0, 5.0
LOAD_ALLOWANCE = 4.0  # the machine has other work while the whole suite runs
LAST_WORDS = "what programs and psql need"
PARTS = {
    "catalog", "node1", "node2", "node3", "node1_replica1", "node2_replica1", "node3_replica1", "valkey", "service",
}


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()


def seconds(said: str) -> float:
    found = re.search(r"ready in ([\d.]+) s", said)
    assert found, said
    return float(found[1])


def make_user(local: Local, email: str) -> str:
    status, user = ask(SERVICE + local.offset, "POST", "/v1/users", {"email": email})
    assert status == 201, user
    return str(user["id"])


def is_there(local: Local, user: str) -> bool:
    return ask(SERVICE + local.offset, "GET", f"/v1/users/{user}")[0] == 200


def test_a_cold_start_is_quick_and_serves(local_stack: Local) -> None:
    local = local_stack
    assert local.call("reset").returncode == 0
    assert seconds(local.up()) < COLD_SECONDS * LOAD_ALLOWANCE
    assert ask(INTERNAL + local.offset, "GET", "/readyz")[0] == 200
    assert is_there(local, make_user(local, "cold@example.org"))
    assert set(local.pids()) == PARTS


def test_secrets_are_for_their_owner_alone(local: Local) -> None:
    assert stat.S_IMODE(local.directory.stat().st_mode) == 0o700
    files = [local.directory / "env", local.directory / "valkey" / "valkey.conf"]
    files += (local.directory / "secrets").iterdir()
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert "password" not in (local.directory / "stack.json").read_text(encoding="utf-8")


def test_the_environment_file_leads_programs_to_the_stack(local: Local) -> None:
    script = f'set -a; . {local.directory}/env; set +a; exec "$0" -XAtc "SELECT 1" "$SHARDLIB_CATALOG_URL"'
    command = ["sh", "-c", script, find_binaries().path("psql")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_shell_and_make_read_the_environment_file_wherever_it_is(tmp_path: Path) -> None:
    odd = tmp_path / "it's $HOME; here"
    odd.mkdir()
    Stack(Layout(odd)).prepare()
    variable, wanted = "SERVICE_CURSOR_KEY_FILE", f"{odd}/secrets/cursor_key\n"
    shell = ["sh", "-c", f'set -a; . "$0/env"; printenv {variable}', str(odd)]
    make = ["make", "--eval", f"show: ; @$(IN_LOCAL) printenv {variable}", "show"]
    environment = {"PATH": os.environ["PATH"], "LOCAL_STATE_DIR": str(odd)}
    for command in (shell, make):
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.stdout, done.stderr) == (wanted, "")


def test_up_again_changes_nothing(local: Local) -> None:
    before = local.pids()
    local.up()
    assert local.pids() == before
    assert None not in before.values()


def test_up_repairs_what_was_killed_and_nothing_else(local: Local) -> None:
    before = local.pids()
    victims = {name: before[name] for name in ("catalog", "node2", "node3_replica1", "valkey", "service")}
    for pid in victims.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(is_gone, pid))
    assert {name for name, pid in local.pids().items() if pid is None} == set(victims)
    local.up()
    after = local.pids()
    assert {name for name in after if after[name] != before[name]} == set(victims)
    assert None not in after.values()
    assert ask(INTERNAL + local.offset, "GET", "/readyz")[0] == 200


def is_gone(pid: int) -> bool:
    return not processes.is_alive(pid)


def test_up_repairs_after_kill_9_of_everything_and_keeps_what_was_committed(local: Local) -> None:
    user = make_user(local, "crash@example.org")
    processes.end(lambda: processes.working_below(local.directory), signal.SIGKILL)
    local.up()
    assert is_there(local, user)


def test_stale_pids_and_half_made_directories_are_no_obstacle(stopped: Local) -> None:
    mine = str(os.getpid())
    for name in ("catalog", "node1_replica1"):
        (stopped.directory / name / "data" / "postmaster.pid").write_text(mine + "\n", encoding="ascii")
    (stopped.directory / "service" / "pid").write_text(mine, encoding="ascii")
    lost = stopped.directory / "node2_replica1" / "data"
    lost.rename(lost.with_name("data.partial"))
    said = stopped.up()
    assert seconds(said) < WARM_SECONDS * LOAD_ALLOWANCE
    assert None not in stopped.pids().values()
    assert lost.exists()


def test_a_warm_start_keeps_the_data(local: Local) -> None:
    user = make_user(local, "warm@example.org")
    assert local.call("down").returncode == 0
    assert seconds(local.up()) < WARM_SECONDS * LOAD_ALLOWANCE
    assert is_there(local, user)


def test_one_more_node_joins_and_is_remembered(local: Local) -> None:
    done = local.call("add-node", "node4", "--weight", "0.5")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: "node4" in str(ask(INTERNAL + local.offset, "GET", "/readyz?verbose")[1]["nodes"]))
    assert local.call("add-node", "node4").returncode == 2
    local.call("down")
    local.up()
    pids = local.pids()
    assert set(pids) == PARTS | {"node4", "node4_replica1"}
    assert None not in pids.values()


def test_another_offset_is_refused_while_it_runs(local: Local) -> None:
    done = local.call("up", LOCAL_PORT_OFFSET=str(local.offset + 1))
    assert done.returncode == 2
    assert f"runs with LOCAL_PORT_OFFSET={local.offset}" in done.stderr


def test_it_moves_to_another_offset_with_its_data(local: Local) -> None:
    user = make_user(local, "moved@example.org")
    assert local.call("down").returncode == 0
    moved = Local(local.directory, free_offset())
    moved.up()
    assert is_there(moved, user)
    assert moved.call("down").returncode == 0


def test_what_a_killed_service_left_is_no_stranger_at_its_port(local: Local) -> None:
    pid = local.pids()["service"]
    assert pid is not None
    processes.send(processes.working_in(local.directory / "service"), signal.SIGSTOP)  # the workers can't leave
    os.kill(pid, signal.SIGKILL)
    wait_until(partial(is_gone, pid))
    local.up()
    assert ask(INTERNAL + local.offset, "GET", "/readyz")[0] == 200


def test_a_taken_port_is_named_with_its_owner_and_a_way_out(stopped: Local) -> None:
    with socket.create_server(("127.0.0.1", VALKEY + stopped.offset)):
        done = stopped.call("up")
    assert done.returncode == 2
    assert f"port {VALKEY + stopped.offset} (valkey) is taken by pid {os.getpid()}: " in done.stderr
    assert re.search(r"LOCAL_PORT_OFFSET=\d+ make up", done.stderr)
    assert stopped.left() == []


def test_two_at_once_both_succeed(stopped: Local) -> None:
    both = [stopped.start("up"), stopped.start("up")]
    said = [process.communicate(timeout=180)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("waiting for it" in text for text in said) == 1


def test_a_service_that_can_not_start_shows_its_log(stopped: Local) -> None:
    done = stopped.call("up", SERVICE_WORKERS="many")
    assert done.returncode == 1
    assert "service on port" in done.stderr
    assert "SERVICE_WORKERS" in done.stderr
    stopped.call("down")


@contextmanager
def foreground(local: Local) -> Iterator[subprocess.Popen[str]]:
    """Run the stack in the foreground; at the end nothing of it may be left, whatever became of ``run``."""
    running = local.start("run")
    try:
        yield running
        processes.wait_gone(processes.working_below(local.directory), 30)
        assert local.left() == []
    finally:
        running.kill()
        running.communicate()


def wait_to_hear(process: subprocess.Popen[str], words: str) -> str:
    """Read what a command says until the words come."""
    assert process.stderr is not None
    heard = ""
    for line in process.stderr:
        heard += line
        if words in line:
            return heard
    raise AssertionError(f"it ended without {words!r}: {heard}")


@pytest.mark.parametrize(
    "moment, ending", [("Postgres", signal.SIGHUP), ("migrations", signal.SIGTERM), (LAST_WORDS, signal.SIGINT)]
)
def test_run_ends_in_order_at_any_moment(stopped: Local, moment: str, ending: signal.Signals) -> None:
    with foreground(stopped) as running:
        wait_to_hear(running, moment)
        running.send_signal(ending)
        assert "stopped" in running.communicate(timeout=60)[1]
        assert running.returncode == 0


def test_run_tells_where_things_are_and_what_ends_and_a_second_interrupt_is_heard(stopped: Local) -> None:
    with foreground(stopped) as running:
        said = wait_to_hear(running, LAST_WORDS)
        assert f"http://127.0.0.1:{SERVICE + stopped.offset}" in said
        pid = stopped.pids()["valkey"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_to_hear(running, f"valkey (pid {pid}) has ended")
        running.send_signal(signal.SIGINT)
        wait_to_hear(running, "once more")
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=10)


def test_run_leaves_nothing_even_when_it_is_killed(stopped: Local) -> None:
    with foreground(stopped) as running:
        wait_to_hear(running, LAST_WORDS)
        running.kill()


def test_a_frozen_part_does_not_hold_up_down(local: Local) -> None:
    pid = local.pids()["node1"]
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert local.call("down").returncode == 0
    assert local.left() == []


def test_reset_forgets_and_down_without_a_stack_is_fine(stopped: Local) -> None:
    local = stopped
    assert local.call("reset").returncode == 0
    assert local.left() == []
    assert [path.name for path in local.directory.iterdir()] == ["lock"]
    assert local.call("down").returncode == 0
    assert local.call("status").returncode == 3


@contextmanager
def bystander(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that is none of the stack's in a directory, as a shell that somebody left there."""
    process = subprocess.Popen(["sleep", "600"], cwd=place)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", ["reset", "down"])
def test_a_directory_that_is_no_stack_is_left_alone(local_stack: Local, tmp_path: Path, command: str) -> None:
    (tmp_path / "precious").write_text("mine", encoding="ascii")
    with bystander(tmp_path) as other:
        done = local_stack.call(command, LOCAL_STATE_DIR=str(tmp_path))
        assert done.returncode == 2
        assert "no local stack" in done.stderr
        assert other.poll() is None
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_other_programs_in_its_directories_survive(local: Local) -> None:
    names = ("", "catalog", "node1/data", "valkey", "service")
    with ExitStack() as others:
        standing = {name: others.enter_context(bystander(local.directory / name)) for name in names}
        for command in ("down", "up", "reset"):
            done = local.call(command)
            assert done.returncode == 0, done.stderr
            assert [name for name, process in standing.items() if process.poll() is not None] == []
    assert local.left() == []


def test_an_ordinary_user_starts_and_stops_it() -> None:
    with places.place() as directory:
        user = nobody(directory)
        environment = {"LOCAL_STATE_DIR": str(directory / "local"), "LOCAL_PORT_OFFSET": str(free_offset())}
        for command in ("up", "status", "down"):
            done = user.run("-m", "ops.local", command, environment=environment)
            assert done.returncode == 0, done.stderr
        assert processes.working_below(directory) == []
