"""What names and addresses must look like, and how addresses are shown."""

from __future__ import annotations

import math
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click


class Name(click.ParamType[str]):
    """A name as the catalog takes it."""

    name = "name"

    def __init__(self, letters: str) -> None:
        """Take what may follow the first letter."""
        self._pattern = re.compile(rf"[a-z][{letters}]{{0,30}}")
        self._letters = letters

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or say what is wrong with it."""
        if self._pattern.fullmatch(value):
            return value
        return self.fail(f"{value!r}: 1 to 31 of {self._letters}, the first a letter", param, ctx)


class Address(click.ParamType[str]):
    """A postgresql:// URL with a host and a database, and without a password."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address, or say what is wrong with it."""
        wrong = wrong_with(value)
        if wrong is None and (urlsplit(value).password is not None or "password=" in urlsplit(value).query):
            wrong = "the catalog shows addresses to everybody: leave the password out"
        return value if wrong is None else self.fail(f"{without_password(value)}: {wrong}", param, ctx)


class Weight(click.FloatRange):
    """A share, relative to others: a number of 0 or more, and no NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or say what is wrong with it."""
        number = float(super().convert(value, param, ctx))
        return number if math.isfinite(number) else self.fail(f"{value} is no number", param, ctx)


NODE_NAME = Name("a-z0-9_-")
KEYSPACE_NAME = Name("a-z0-9_")
ADDRESS = Address()
WEIGHT = Weight(0, 1e6)


def wrong_with(url: str) -> str | None:
    """Return what keeps this from being the address of a database; None if nothing does."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"not an address ({error})"
    if parts.scheme in ("postgresql", "postgres") and parts.hostname and port != 0 and parts.path.strip("/"):
        return None
    return "expected postgresql://role@host:port/database"


def without_password(url: str) -> str:
    """Return the address as it may be shown."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    query = re.sub(r"\bpassword=[^&]*", "password=...", parts.query)
    return urlunsplit(parts._replace(netloc=f"{name}@{host}" if name else host, query=query))
