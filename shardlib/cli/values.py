"""What arguments must look like: names and addresses."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

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
        if wrong := _wrong_with(value):
            return self.fail(f"{wrong}; it looks like postgresql://shardlib@host:5432/app", param, ctx)
        return value


NODE_NAME = Name("a-z0-9_-")
KEYSPACE_NAME = Name("a-z0-9_")
ADDRESS = Address()


def _wrong_with(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"not an address ({error})"
    if parts.scheme not in ("postgresql", "postgres"):
        return "an address begins with postgresql://"
    if parts.password is not None or "password=" in parts.query:
        return "an address carries no password: the catalog shows it to everybody"
    if not parts.hostname or port == 0:
        return "an address needs a host"
    return None if parts.path.strip("/") else "an address needs a database"
