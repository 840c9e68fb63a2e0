"""The command group: verbs are imported when they are called, so that each starts fast."""

from __future__ import annotations

import importlib
from typing import Any

import click

from shardlib.cli.failures import explained
from shardlib.cli.settings import Settings

# verb -> (module, what `shardctl -h` says of it)
VERBS = {
    "init": ("init", "Make an empty database the catalog of a new cluster."),
    "create-keyspace": ("create_keyspace", "Add a keyspace and spread its buckets over the nodes."),
    "nodes": ("nodes", "List, add, change and remove nodes."),
    "status": ("status", "Show nodes, replicas, keyspaces and the epoch."),
    "where": ("where", "Say where a key lives, and how to get there."),
    "doctor": ("doctor", "Look for what is wrong, and say what to do about it."),
}


class Verbs(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which an operator meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"shardlib.cli.{VERBS[cmd_name][0]}").command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, about) for verb, (_module, about) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; errors that are the operator's to solve become one plain message."""
        with explained(ctx):
            return super().invoke(ctx)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 well, 1 found something, 2 wrong usage, 3 can't be reached, 4 refused.",
)
@click.option("--catalog", metavar="URL", help="The catalog, as the application reaches it; else SHARDLIB_CATALOG_URL.")
@click.option(
    "--admin-catalog",
    metavar="URL",
    help="The catalog, as its owner reaches it; else SHARDLIB_CATALOG_ADMIN_URL, else --catalog as shardlib_admin.",
)
@click.version_option(package_name="shardlib", prog_name="shardctl")
@click.pass_context
def main(ctx: click.Context, catalog: str | None, admin_catalog: str | None) -> None:
    """Run a shardlib cluster.

    Passwords are never arguments: they are in SHARDLIB_PASSWORD and SHARDLIB_ADMIN_PASSWORD, in files that
    SHARDLIB_PASSWORD_FILE and SHARDLIB_ADMIN_PASSWORD_FILE name, or in PGPASSFILE.
    """
    ctx.obj = Settings.of(catalog, admin_catalog)
