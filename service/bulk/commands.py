"""``python -m service import`` and ``export``.

Exit codes: 0 done · 1 done, but lines were rejected · 2 the command line, a file or the environment is wrong ·
3 stopped before the end: run the same command again to go on.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Any

import click

import shardlib
from service.bulk.exporting import export_users
from service.bulk.importing import Files, Import
from service.bulk.lines import Lines
from service.bulk.load import Loader
from service.bulk.progress import Progress
from service.bulk.rows import Reader
from service.bulk.single import Singles
from service.bulk.summary import Summary
from service.loop import new_event_loop
from service.profiles.users import HELD, KEYSPACE
from service.settings import BadSettings, Settings, load
from shardlib import Cluster, Unique
from shardlib.bulk import Bulk, BulkClaims
from shardlib.errors import ShardlibError

REJECTED, WRONG, STOPPED = 1, 2, 3
PATIENCE_SECONDS = 60.0  # for a node that restarts or fails over, before an import stops
_COLLECT_EVERY = 100_000  # objects: rows die by themselves, and looking at all of them is a third of the work
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POOL_SIZE = 12  # the batches under way, and contested rows beside them
_json = click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--rejected", type=click.Path(dir_okay=False, path_type=Path), help="Report of lines that weren't imported."
)
@click.option(
    "--checkpoint", type=click.Path(dir_okay=False, path_type=Path), help="Where an interrupted run goes on from."
)
@click.option("--restart", is_flag=True, help="Begin with the first line, whatever the checkpoint says.")
@_json
def import_command(file: Path, rejected: Path | None, checkpoint: Path | None, restart: bool, as_json: bool) -> None:
    """Import users from FILE, one JSON object a line; - is standard input.

    Lines are held to the API's rules; those that break them, or want an e-mail or username that somebody has, are
    reported with their number and reason, and the others are imported. Users who are there already stay as they are,
    so a file may be imported again. A run that was interrupted goes on where it was, except on standard input.

    A line has "email" and may have "name", "username", "profile", "locale", "status", and as exports have them "id",
    "version", "created_at", "updated_at". Without an "id" it follows from the e-mail.
    """
    from_stdin = str(file) == "-"
    name = Path("stdin") if from_stdin else file
    report = rejected or name.with_name(f"{name.name}.rejected.ndjson")
    kept = None if from_stdin else checkpoint or name.with_name(f"{name.name}.checkpoint.json")
    if restart and kept is not None:
        kept.unlink(missing_ok=True)
    settings = _settings()
    summary = Summary(file=str(file), rejected_file=str(report))
    with _source(file, from_stdin) as stream:
        work = _run_import(settings, stream, Files(report, kept), summary)
        code = _run(work)
    click.echo(summary.json() if as_json else summary.text(), err=code == STOPPED and not as_json)
    sys.exit(code or (REJECTED if summary.rejected else 0))


@click.command("export")
@click.option(
    "--out", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help="A file; else standard output."
)
@_json
def export_command(out: Path | None, as_json: bool) -> None:
    """Write all users as NDJSON, in no order; ``import`` reads it.

    A file appears under its name when it is complete. The summary goes to standard error.
    """
    settings = _settings()
    began = monotonic()
    counted: list[int] = []

    async def work() -> None:
        async with _connected(settings) as cluster:
            counted.append(await _export(cluster, out))

    code = _run(work())
    if code:
        sys.exit(code)
    seconds = monotonic() - began
    document = f'{{"users":{counted[0]},"seconds":{seconds:.3f}}}'
    click.echo(document if as_json else f"{counted[0]:,} users in {seconds:.1f} s", err=True)


async def _export(cluster: Cluster, out: Path | None) -> int:
    if out is None or str(out) == "-":
        count = await export_users(cluster, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return count
    aside = out.with_name(out.name + ".part")
    with aside.open("wb") as file:
        count = await export_users(cluster, file.write)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(out)
    return count


async def _run_import(settings: Settings, stream: IO[bytes], files: Files, summary: Summary) -> None:
    async with _connected(settings) as cluster:
        run = _assemble(cluster, settings, stream, files)
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, _interrupt, run)
        try:
            with _rarely_collected():
                await run.run(lambda: _from_start(stream))
        finally:
            summary.take(run)
        if run.stop.is_set():
            raise Interrupted


def _assemble(cluster: Cluster, settings: Settings, stream: IO[bytes], files: Files) -> Import:
    keys, current = settings.keys, settings.current_key
    claims = BulkClaims(cluster, keys=keys, current=current)
    unique = Unique(cluster, held=HELD, keys=keys, current=current, home=KEYSPACE)
    id_key = keys[min(keys)][:64]  # the eldest, so that a new key changes no ids
    reader = Reader(claims, Bulk(cluster, keyspace=KEYSPACE).bucket, id_key)
    total = os.fstat(stream.fileno()).st_size if stream.seekable() else None
    return Import(
        loader=Loader(cluster, claims, Singles(cluster, unique)),
        reader=reader,
        files=files,
        progress=lambda start: Progress(total, start),
    )


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Have the collector look at few objects, and seldom."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _interrupt(run: Import) -> None:
    """Bring what is under way to its end, then stop; the next signal ends the process."""
    run.stop.set()
    for number in _SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)


class Interrupted(Exception):
    """The operator ended it; what is under way was brought to its end."""


def _connected(settings: Settings) -> Any:
    return shardlib.connect(
        settings.catalog_url,
        call_seconds=PATIENCE_SECONDS,
        pool_size=_POOL_SIZE,
        snapshot_file=settings.snapshot_file,
        application_name="service import",
    )


def _source(file: Path, from_stdin: bool) -> IO[bytes]:
    return sys.stdin.buffer if from_stdin else file.open("rb")


def _from_start(stream: IO[bytes]) -> Lines:
    if stream.seekable():
        stream.seek(0)
    return Lines(stream)


def _run(work: Awaitable[None]) -> int:
    """Run it to its end; return 0, or STOPPED after saying why."""

    async def main() -> None:
        await work

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())
    except Interrupted:
        click.echo("service: stopped; run the same command again to go on", err=True)
    except (ShardlibError, OSError) as error:
        _explain(error)
    except BaseExceptionGroup as group:
        _explain(_first(group))
    else:
        return 0
    return STOPPED


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _explain(error: BaseException) -> None:
    if not isinstance(error, ShardlibError | OSError):
        raise error
    click.echo(f"service: {error}\nservice: stopped; run the same command again to go on", err=True)


def _settings() -> Settings:
    try:
        return load()
    except BadSettings as error:
        click.echo(f"service: {error}", err=True)
        sys.exit(WRONG)
