"""The last topology in a file, so that a process can start while the catalog is down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from shardlib.core.topology import Keyspace, Node, Since, Topology
from shardlib.errors import InvalidTopology

_FORMAT = 1


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    incarnation: int
    epoch: int
    nodes: list[Node]
    keyspaces: list[dict[str, Any]]


def save(path: Path, topology: Topology) -> None:
    """Replace the file by this topology, all or nothing; addresses only, no passwords."""
    keyspaces: list[dict[str, Any]] = [
        {
            "name": keyspace.name,
            "hash": keyspace.hash,
            "owners": keyspace.owners,
            "since": dict(keyspace.since.items()),
            "moving": dict(keyspace.moving.items()),
        }
        for keyspace in topology.keyspaces.values()
    ]
    content = _File(_FORMAT, topology.incarnation, topology.epoch, list(topology.nodes.values()), keyspaces)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=0))
    draft.replace(path)


def load(path: Path) -> Topology | None:
    """Return the topology in the file, None if there is no file; InvalidTopology for one that can't be used."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, OSError) as error:
        raise InvalidTopology(f"{path} is not a snapshot: {error}") from error
    if content.format != _FORMAT:
        raise InvalidTopology(f"{path} has format {content.format}, this version reads {_FORMAT}")
    nodes = {node.name: node for node in content.nodes}
    keyspaces = {entry["name"]: _keyspace(entry) for entry in content.keyspaces}
    return Topology(content.incarnation, content.epoch, nodes, keyspaces).check()


def _keyspace(entry: dict[str, Any]) -> Keyspace:
    since = msgspec.convert(entry["since"], dict[int, Since], strict=False)
    moving = msgspec.convert(entry["moving"], dict[int, str], strict=False)
    return Keyspace(entry["name"], entry["hash"], tuple(entry["owners"]), since, moving)
