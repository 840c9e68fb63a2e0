"""Errors as an operator should read them: one line, no traceback, an exit code that says whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from shardlib.cli.settings import Settings, without_password
from shardlib.errors import CatalogUnavailable, FormatMismatch, Rejected, ShardlibError

FOUND_SOMETHING = 1
UNREACHABLE = 3
REFUSED = 4


class Unreachable(click.ClickException):
    """The catalog or a node gave no answer, or refused the password."""

    exit_code = UNREACHABLE


class NotAllowed(click.ClickException):
    """The cluster's state or the arguments don't allow it."""

    exit_code = REFUSED


@contextmanager
def explained(ctx: click.Context) -> Iterator[None]:
    """Turn the library's errors, and bad addresses or files, into a message and an exit code."""
    try:
        yield
    except CatalogUnavailable as error:
        settings: Settings = ctx.obj
        asked = without_password(settings.catalog) or "no address"
        raise Unreachable(f"{error}\nThe catalog that was asked: {asked}") from error
    except FormatMismatch as error:
        raise NotAllowed(f"{error}\nIs this a database of shardlib, and of the version of this shardctl?") from error
    except (Rejected, ValueError) as error:
        raise NotAllowed(str(error)) from error
    except (ShardlibError, OSError) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
