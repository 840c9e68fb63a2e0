"""The door: what it does when what is behind it fails, is slow or is too busy. No database is needed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from service import logs
from service.door import Door, Limits, Server
from service.metrics import BOUNDS, Counts, Durations, total
from service.problem import Kind
from service.reply import Reply, header_lines
from service.route import Answer, Call, Route, Routes
from shardlib import errors
from tests.service.client import Api, check

LIMITS = Limits(in_flight=2, body_seconds=0.3, slow_seconds=5.0)
Handle = Callable[[Call], Awaitable[Reply]]


@asynccontextmanager
async def _behind(handle: Handle, method: str = "GET") -> AsyncIterator[Api]:
    route = Route(method, "/x", handle, "x", "X", {200: Answer("It.")})
    server = Server(Door(Routes([route]), Counts(), LIMITS), idle_seconds=5.0)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Api(f"http://127.0.0.1:{runner.addresses[0][1]}") as api:
        yield api
    await runner.cleanup()


async def test_a_bug_is_told_to_the_log_and_not_to_the_client(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(_: Call) -> Reply:
        raise RuntimeError("s3cret")

    logs.configure("info")  # onto the output that is captured here
    async with _behind(broken) as api, api._session.get("/x") as answer:
        problem = await answer.json(content_type="application/problem+json")
    assert (answer.status, problem["type"]) == (500, "/problems/internal")
    said = capsys.readouterr().out
    assert "s3cret" not in said + str(problem)
    line = next(json.loads(text) for text in said.splitlines() if '"request"' in text)
    assert line["error"] == "RuntimeError"
    assert "broken" in line["at"][-1]
    assert line["request_id"] == problem["request_id"]


@pytest.mark.parametrize(
    "error, kind",
    [
        (errors.NodeUnavailable("s3cret", node="node1"), Kind.UNAVAILABLE),
        (errors.Refused("s3cret"), Kind.UNAVAILABLE),
        (errors.Overloaded("s3cret"), Kind.OVERLOADED),
        (errors.DeadlineExceeded("s3cret"), Kind.DEADLINE),
        (errors.OutcomeUnknown("s3cret"), Kind.OUTCOME_UNKNOWN),
        (errors.WriteLost("s3cret"), Kind.WRITE_LOST),
        (errors.BadToken("s3cret"), Kind.BAD_TOKEN),
    ],
)
async def test_what_the_library_says_becomes_a_problem(error: Exception, kind: Kind) -> None:
    async def fails(_: Call) -> Reply:
        raise error

    async with _behind(fails) as api:
        problem = await api.problem("GET", "/x", kind.slug)
    assert "s3cret" not in str(problem)


async def test_more_than_fit_are_sent_away_at_once() -> None:
    gate = asyncio.Event()
    inside = asyncio.Semaphore(0)

    async def waits(_: Call) -> Reply:
        inside.release()
        await gate.wait()
        return Reply(200)

    async with _behind(waits) as api:
        held = [asyncio.create_task(api.get("/x")) for _ in range(LIMITS.in_flight)]
        for _ in held:
            await inside.acquire()
        await api.problem("GET", "/x", "overloaded")
        gate.set()
        assert [answer.status for answer in await asyncio.gather(*held)] == [200, 200]
        assert (await api.get("/x")).status == 200


async def test_a_body_that_doesnt_come_is_given_up() -> None:
    async def reads(call: Call) -> Reply:
        await call.raw_body()
        return Reply(200)

    async with _behind(reads, "POST") as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.base.rpartition(":")[2]))
        writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_slow_reader_gets_all_of_a_long_answer() -> None:
    content = b"x" * 8_000_000

    async def speaks(_: Call) -> Reply:
        return Reply(200, content)

    async with _behind(speaks) as api:
        answer = await api.get("/x")
        assert answer.content == content
        check(answer)


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", "\0", "é"])
def test_a_header_cannot_break_out_of_its_line(value: str) -> None:
    with pytest.raises(ValueError, match="not a header"):
        header_lines({"X": value})


def test_counts_of_processes_add_up() -> None:
    one, two = Counts(), Counts()
    for counts in (one, two):
        counts.observe("GET /x", 200, BOUNDS[0])
        counts.observe("GET /x", 200, 99.0)
    two.observe("GET /x", 404, 0.2)
    sums = {(entry.operation, entry.status): entry for entry in total([*one.durations(), *two.durations()])}
    found: Durations = sums["GET /x", 200]
    assert (found.buckets[0], found.buckets[-1], sum(found.buckets)) == (2, 2, 4)
    assert found.seconds == pytest.approx(2 * 99.0 + 2 * BOUNDS[0])
    assert sum(sums["GET /x", 404].buckets) == 1


def test_what_libraries_log_is_logged_without_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    try:
        raise ValueError("s3cret")
    except ValueError as error:
        logging.getLogger("somebody.else").error("it broke: %s", error, exc_info=error)
    line: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (line["logger"], line["message"], line["error"]) == ("somebody.else", "it broke: %s", "ValueError")
    assert "s3cret" not in str(line)
