"""``shardctl where``: from a key to its node."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import click

from shardlib.cli.catalog import read_catalog, run
from shardlib.cli.output import json_option, show
from shardlib.cli.settings import Settings
from shardlib.core.keys import Key, hash_named
from shardlib.core.topology import Keyspace, Topology
from shardlib.errors import WrongKey
from shardlib.testing.binaries import find_binaries
from shardlib.testing.programs import EngineError

_TYPES: dict[type, tuple[int, str]] = {int: (0, "an integer"), UUID: (1, "a UUID"), str: (2, "text")}  # narrowest first


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a key lives. ``psql`` is a line for a shell, without a password in it."""

    keyspace: str
    key: Key
    bucket: int
    buckets: int
    node: str
    url: str
    replicas: tuple[str, ...]
    moving: str | None
    epoch: int
    psql: str


class KeyCommand(click.Command):
    """A command whose argument may be a negative number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put what looks like a negative number behind ``--``, where it is no option."""
        negative = [arg for arg in args if re.fullmatch(r"-\d+", arg)]
        if negative and "--" not in args:
            args = [*(arg for arg in args if arg not in negative), "--", *negative]
        return super().parse_args(ctx, args)


@click.command("where", cls=KeyCommand)
@click.argument("key")
@click.option("--keyspace", help="Which one is meant; else those whose keys are of the narrowest type that fits.")
@json_option
@click.pass_obj
def command(settings: Settings, key: str, keyspace: str | None, as_json: bool) -> None:
    """Say where KEY lives: bucket, node, replicas, and the psql line to get there.

    Only the catalog is asked: the key need not exist. The psql line takes the password from where shardlib does.
    """
    topology = run(read_catalog(settings))
    found = [whereabouts(topology, space, key) for space in fitting(topology, key, keyspace)]
    show(as_json, found, "\n\n".join(map(_text, found)))


def fitting(topology: Topology, text: str, name: str | None) -> list[Keyspace]:
    """Return the keyspaces that are meant; WrongKey when the key is of no keyspace's type."""
    if name is not None:
        return [topology.keyspace(name)]
    ranks = {space.name: _rank(space) for space in topology.keyspaces.values() if _parsed(space, text) is not None}
    if not ranks:
        raise WrongKey("no keyspace has keys of that kind" if topology.keyspaces else "there is no keyspace yet")
    narrowest = min(ranks.values())
    return [topology.keyspaces[found] for found, rank in sorted(ranks.items()) if rank == narrowest]


def whereabouts(topology: Topology, space: Keyspace, text: str) -> Whereabouts:
    """Return where a key of that keyspace lives."""
    key = _parsed(space, text)
    if key is None:
        raise WrongKey(f"keys of {space.name} are {_TYPES[hash_named(space.hash).key_type][1]}")
    bucket = hash_named(space.hash).bucket(key, space.mask)
    node = topology.nodes[space.owners[bucket]]
    return Whereabouts(
        keyspace=space.name,
        key=key,
        bucket=bucket,
        buckets=space.buckets,
        node=node.name,
        url=node.url,
        replicas=node.replicas,
        moving=space.moving.get(bucket),
        epoch=topology.epoch,
        psql=psql_line(node.url),
    )


def psql_line(url: str) -> str:
    """Return a line for a shell that opens the address, with the password from where the library has it."""
    program, psql = shutil.which("psql"), "psql"
    if program is None:
        with suppress(EngineError):
            psql = shlex.quote(find_binaries().path("psql"))
    return f"{_password()}{psql} {shlex.quote(url)}"


def _password() -> str:
    if file := os.environ.get("SHARDLIB_PASSWORD_FILE"):
        return f'PGPASSWORD="$(cat {shlex.quote(os.path.abspath(file))})" '
    if "SHARDLIB_PASSWORD" in os.environ:
        return 'PGPASSWORD="$SHARDLIB_PASSWORD" '
    if file := os.environ.get("PGPASSFILE"):
        return f"PGPASSFILE={shlex.quote(os.path.abspath(file))} "
    return ""


def _rank(space: Keyspace) -> int:
    return _TYPES[hash_named(space.hash).key_type][0]


def _parsed(space: Keyspace, text: str) -> Key | None:
    key_type = hash_named(space.hash).key_type
    try:
        return text if key_type is str else int(text) if key_type is int else UUID(text)
    except ValueError:
        return None


def _text(found: Whereabouts) -> str:
    lines = [
        ("keyspace", found.keyspace),
        ("bucket", f"{found.bucket:,} of {found.buckets:,}" + (f", moving: {found.moving}" if found.moving else "")),
        ("node", found.node),
        ("replicas", " ".join(found.replicas) or "none"),
        ("psql", found.psql),
    ]
    return "\n".join(f"{name:<10}{value}" for name, value in lines)
