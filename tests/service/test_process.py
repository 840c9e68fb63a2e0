"""Starting, stopping, dying and being watched: the real process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shardlib.testing.databases import TestCluster
from tests.service.client import Api
from tests.service.process import PATIENCE_SECONDS, Running, environment_for, is_alive, run
from tests.support.waiting import wait_for, wait_until

pytestmark = pytest.mark.parametrize("setup", ["full"], indirect=True)


def _count(running: Running, status: str = "200") -> float:
    text = running.ask("/metrics")[1].decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        one.value
        for one in samples
        if one.name == "service_request_seconds_count" and one.labels["status"] == status
    )


async def test_it_serves_and_tells_about_itself(stage: TestCluster, tmp_path: Path) -> None:
    with run(stage, tmp_path, workers=2) as running:
        async with Api(running.api) as api:
            user = await api.create()
            for _ in range(20):
                assert (await api.get(f"/v1/users/{user['id']}")).json == user
        wait_until(lambda: len(running.ready()["workers"]) == 2, PATIENCE_SECONDS)
        ready = running.ready()
        assert ready["status"] == "ready"
        assert {name: node["status"] for name, node in ready["nodes"].items()} == dict.fromkeys(ready["nodes"], "up")
        assert ready["catalog"] == "up"
        assert running.ask("/livez") == (200, b'{"status":"alive"}')
        assert running.ask("/version")[0] == 200
        assert running.ask("/v1/users")[0] == 404
        assert _count(running) == 20
        assert _count(running, "201") == 1
        families = {f.name for f in text_string_to_metric_families(running.ask("/metrics")[1].decode())}
        wanted = {"service_workers", "shardlib_pool_connections", "shardlib_node_up", "shardlib_pool_opened"}
        assert wanted <= families


async def test_a_dead_worker_is_replaced_and_its_counts_stay(stage: TestCluster, tmp_path: Path) -> None:
    with run(stage, tmp_path, workers=1) as running:
        async with Api(running.api) as api:
            user = await api.create()
            path = f"/v1/users/{user['id']}"
            for _ in range(7):
                await api.get(path)
            assert _count(running) == 7
            (worker,) = running.workers()
            os.kill(worker, signal.SIGKILL)
        async with Api(running.api) as api:  # waits in the socket's queue for the successor
            assert (await api.get(path)).json == user
        assert running.workers() != [worker]
        wait_until(lambda: _count(running) == 8, PATIENCE_SECONDS)
        wait_until(lambda: running.ready()["workers"][0]["restarts"] == 1, PATIENCE_SECONDS)
        assert [line for line in running.log() if line["event"] == "worker ended"]


async def test_a_stuck_worker_is_told_and_replaced(stage: TestCluster, tmp_path: Path) -> None:
    with run(stage, tmp_path, workers=2, stuck_seconds=4) as running:
        wait_until(lambda: len(running.ready().get("workers", ())) == 2, PATIENCE_SECONDS)
        stuck = running.workers()[0]
        os.kill(stuck, signal.SIGSTOP)
        wait_until(lambda: "stuck" in {worker["status"] for worker in running.ready()["workers"]}, PATIENCE_SECONDS)
        assert running.ask("/readyz")[0] == 200
        wait_until(lambda: not is_alive(stuck), PATIENCE_SECONDS)
        statuses = {"serving": 2}
        wait_until(lambda: Counter(one["status"] for one in running.ready()["workers"]) == statuses, PATIENCE_SECONDS)


async def test_no_worker_outlives_a_killed_supervisor(stage: TestCluster, tmp_path: Path) -> None:
    with run(stage, tmp_path, workers=2) as running:
        workers = running.workers()
        assert len(workers) == 2
        running.stop(signal.SIGKILL)
        running.ended()
        wait_until(lambda: not any(map(is_alive, workers)), PATIENCE_SECONDS)


async def _keep_reading(base: str, path: str, tally: dict[str, int], stopping: asyncio.Event) -> None:
    """Read over and over, as a client that honours ``Connection: close``; end when nobody listens any more.

    A connection that the kernel made while its listener closed is reset before anybody saw it: it counts as refused.
    """
    where = urlsplit(base)
    request = f"GET {path} HTTP/1.1\r\nHost: {where.hostname}\r\n\r\n".encode()
    while True:
        try:
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
        except ConnectionRefusedError:
            assert stopping.is_set()
            return
        except ConnectionResetError:
            assert stopping.is_set()
            continue
        closing = answered = False
        while not closing:
            writer.write(request)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except ConnectionResetError:
                assert stopping.is_set()
                assert not answered
                break
            answered = True
            length = re.search(rb"Content-Length: (\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
            tally["ok" if head.startswith(b"HTTP/1.1 200 ") else "failed"] += 1
            closing = b"\r\nConnection: close\r\n" in head
        writer.close()


async def test_a_stop_under_load_fails_no_request(stage: TestCluster, tmp_path: Path) -> None:
    with run(stage, tmp_path, workers=2) as running:
        async with Api(running.api) as api:
            user = await api.create()
        tally, stopping = {"ok": 0, "failed": 0}, asyncio.Event()
        clients = [
            asyncio.create_task(_keep_reading(running.api, f"/v1/users/{user['id']}", tally, stopping))
            for _ in range(16)
        ]
        await wait_for(lambda: tally["ok"] > 500, PATIENCE_SECONDS)
        stopping.set()
        running.stop()
        await asyncio.wait_for(asyncio.gather(*clients), PATIENCE_SECONDS)
        assert running.ended() == 0
        assert tally["failed"] == 0
        drained = [line for line in running.log() if line["event"] == "drained"]
        assert [line["in_flight"] for line in drained] == [0, 0]


async def test_while_it_drains_it_isnt_ready(stage: TestCluster, tmp_path: Path) -> None:
    with run(stage, tmp_path, workers=1, drain_delay_seconds=30) as running:
        (worker,) = running.workers()
        running.stop()
        wait_until(lambda: running.ask("/readyz")[0] == 503, PATIENCE_SECONDS)
        assert running.ready()["status"] == "draining"
        assert running.ask("/livez")[0] == 200
        async with Api(running.api) as api:
            answer = await api.get("/openapi.json")
            assert answer.status == 200
            assert answer.headers["Connection"] == "close"
        started = monotonic()
        running.stop()  # the second time it hurries
        assert running.ended() == 0
        assert monotonic() - started < 10
        assert not is_alive(worker)


def _refused(stage: TestCluster, **settings: object) -> str:
    command = [sys.executable, "-m", "service", "api"]
    environment = environment_for(stage, settings)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_port_is_said(stage: TestCluster, tmp_path: Path) -> None:
    with run(stage, tmp_path, workers=1) as running:
        taken = running.api.removeprefix("http://")
        said = _refused(stage, listen=taken, internal="127.0.0.1:0")
        assert f"can't listen on {taken}: Address already in use" in said


def test_bad_settings_are_said(stage: TestCluster) -> None:
    assert "SERVICE_LISTEN: accounts have no authentication yet" in _refused(stage, listen="0.0.0.0:8080")


def test_the_configuration_is_shown_without_its_secrets(stage: TestCluster) -> None:
    environment = environment_for(stage, {"workers": 3, "wrokers": 4})
    environment["SHARDLIB_CATALOG_URL"] = "postgresql://somebody:s3cret@127.0.0.1/catalog"
    command = [sys.executable, "-m", "service", "config", "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert shown["workers"] == 3
    assert shown["catalog_url"] == "postgresql://somebody:********@127.0.0.1/catalog"
    assert shown["cursor_key"] == shown["identifier_keys"] == "********"
    assert "SERVICE_WROKERS: no setting of that name" in done.stderr
    for secret in ("s3cret", "abab", environment["SERVICE_CURSOR_KEY"]):
        assert secret not in done.stdout + done.stderr


async def test_the_log_knows_no_user(stage: TestCluster, tmp_path: Path) -> None:
    canary = "canary7f3a"
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with run(stage, tmp_path, workers=1, log_requests="all", log_level="debug") as running:
        async with Api(running.api) as api:
            fields = {"name": canary, "username": canary, "profile": {canary: canary}}
            traced = f"00-{trace}-00f067aa0ba902b7-01"
            body = {"email": f"{canary}@example.com", **fields}
            answer = await api.call("POST", "/v1/users", body=body, Prefer="consistency-token", traceparent=traced)
            path, token = answer.headers["Location"], answer.headers["Consistency-Token"]
            await api.call("POST", "/v1/users", body={"email": body["email"]}, Idempotency_Key=canary)
            await api.call("POST", "/v1/users/lookup", body={"email": body["email"]})
            await api.call("PATCH", path, body={"name": [canary]})
            await api.call("POST", "/v1/users", raw=canary.encode(), Content_Type="application/json")
            await api.get(f"/v1/users/{canary}")
            await api.get(f"/{canary}?{canary}={canary}")
            await api.get(path, Consistency_Token=token, Cookie=canary, Authorization=canary)
            await api.call("DELETE", path)
        wait_until(lambda: len([line for line in running.log() if line["event"] == "request"]) >= 9, PATIENCE_SECONDS)
        lines = running.log()
        text = json.dumps(lines)
        for secret in (canary, token, path.rpartition("/")[2], "example.com"):
            assert secret not in text
        created = next(line for line in lines if line.get("trace_id") == trace)
        assert created["operation"] == "POST /v1/users"
        assert created["status"] == 201
        assert created["seconds"] > 0
        assert created["request_id"] == answer.headers["X-Request-Id"]
