"""Load an HTTP server over keep-alive connections and say how it did; cheap enough not to be the bottleneck.

    python -m bench.load PORT CONNECTIONS SECONDS < paths

Prints one JSON object: requests, seconds, p50_ms, p99_ms, failed (answers other than 200), and its own CPU time per
request. Each connection sends its next request when the last answer is complete. Answers need a Content-Length.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import uvloop

PATIENCE_SECONDS = 10.0  # for the last answers
_LENGTH = b"\r\nContent-Length: "


class Caller(asyncio.Protocol):
    """One connection: asks for one path after another until the time is up."""

    def __init__(self, requests: Iterator[bytes], until: float, taken: list[float]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.failed = 0
        self._requests = requests
        self._until = until
        self._taken = taken
        self._left = -1  # bytes of the answer still to come; -1: its head isn't complete
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is no asyncio.Transport by its class
        self._ask()

    def _ask(self) -> None:
        self._left = -1
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            self._head = b""
            start = data.index(_LENGTH) + len(_LENGTH)
            self._left = end + 4 + int(data[start:data.index(b"\r\n", start)])
            if data[9:12] != b"200":
                self.failed += 1
        self._left -= len(data)
        if self._left <= 0:
            self._answered()

    def _answered(self) -> None:
        now = time.perf_counter()
        self._taken.append(now - self._sent)
        if now < self._until:
            self._ask()
        else:
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


async def load(port: int, paths: Sequence[str], connections: int, seconds: float) -> dict[str, float]:
    """Run the load; raise ConnectionError when the server drops a connection."""
    requests = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("ascii") for path in paths]
    taken: list[float] = []
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    callers = []
    for number in range(connections):
        share = itertools.cycle(requests[number::connections])
        _, caller = await loop.create_connection(
            lambda share=share: Caller(share, started + seconds, taken), "127.0.0.1", port  # type: ignore[misc]
        )
        callers.append(caller)
    async with asyncio.timeout(seconds + PATIENCE_SECONDS):
        await asyncio.gather(*(caller.done for caller in callers))
    spent = time.perf_counter() - started
    taken.sort()
    return {
        "requests": len(taken),
        "seconds": spent,
        "p50_ms": taken[len(taken) // 2] * 1000,
        "p99_ms": taken[len(taken) * 99 // 100] * 1000,
        "failed": sum(caller.failed for caller in callers),
        "cpu_us": time.process_time() / len(taken) * 1e6,
    }


def main(port: str, connections: str, seconds: str) -> None:
    figures = uvloop.run(load(int(port), sys.stdin.read().split(), int(connections), float(seconds)))
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
