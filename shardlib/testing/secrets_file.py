"""The passwords of one local cluster: made once, kept in files that only their owner reads."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

SUPERUSER, ADMIN, APPLICATION = "postgres", "shardlib_admin", "shardlib"
ROLES = (SUPERUSER, ADMIN, APPLICATION)


@dataclass(frozen=True)
class Secrets:
    """A directory with one file per role, and a password file for libpq and asyncpg that holds them all."""

    directory: Path

    def ensure(self) -> None:
        """Make the directory, and what is missing in it."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for role in ROLES:
            if not self.file(role).exists():
                write_private(self.file(role), secrets.token_urlsafe(24))
        lines = (f"127.0.0.1:*:*:{role}:{self.password(role)}\n" for role in ROLES)
        write_private(self.passfile, "".join(lines))

    @property
    def passfile(self) -> Path:
        """The file to name in PGPASSFILE."""
        return self.directory / "pgpass"

    def file(self, role: str) -> Path:
        """Return the file with this role's password and nothing else."""
        return self.directory / role

    def password(self, role: str) -> str:
        """Read this role's password."""
        return self.file(role).read_text(encoding="ascii").strip()

    def script(self) -> str:
        """Return the SQL that sets the passwords, for single-user mode."""
        return "".join(f"ALTER ROLE {role} PASSWORD '{self.password(role)}';\n\n" for role in ROLES)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; readers see the old text or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    partial.rename(path)
