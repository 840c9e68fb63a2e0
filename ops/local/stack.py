"""The stack as a whole: what there is, in which order it starts and stops, and how it is repaired.

Every step finds out what is there and does what is missing, so ``up`` is also the repair after a crash of any part.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ops.local import doors, parts
from ops.local.layout import CATALOG, INTERNAL, MARK, Layout, Refusal
from shardlib import admin
from shardlib.core.topology import Node
from shardlib.testing import processes
from shardlib.testing.cluster import CATALOG_DATABASE, NODE_DATABASE, LocalCluster, NodeServers
from shardlib.testing.programs import finish, settle
from shardlib.testing.secrets_file import ADMIN, APPLICATION, write_private
from shardlib.testing.settings import DURABLE

KEYSPACES = {"users": "uuid_tail", "identifiers": "str"}
KEPT_BY_RESET = {"lock"}
Say = Callable[[str], None]


class Part(Protocol):
    """A server of the stack: a PostgresServer or a Daemon."""

    @property
    def name(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def running(self) -> bool: ...
    def processes(self) -> list[int]: ...
    def clear_away(self) -> None: ...
    def ask_to_stop(self) -> None: ...
    def wait_stopped(self) -> None: ...


@dataclass(frozen=True)
class PartStatus:
    """One line of ``status``."""

    name: str
    port: int
    pid: int | None


class Stack:
    """The local stack in one layout; ``tied`` parts that it starts die with this process."""

    def __init__(self, layout: Layout, *, tied: bool = False) -> None:
        """Describe the stack; nothing is read or made yet."""
        self.layout = layout
        self.cluster = LocalCluster(
            layout.directory, layout.port(CATALOG), layout.node_ports, DURABLE, tied=tied
        )
        self.environment = {**self.cluster.environment, **parts.service_environment(layout)}
        self.valkey = parts.valkey(layout, tied=tied)
        self.service = parts.service(layout, self.environment, tied=tied)

    @property
    def parts(self) -> list[Part]:
        """All servers, in the order in which they start."""
        return [*self.cluster.servers, self.valkey, self.service]

    # -- up

    def up(self, say: Say) -> None:
        """Start what doesn't run, make what is missing; return when the service is ready."""
        self._check_ports()
        self.prepare()
        with timed(say, f"Postgres: {len(self.cluster.servers)} servers"):
            self._start_postgres()
        with timed(say, "Valkey"):
            self.valkey.launch()
            self.valkey.wait_ready()
        with timed(say, "catalog, nodes, keyspaces"):
            self._initialise(list(self.cluster.nodes))
        with timed(say, "migrations"):
            self._migrate()
        with timed(say, "service"):
            self.service.launch()
            self.service.wait_ready()

    def prepare(self) -> None:
        """Write what is only files: the secrets, Valkey's settings, what a shell sources."""
        self.layout.save()
        parts.make_secrets(self.layout)
        named = {**self.environment, "LOCAL_PORT_OFFSET": str(self.layout.offset)}
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in named.items())
        write_private(self.layout.directory / "env", "".join(lines))

    def _check_ports(self) -> None:
        missing = [part for part in self.parts if not part.running]
        for part in missing:
            part.clear_away()  # what a killed one left may still hold its port
        wanted = {part.port: part.name for part in missing}
        if not self.service.running:
            wanted[self.layout.port(INTERNAL)] = "service, internal"
        everything = [*(part.port for part in self.parts), self.layout.port(INTERNAL)]
        doors.check(wanted, self.layout, everything)

    def _start_postgres(self) -> None:
        is_new = any(not server.exists for server in self.cluster.servers)
        self.cluster.start()
        self.cluster.create_databases()
        if is_new:
            os.sync()  # the data directories were copied without waiting for the disk

    def _initialise(self, nodes: list[NodeServers]) -> None:
        os.environ.update(self.environment)
        asyncio.run(self._initialise_catalog(nodes))

    async def _initialise_catalog(self, nodes: list[NodeServers]) -> None:
        """Install the bookkeeping or bring it up to date; what an operator set for a node stays."""
        url = self.cluster.catalog.url(CATALOG_DATABASE, ADMIN)
        await admin.init_catalog(url)
        known = (await admin.read_topology(url)).nodes
        for node in nodes:
            await admin.add_node(url, self._described(node, known.get(node.name)))
        for name, hash_name in KEYSPACES.items():
            await admin.create_keyspace(url, name, hash_name)

    def _described(self, servers: NodeServers, known: Node | None) -> Node:
        local = self.layout.nodes[servers.name]
        node = known or Node(servers.name, "", weight=local.weight, region=local.region, zone=local.zone)
        direct = servers.primary.url(NODE_DATABASE, ADMIN)
        return replace(
            node,
            url=servers.primary.url(NODE_DATABASE, APPLICATION),
            admin_url=direct,
            replication_url=direct,
            replicas=tuple(replica.url(NODE_DATABASE, APPLICATION) for replica in servers.replicas),
        )

    def _migrate(self) -> None:
        finish([sys.executable, "-m", "migrations", "apply"], environment={**self.environment, **parts.python_path()})

    def add_node(self, name: str, say: Say) -> None:
        """Start one more node, which the layout has already, and enter it in the catalog; it owns no bucket yet."""
        if not self.cluster.catalog.running:
            raise Refusal("the stack doesn't run: make up")
        added = [node for node in self.cluster.nodes if node.name == name]
        doors.check(
            {server.port: server.name for node in added for server in (node.primary, *node.replicas)}, self.layout, []
        )
        self.layout.save()
        with timed(say, f"Postgres: {name}"):
            self._start_postgres()
        with timed(say, "bookkeeping and migrations"):
            self._initialise(added)
            self._migrate()

    # -- down

    def down(self) -> None:
        """Stop everything in order: the service first, then the others at the same time."""
        groups: list[list[Part]] = [[self.service], [self.valkey, *self.cluster.servers]]
        for group in groups:
            for part in group:
                part.ask_to_stop()
            for part in group:
                part.wait_stopped()

    def end(self) -> None:
        """End everything at once, whatever state it is in; Postgres keeps what was committed."""
        settle()
        processes.send(self._processes(), signal.SIGCONT)
        processes.end(self._processes, signal.SIGQUIT)

    def _processes(self) -> list[int]:
        """List our programs in our directories: no other program there is ours to end."""
        return [pid for part in self.parts for pid in part.processes()]

    def status(self) -> list[PartStatus]:
        """Say what runs."""
        return [PartStatus(part.name, part.port, part.pid) for part in self.parts]


def holds_stack(directory: Path) -> bool:
    """Tell whether there is a stack in a directory; Refusal when there is something else."""
    if (directory / MARK).exists():
        return True
    if directory.exists() and set(os.listdir(directory)) - KEPT_BY_RESET:
        raise Refusal(f"{directory} holds no local stack (no {MARK}): nothing was stopped or removed")
    return False


def forget(directory: Path) -> None:
    """Remove what the stack keeps in its directory; the mark of a stack goes last, so that this can be repeated."""
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in {MARK, *KEPT_BY_RESET}:
            entry.unlink()
    (directory / MARK).unlink()


@contextlib.contextmanager
def timed(say: Say, what: str) -> Iterator[None]:
    """Say how long something took."""
    started = time.monotonic()
    yield
    say(f"  {what:<32} {time.monotonic() - started:5.1f} s")
