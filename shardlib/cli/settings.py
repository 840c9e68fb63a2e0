"""Which catalog a verb talks to, as whom."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import click

from shardlib.cli.values import without_password, wrong_with

ADMIN_ROLE = "shardlib_admin"


@dataclass(frozen=True, slots=True)
class Settings:
    """The catalog's two addresses; empty where none is known."""

    catalog: str
    admin_catalog: str

    @classmethod
    def of(cls, catalog: str | None, admin_catalog: str | None) -> Settings:
        """Complete what the command line says from the environment."""
        plain = catalog or os.environ.get("SHARDLIB_CATALOG_URL", "")
        admin = admin_catalog or ("" if catalog else os.environ.get("SHARDLIB_CATALOG_ADMIN_URL", ""))
        return cls(plain, admin or (as_role(plain, ADMIN_ROLE) if plain else ""))

    def need_catalog(self) -> str:
        """Return the application's address of the catalog, or end with what to set."""
        return _checked(self.catalog, "--catalog", "SHARDLIB_CATALOG_URL")

    def need_admin_catalog(self) -> str:
        """Return the owner's address of the catalog, or end with what to set."""
        return _checked(self.admin_catalog, "--admin-catalog", "SHARDLIB_CATALOG_ADMIN_URL")


def as_role(url: str, role: str) -> str:
    """Return the address with another role, and without a password: it belongs to the role that was there."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}@{host}"))


def _checked(url: str, option: str, variable: str) -> str:
    if not url:
        raise click.UsageError(f"which catalog? Give {option} URL or set {variable}.")
    if wrong := wrong_with(url):
        raise click.UsageError(f"{option} or {variable}: {without_password(url)}: {wrong}")
    return url
