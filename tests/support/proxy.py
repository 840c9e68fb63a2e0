"""A TCP proxy that makes faults on the wire: stalls, one-way stalls, latency, cuts at a byte.

    async with FaultProxy(port) as proxy:
        proxy.cut(UP, b"COMMIT", after=3)      # the server gets "COM", then the connection breaks
        proxy.stall(DOWN)                      # requests arrive, answers don't
        proxy.go_on()

What isn't forwarded is kept, not lost, as a network would: after ``go_on`` it arrives. Both ends see a reset on a cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

CHUNK_BYTES = 65_536


class Direction(Enum):
    """Which way bytes go."""

    UP = "to the server"
    DOWN = "to the client"


UP, DOWN = Direction.UP, Direction.DOWN


@dataclass(frozen=True)
class Cut:
    """Where the wire breaks: so many bytes after the start of the first place that matches."""

    pattern: bytes
    after: int

    def split(self, held: bytes) -> tuple[bytes, bytes, bool]:
        """Divide what has come into (forward now, keep until more has come, whether the wire breaks now)."""
        place = held.find(self.pattern)
        if place >= 0 and len(held) >= place + self.after:
            return held[: place + self.after], b"", True
        if place >= 0:
            return held[:place], held[place:], False
        keep = self._possible_start(held)
        return held[: len(held) - keep], held[len(held) - keep :], False

    def _possible_start(self, held: bytes) -> int:
        """Count the last bytes that may become the pattern."""
        longest = min(len(self.pattern) - 1, len(held))
        return next((n for n in range(longest, 0, -1) if self.pattern.startswith(held[-n:])), 0)


@dataclass
class Lane:
    """One direction of all connections: its faults, and what has passed."""

    moving: asyncio.Event = field(default_factory=asyncio.Event)
    latency_seconds: float = 0.0
    cut: Cut | None = None
    passed_bytes: int = 0
    pieces: int = 0  # as they were read: a small message that was written at once is one


class FaultProxy:
    """Forwards connections from a port of its own to a server's, with the faults that it is told to make."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """Remember the server; nothing is opened before ``async with``."""
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.lanes = {UP: Lane(), DOWN: Lane()}
        self.was_cut = asyncio.Event()
        self.connections = 0  # that were made so far
        self._closing = False
        self.go_on()

    def __repr__(self) -> str:
        """Show the two ports."""
        return f"<FaultProxy {self.port} -> {self._target[1]}>"

    async def __aenter__(self) -> Self:
        """Start to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything and stop listening."""
        assert self._server is not None
        self._server.close()
        self._closing = True
        for _turn in range(3):  # loop turns in which what was accepted already gets its task
            await asyncio.sleep(0)
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where clients connect."""
        assert self._server is not None
        number = self._server.sockets[0].getsockname()[1]
        assert isinstance(number, int)
        return number

    def url(self, url: str) -> str:
        """Return a server's URL with the proxy's port in it."""
        return re.sub(r":\d+/", f":{self.port}/", url, count=1)

    # -- faults

    def stall(self, *directions: Direction) -> None:
        """Hold back what goes these ways, or both ways; connections stay open, and new ones are accepted."""
        for direction in directions or (UP, DOWN):
            self.lanes[direction].moving.clear()

    def go_on(self) -> None:
        """Deliver what was held back, and from now on everything."""
        for lane in self.lanes.values():
            lane.moving.set()

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Deliver each piece that goes these ways, or both ways, later by this time."""
        for direction in directions or (UP, DOWN):
            self.lanes[direction].latency_seconds = seconds

    def cut(self, direction: Direction, pattern: bytes = b"", *, after: int = 0) -> None:
        """Break the connection on which the pattern passes, once, ``after`` bytes from the pattern's start.

        Without a pattern: after that many more bytes of the next piece.
        """
        self.was_cut.clear()
        self.lanes[direction].cut = Cut(pattern, after)

    def cut_all(self) -> None:
        """Break all connections now."""
        for writer in list(self._writers):
            reset(writer)

    # -- forwarding

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:
            reset(writer)
            return
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            reset(writer)  # and no more: asyncio's server can't bear a cancelled task
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            reset(writer)
            return
        pair = {writer, far_writer}
        self._writers |= pair
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, self.lanes[UP])),
            asyncio.create_task(self._pump(far_reader, writer, self.lanes[DOWN])),
        ]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if any(pump.result() for pump in done):
                for end in pair:
                    reset(end)
        finally:
            self._writers -= pair
            for pump in pumps:
                pump.cancel()
            for end in pair:
                end.close()  # before anything is awaited: this task may be cancelled there
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lane: Lane) -> bool:
        """Forward until an end closes; True when the wire was cut."""
        held = b""
        writer.transport.set_write_buffer_limits(high=0)  # drain waits for all: a reset throws the buffer away
        with contextlib.suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                held += piece
                if lane.latency_seconds:
                    await asyncio.sleep(lane.latency_seconds)
                await lane.moving.wait()
                now, held, breaks = lane.cut.split(held) if lane.cut else (held, b"", False)
                writer.write(now)
                await writer.drain()
                lane.passed_bytes += len(now)
                lane.pieces += bool(now)
                if breaks:
                    lane.cut = None
                    self.was_cut.set()
                    return True
        return False


def reset(writer: asyncio.StreamWriter) -> None:
    """Close at once with a reset, as a peer that crashed."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
