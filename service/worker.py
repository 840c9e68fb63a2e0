"""One worker process: serves the listening socket that its supervisor handed down, reports when asked, drains, ends.

It ends by itself when the supervisor's end of the control socket closes, so that it outlives no supervisor, however
that one died.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from contextlib import suppress
from time import perf_counter

import structlog
from aiohttp import web

from service import logs
from service.app import SETTLE_SECONDS, Service, open_service
from service.loop import new_event_loop
from service.reports import ASK, Report, cpu_seconds, resident_bytes, send
from service.settings import Settings

BACKLOG = 1024
LATE_SECONDS = 0.3  # the requests of connections that were made last are on the way
_POLL_SECONDS = 0.02
log = structlog.get_logger()


async def serve(settings: Settings, listening: socket.socket, control: socket.socket) -> None:
    """Serve until told to stop: the first SIGTERM (or the supervisor's death) drains, the second ends at once."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (hurry if stop.is_set() else stop).set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told)
    async with open_service(settings) as service:
        runner = web.ServerRunner(service.server, shutdown_timeout=0.1)
        await runner.setup()
        site = web.SockSite(runner, listening, backlog=BACKLOG)
        await site.start()
        reader, writer = await asyncio.open_connection(sock=control)
        reporting = asyncio.create_task(_report(service, reader, writer, stop))
        gc.freeze()  # what lives now lives until the end: the collector needn't look at it again
        await stop.wait()
        await _drain(service, site, listening.dup(), (settings, hurry))
        await runner.cleanup()
        reporting.cancel()
        writer.close()


def ending_seconds(settings: Settings) -> float:
    """Return how long an orderly end may take: draining, the steps behind answers, commits that are under way."""
    draining = settings.drain_delay_seconds + LATE_SECONDS + settings.drain_seconds
    return draining + SETTLE_SECONDS + settings.request_seconds


async def _drain(
    service: Service, site: web.SockSite, port: socket.socket, bounds: tuple[Settings, asyncio.Event]
) -> None:
    """Let every client learn that the connection ends, stop accepting, let what is under way end."""
    settings, hurry = bounds
    log.info("draining", in_flight=service.counts.in_flight)
    service.door.closing = True
    await _wait(hurry, settings.drain_delay_seconds)
    await site.stop()
    await _empty(service, port)
    await _wait(hurry, LATE_SECONDS)
    ends = asyncio.get_running_loop().time() + settings.drain_seconds
    while _is_busy(service) and not hurry.is_set() and asyncio.get_running_loop().time() < ends:
        await _wait(hurry, _POLL_SECONDS)
    log.info("drained", in_flight=service.counts.in_flight)


def _is_busy(service: Service) -> bool:
    return bool(service.counts.in_flight or service.afterwards.under_way)


async def _empty(service: Service, port: socket.socket) -> None:
    """Serve the connections that the kernel had already made when accepting ended, then close the port for good."""
    taken = []
    with port:
        port.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                taken.append(port.accept()[0])
    for connection in taken:
        connection.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(service.server, connection)


async def _wait(hurry: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(hurry.wait(), seconds)


async def _report(
    service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stop: asyncio.Event
) -> None:
    """Answer the supervisor's questions; its silence for good means stop."""
    with suppress(ConnectionError):
        while await reader.read(1) == ASK:
            await send(writer, await _look(service))
    stop.set()


async def _look(service: Service) -> Report:
    asked = perf_counter()
    await asyncio.sleep(0)  # how long the loop takes to come round
    return Report(
        pid=os.getpid(),
        closing=service.door.closing,
        in_flight=service.counts.in_flight,
        cpu_seconds=cpu_seconds(),
        resident_bytes=resident_bytes(),
        late_seconds=perf_counter() - asked,
        durations=service.counts.durations(),
        cluster=service.cluster.health(),
    )


def main(settings: Settings, listening: int, control: int) -> None:
    """Run as a worker on inherited sockets. Ctrl-C reaches it too, but it is the supervisor that says stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(settings.log_level, pid=os.getpid())
    with socket.socket(fileno=listening) as port, socket.socket(fileno=control) as wire:
        port.setblocking(False)
        wire.setblocking(False)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(settings, port, wire))
