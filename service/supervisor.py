"""The parent of the workers: keeps them running, adds up what they count, and brings them down in order.

DESIGN. Each worker has a listening socket of its own on the shared port (SO_REUSEPORT: the kernel spreads connections),
but the supervisor made it and keeps it open, so that connections that wait for a worker that died are served by its
successor. The socket pair between the two has two uses: reports, and noticing each other's death.

A stop goes: not ready -> each worker ends its connections with their next answer, stops accepting, lets requests end
-> workers exit -> exit 0. A second signal skips the waiting.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any

import structlog
from aiohttp import web

from service.fleet import Fleet, WorkerState
from service.internal import internal_server
from service.reports import ASK, Report, receive
from service.settings import Address, BadSettings, Settings
from service.worker import BACKLOG, ending_seconds

REPORT_SECONDS = 1.0  # how old a report gets before the next one is asked for
ANSWER_SECONDS = 2.0  # a worker whose event loop takes longer is called stuck
RESTART_SECONDS = (0.1, 5.0)  # the first pause before a restart, doubled up to the last
HEALTHY_SECONDS = 10.0  # a worker that lived as long starts the pauses anew
GRACE_SECONDS = 3.0  # on top of an orderly end, before a worker is killed
log = structlog.get_logger()

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Slot:
    """One worker after the other, on one listening socket."""

    def __init__(self, index: int, listening: socket.socket, state: WorkerState, stuck_seconds: float) -> None:
        self.index = index
        self.state = state
        self._stuck_seconds = stuck_seconds
        self._listening = listening
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._asked = asyncio.Lock()
        self._wire: Wire | None = None

    async def run(self) -> None:
        """Keep a worker running until ``stop``."""
        pause = RESTART_SECONDS[0]
        while not self._stopping.is_set():
            started = monotonic()
            how = await self._tried_life()
            self.state.died()
            if self._stopping.is_set():
                return
            lived = monotonic() - started
            pause = RESTART_SECONDS[0] if lived > HEALTHY_SECONDS else min(pause * 2, RESTART_SECONDS[1])
            log.error("worker ended", worker=self.index, lived_seconds=round(lived, 3), restart_in=pause, **how)
            self.state.restarts += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def report(self, max_age_seconds: float) -> Report | None:
        """Return a report that is at most so old, or None from a worker that doesn't answer."""
        async with self._asked:
            if self.state.report is None or monotonic() - self.state.reported_at > max_age_seconds:
                await self._ask()
        return self.state.report

    def stop(self) -> None:
        """Tell the worker to drain; told twice, it hurries."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker at once."""
        if self._process is not None and self._process.returncode is None:
            log.error("worker killed", worker=self.index)
            with suppress(ProcessLookupError):  # it ended, and we have yet to hear of it
                self._process.kill()

    async def _tried_life(self) -> dict[str, Any]:
        """Live one life, or fail to (no memory for a fork, say), and tell how it ended: a seat must not stay empty."""
        try:
            return {"code": await self._one_life()}
        except Exception as error:
            self.kill()
            return {"exc_info": error}

    async def _one_life(self) -> int:
        self._process, self._wire = await self._start()
        self.state.pid = self._process.pid
        if self._stopping.is_set():
            self._process.terminate()
        asking = asyncio.create_task(self._keep_asking())
        try:
            return await self._process.wait()
        finally:
            asking.cancel()
            self._wire[1].close()
            self._wire = None

    async def _start(self) -> tuple[asyncio.subprocess.Process, Wire]:
        mine, theirs = socket.socketpair()
        with theirs:
            wire = await asyncio.open_connection(sock=mine)
            numbers = (self._listening.fileno(), theirs.fileno())
            command = (sys.executable, "-m", "service", "worker-process", *map(str, numbers))
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, pass_fds=numbers, stdin=asyncio.subprocess.DEVNULL
                )
            except BaseException:
                wire[1].close()
                raise
        return process, wire

    async def _keep_asking(self) -> None:
        heard = monotonic()
        while True:
            await self.report(REPORT_SECONDS)
            if not self.state.owing or self.state.report is None:  # it answers, or has yet to start
                heard = monotonic()
            elif monotonic() - heard > self._stuck_seconds:
                self.kill()
            await asyncio.sleep(REPORT_SECONDS)

    async def _ask(self) -> None:
        if self._wire is None:
            return
        reader, writer = self._wire
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if not self.state.owing:
                    writer.write(ASK)
                self.state.owing = True
                self.state.heard(await receive(reader))
        except (TimeoutError, OSError, EOFError):
            return  # it is stuck, or about to end; ``owing`` tells
        except Exception as error:  # it talks nonsense, stays owing, and will be replaced as if it were stuck
            log.error("report", worker=self.index, exc_info=error)


class Supervisor:
    """All workers, the internal port, and the order in which things start and stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fleet = Fleet()
        self._slots: list[Slot] = []
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        with ExitStack() as sockets:
            listening = listen(self._settings.listen_address, self._settings.workers)
            for one in listening:
                sockets.enter_context(one)
            inside = sockets.enter_context(listen(self._settings.internal_address, 1)[0])
            self._slots = [self._slot(i, one) for i, one in enumerate(listening)]
            runner = web.ServerRunner(internal_server(self._fleet, self._refresh), shutdown_timeout=1.0)
            await runner.setup()
            await web.SockSite(runner, inside).start()
            self._announce(listening[0], inside)
            tasks = [asyncio.create_task(slot.run()) for slot in self._slots]
            await self._stop.wait()
            self._fleet.draining = True
            for one in listening:
                one.close()  # the workers have the last handles, so that theirs is the last word
            await self._bring_down(tasks)
            await runner.cleanup()
        log.info("stopped")

    def _slot(self, index: int, listening: socket.socket) -> Slot:
        return Slot(index, listening, self._fleet.add_worker(index), self._settings.stuck_seconds)

    def _signalled(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _announce(self, public: socket.socket, inside: socket.socket) -> None:
        log.info(
            "serving",
            api=str(Address(*public.getsockname()[:2])),
            internal=str(Address(*inside.getsockname()[:2])),
            workers=self._settings.workers,
            note="no authentication yet: loopback only",
        )

    async def _refresh(self) -> None:
        """Have fresh reports of all workers that answer."""
        await asyncio.gather(*(slot.report(0.0) for slot in self._slots))

    async def _bring_down(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        limit = ending_seconds(self._settings) + GRACE_SECONDS
        ended = asyncio.create_task(_all(tasks))
        hurried = asyncio.create_task(self._hurry.wait())
        for slot in self._slots:
            slot.stop()
        await asyncio.wait([ended, hurried], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            for slot in self._slots:
                slot.stop()
            await asyncio.wait([ended], timeout=GRACE_SECONDS)
        if not ended.done():
            for slot in self._slots:
                slot.kill()
        hurried.cancel()
        await ended


async def _all(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


def listen(address: Address, count: int) -> list[socket.socket]:
    """Return so many sockets that listen on one port; BadSettings when somebody else has it.

    SO_REUSEPORT would let two services share a port unnoticed, so the first bind is done without it.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    port = address.port
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, port))
        except OSError as error:
            raise BadSettings(f"can't listen on {address}: {os.strerror(error.errno or 0)}") from None
        port = probe.getsockname()[1]
    return [_shared(family, (address.host, port)) for _ in range(count)]


def _shared(family: int, where: tuple[str, int]) -> socket.socket:
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.setblocking(False)
    one.bind(where)
    one.listen(BACKLOG)
    return one
