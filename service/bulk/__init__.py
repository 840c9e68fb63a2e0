"""Users in large numbers: ``python -m service import`` and ``export``."""

from __future__ import annotations

import click

from service.bulk.commands import export_command, import_command


def register(group: click.Group) -> None:
    """Add the commands to the service's own."""
    group.add_command(import_command)
    group.add_command(export_command)
