"""Where the local stack is: its directory, its ports, and what it remembers between starts.

    .local/             0700
      stack.json        the port offset and the nodes
      env               what a shell sources to reach the stack
      secrets/          one file per password and key, 0600
      catalog/ node1/ node1_replica1/ ...   Postgres: data/ and log
      valkey/ service/  the others: log, pid, and what they keep
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from shardlib.testing.cluster import NodePorts

ROOT = Path(__file__).resolve().parents[2]
CATALOG, PRIMARIES, REPLICAS, VALKEY, SERVICE, INTERNAL = 5400, 5400, 5410, 6400, 8080, 8081
MOST_NODES = 9  # ports of primaries and replicas would meet
HIGHEST_PORT = 32_767  # above, the kernel hands ports to outgoing connections
STEP = 1000
MARK = "stack.json"  # by which a directory is known as a stack's


class Refusal(Exception):
    """The stack can't do what was asked; the message says why and what to do."""


@dataclass(frozen=True)
class LocalNode:
    """A node of the stack: its number gives its ports."""

    number: int
    weight: float = 1.0
    region: str = ""
    zone: str = ""


FIRST_NODES = {f"node{number}": LocalNode(number) for number in (1, 2, 3)}


@dataclass(frozen=True)
class Layout:
    """One stack's place and ports."""

    directory: Path
    offset: int = 0
    nodes: Mapping[str, LocalNode] = field(default_factory=lambda: FIRST_NODES)

    def port(self, plain: int) -> int:
        """Return the port to use where ``plain`` is meant."""
        return plain + self.offset

    @property
    def node_ports(self) -> dict[str, NodePorts]:
        """Where each node's servers listen."""
        return {
            name: NodePorts(self.port(PRIMARIES + node.number), (self.port(REPLICAS + node.number),))
            for name, node in self.nodes.items()
        }

    def with_node(self, name: str, *, weight: float, region: str, zone: str) -> Layout:
        """Return a layout with one more node; Refusal when it is there or there is no room."""
        if name in self.nodes:
            raise Refusal(f"there is a {name} already")
        free = set(range(1, MOST_NODES + 1)) - {node.number for node in self.nodes.values()}
        if not free:
            raise Refusal(f"a local stack has at most {MOST_NODES} nodes")
        return replace(self, nodes={**self.nodes, name: LocalNode(min(free), weight, region, zone)})

    def save(self) -> None:
        """Remember the offset and the nodes."""
        known = {"offset": self.offset, "nodes": {name: asdict(node) for name, node in self.nodes.items()}}
        partial = self.directory / f"{MARK}.partial"
        partial.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        partial.rename(self.directory / MARK)


def state_directory() -> Path:
    """Return LOCAL_STATE_DIR, else ``.local`` in the repository."""
    return Path(os.environ.get("LOCAL_STATE_DIR") or ROOT / ".local").absolute()


def remembered(directory: Path) -> Layout:
    """Return the layout with which the stack was last started, or the first one."""
    file = directory / MARK
    if not file.exists():
        return Layout(directory)
    known = json.loads(file.read_text(encoding="utf-8"))
    return Layout(directory, known["offset"], {name: LocalNode(**facts) for name, facts in known["nodes"].items()})


def wanted(directory: Path) -> Layout:
    """Return the layout to start with: the remembered one, but LOCAL_PORT_OFFSET wins."""
    named = os.environ.get("LOCAL_PORT_OFFSET")
    layout = remembered(directory)
    return replace(layout, offset=_checked_offset(named)) if named else layout


def _checked_offset(text: str) -> int:
    limit = HIGHEST_PORT - INTERNAL
    if not text.isdecimal() or int(text) > limit:
        raise Refusal(f"LOCAL_PORT_OFFSET={text}: a number from 0 to {limit} is needed")
    return int(text)
