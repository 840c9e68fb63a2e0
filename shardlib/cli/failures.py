"""Errors as an operator should read them: one line, no traceback, an exit code that says whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from shardlib.cli.settings import Settings, without_password
from shardlib.errors import CatalogUnavailable, FormatMismatch, Rejected, Retryable, ShardlibError

FOUND_SOMETHING = 1
UNREACHABLE = 3
REFUSED = 4


class Failure(click.ClickException):
    """A message for people and the exit code for scripts."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def explained(ctx: click.Context) -> Iterator[None]:
    """Turn the library's errors, and bad addresses or files, into a Failure."""
    try:
        yield
    except CatalogUnavailable as error:
        settings: Settings = ctx.obj
        asked = without_password(settings.catalog) or "no address"
        raise Failure(f"{error}\nThe catalog that was asked: {asked}", UNREACHABLE) from error
    except FormatMismatch as error:
        raise Failure(
            f"{error}\nIs this a database of shardlib, and of the version of this shardctl?", REFUSED
        ) from error
    except (Retryable, OSError) as error:
        raise Failure(str(error) or type(error).__name__, UNREACHABLE) from error
    except (Rejected, ValueError) as error:
        raise Failure(str(error), REFUSED) from error
    except ShardlibError as error:
        raise Failure(f"{type(error).__name__}: {error}", UNREACHABLE) from error
