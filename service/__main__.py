"""``python -m service``: everything that can be run."""

from __future__ import annotations

import asyncio
import sys

import click
import msgspec

from service import VERSION, logs
from service.bulk import register
from service.settings import BadSettings, Settings, load, unknown
from service.supervisor import Supervisor
from service.worker import main as run_worker


@click.group()
@click.version_option(VERSION, prog_name="service")
def main() -> None:
    """The user service."""


@main.command()
def api() -> None:
    """Serve HTTP until SIGTERM or Ctrl-C. Without authentication yet: on loopback addresses only."""
    settings = _settings()
    logs.configure(settings.log_level)
    try:
        asyncio.run(Supervisor(settings).run())
    except BadSettings as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--check", is_flag=True, help="Say whether the service could start with it; the exit code tells, too.")
def config(check: bool) -> None:
    """Print the effective configuration, secrets masked."""
    settings = _settings()
    click.echo(msgspec.json.format(msgspec.json.encode(settings.masked()), indent=2).decode())
    for name in unknown():
        click.echo(f"{name}: no setting of that name; is it misspelt?", err=True)
    if check:
        click.echo("ok", err=True)


@main.command("worker-process", hidden=True)
@click.argument("listening", type=int)
@click.argument("control", type=int)
def worker_process(listening: int, control: int) -> None:
    """Be a worker of a supervisor, on the sockets that it hands down."""
    run_worker(_settings(), listening, control)


register(main)


def _settings() -> Settings:
    try:
        return load()
    except BadSettings as error:
        click.echo(f"service: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main(prog_name="python -m service")
