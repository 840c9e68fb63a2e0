"""Before anything is started: is each port ours to take, and if not, whose is it?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ops.local.layout import HIGHEST_PORT, INTERNAL, STEP, Layout, Refusal
from shardlib.testing import ports, processes

ORPHAN_SECONDS = 5.0  # a socket that io_uring held outlives its process for a moment


def check(wanted: Mapping[int, str], layout: Layout, all_ports: Iterable[int]) -> None:
    """Raise Refusal when one of the wanted ports (port: who wants it) is taken, with its owner and a way out."""
    taken = taken_of(wanted)
    if not taken:
        return
    lines = [f"port {port} ({wanted[port]}) is taken by {owner(port)}" for port in taken]
    offset = free_offset(layout, [port - layout.offset for port in all_ports])
    if offset is None:
        lines.append("stop that, or choose other ports with LOCAL_PORT_OFFSET")
    else:
        lines.append(f"stop that, or choose other ports: LOCAL_PORT_OFFSET={offset} make up")
    raise Refusal("\n".join(lines))


def taken_of(wanted: Iterable[int]) -> list[int]:
    """Return the ports that are taken; one that nobody visible holds may be a dead process's that the kernel frees."""
    until = time.monotonic() + ORPHAN_SECONDS
    while True:
        taken = [port for port in wanted if not ports.is_free(port)]
        if all(processes.listener(port) for port in taken) or time.monotonic() > until:
            return taken
        time.sleep(0.05)


def owner(port: int) -> str:
    """Describe who listens on a port, as far as we may see."""
    pid = processes.listener(port)
    if pid is None:
        return "a process that we may not see (another user's, or another container's)"
    return f"pid {pid}: {processes.command_line(pid)}"


def free_offset(layout: Layout, plain_ports: list[int]) -> int | None:
    """Find the first other offset at which every port is free now."""
    for offset in range(0, HIGHEST_PORT - INTERNAL, STEP):
        moved = replace(layout, offset=offset)
        if offset != layout.offset and all(ports.is_free(moved.port(port)) for port in plain_ports):
            return offset
    return None
