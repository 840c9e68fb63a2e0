"""What a worker tells its supervisor, and how: values over a socket pair, each with its length in front."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import msgspec
from msgspec import Struct

from service.metrics import Durations
from shardlib import ClusterHealth

MAX_REPORT_BYTES = 16 * 1024 * 1024
ASK = b"?"
_PAGE = resource.getpagesize()
_encoder = msgspec.msgpack.Encoder()


class Report(Struct, frozen=True):
    """One worker, as it is and what it counted. Times are seconds."""

    pid: int
    closing: bool
    in_flight: int
    cpu_seconds: float
    resident_bytes: int
    late_seconds: float  # how late the event loop wakes up
    durations: list[Durations]
    cluster: ClusterHealth


_decoder = msgspec.msgpack.Decoder(Report)


def resident_bytes() -> int:
    """Return how much memory this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def cpu_seconds() -> float:
    """Return how much processor time this process has used."""
    times = os.times()
    return times.user + times.system


async def send(writer: asyncio.StreamWriter, report: Report) -> None:
    """Send a report."""
    data = _encoder.encode(report)
    writer.write(len(data).to_bytes(4) + data)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> Report:
    """Return the next report; IncompleteReadError when the worker is gone."""
    size = int.from_bytes(await reader.readexactly(4))
    if size > MAX_REPORT_BYTES:
        raise ValueError(f"a report of {size} bytes")
    return _decoder.decode(await reader.readexactly(size))
