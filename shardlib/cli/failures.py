"""Errors as an operator should read them: one line, no traceback, an exit code that says whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from shardlib.cli.settings import Settings
from shardlib.cli.values import without_password
from shardlib.errors import CatalogUnavailable, FormatMismatch, Rejected, ShardlibError

FOUND_SOMETHING = 1
UNREACHABLE = 3
REFUSED = 4
PASSWORDS = "Passwords come from SHARDLIB_PASSWORD[_FILE], SHARDLIB_ADMIN_PASSWORD[_FILE], PGPASSFILE."


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
        raise Unreachable(f"{error}\n{_asked(ctx.obj)}") from error
    except FormatMismatch as error:
        raise NotAllowed(f"{error}\nIs this a database of shardlib, and of the version of this shardctl?") from error
    except (Rejected, ValueError) as error:
        raise NotAllowed(str(error)) from error
    except OSError as error:
        if error.filename:
            raise NotAllowed(f"can't read {error.filename}: {error.strerror}. {PASSWORDS}") from error
        raise Unreachable(str(error) or type(error).__name__) from error
    except ShardlibError as error:
        raise Unreachable(f"{error}\n{PASSWORDS}" if "password" in str(error) else str(error)) from error


def _asked(settings: Settings) -> str:
    plain, admin = without_password(settings.catalog), without_password(settings.admin_catalog)
    return f"The catalog is {plain or 'unknown'}, to its administrator {admin}. {PASSWORDS}"
