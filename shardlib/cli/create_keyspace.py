"""``shardctl create-keyspace``: a new set of tables that share a key."""

from __future__ import annotations

import click

from shardlib import admin
from shardlib.cli.catalog import run
from shardlib.cli.output import json_option, show
from shardlib.cli.settings import Settings
from shardlib.cli.values import KEYSPACE_NAME
from shardlib.core.keys import HASHES


@click.command("create-keyspace")
@click.argument("name", type=KEYSPACE_NAME)
@click.option(
    "--hash",
    "hash_name",
    type=click.Choice(sorted(HASHES)),
    required=True,
    help="How a key becomes a bucket; it says what type keys have. uuid_tail is for UUIDs of version 4 and 7, whose "
    "last bits are random, uuid_hash for any.",
)
@click.option(
    "--buckets",
    type=click.IntRange(1),
    default=admin.DEFAULT_BUCKETS,
    show_default=True,
    help="A power of two, up to 65,536; never changed later.",
)
@json_option
@click.pass_obj
def command(settings: Settings, name: str, hash_name: str, buckets: int, as_json: bool) -> None:
    """Add a keyspace NAME and spread its buckets over the nodes by their weight.

    It is made on every node, so all must answer. Tables are attached to it by migrations, with
    SELECT shardlib.attach('NAME', 'table', 'key_column').
    """
    topology = run(admin.create_keyspace(settings.need_admin_catalog(), name, hash_name, buckets))
    keyspace = topology.keyspaces[name]
    shares = {node: keyspace.owners.count(node) for node in sorted(topology.nodes)}
    document = {
        "name": name,
        "hash": keyspace.hash,
        "buckets": keyspace.buckets,
        "nodes": shares,
        "epoch": topology.epoch,
    }
    spread = ", ".join(f"{node} {count:,}" for node, count in shares.items())
    show(as_json, document, f"Keyspace {name} ({keyspace.hash}) has {keyspace.buckets:,} buckets: {spread}")
