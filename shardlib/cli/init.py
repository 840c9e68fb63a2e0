"""``shardctl init``: make a database the catalog."""

from __future__ import annotations

import click

from shardlib import admin
from shardlib.cli.catalog import run
from shardlib.cli.output import json_option, show
from shardlib.cli.settings import Settings
from shardlib.cli.values import without_password


@click.command("init")
@click.option(
    "--application-role",
    metavar="ROLE",
    default="shardlib",
    show_default=True,
    help="Who may read the catalog; the role must exist.",
)
@json_option
@click.pass_obj
def command(settings: Settings, application_role: str, as_json: bool) -> None:
    """Make an empty database the catalog of a new cluster, or upgrade a catalog.

    The database must exist and belong to the administrator's role. What is in a catalog stays; running this again
    does no harm.
    """
    url = settings.need_admin_catalog()
    run(admin.init_catalog(url, application_role))
    topology = run(admin.read_topology(url))
    document = {
        "catalog": without_password(url),
        "epoch": topology.epoch,
        "nodes": sorted(topology.nodes),
        "keyspaces": sorted(topology.keyspaces),
    }
    known = f"{len(topology.nodes)} nodes, {len(topology.keyspaces)} keyspaces, epoch {topology.epoch}"
    after = "" if topology.nodes else "\nNext: shardctl nodes add NAME --url URL, then shardctl create-keyspace"
    show(as_json, document, f"The catalog is ready: {without_password(url)} ({known}){after}")
