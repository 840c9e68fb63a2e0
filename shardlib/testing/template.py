"""Data directories made by copying: one initdb per Postgres version and set-up, cloned in a tenth of the time.

DESIGN. A copy would share its system identifier with every other one, and Postgres (and we) tell nodes apart by it.
So a clone gets a new one: the first eight bytes of global/pg_control and the checksum behind them are patched, and
pg_resetwal then writes a WAL that goes with it. The place of the checksum depends on the version; it is found as the
one offset where the checksum fits.

Every directory appears under its name by a rename, when it is complete; half-made ones have another name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from shardlib.testing.binaries import Binaries
from shardlib.testing.child import NOBODY
from shardlib.testing.programs import EngineError, identity

ROLES = Path(__file__).with_name("roles.sql")
CONTROL_SIZES = range(200, 400, 4)  # where the checksum of pg_control may stand
INITDB = (
    "--username=postgres", "--auth=reject", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8", "--wal-segsize=4", "--data-checksums", "--no-sync",
    "--no-instructions",
)


def _crc32c(data: bytes) -> int:
    """Compute the Castagnoli CRC, bit by bit: some 300 bytes, twice per clone."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def cache_directory() -> Path:
    """Return where templates are kept: $XDG_CACHE_HOME/shardlib, else ~/.cache/shardlib."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "shardlib"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; whoever comes second waits."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def give_away(directory: Path) -> None:
    """Make a directory nobody's where Postgres has to run as nobody."""
    if identity() != "nobody":
        return
    os.chown(directory, NOBODY, NOBODY)
    for place, folders, files in os.walk(directory):
        for name in (*folders, *files):
            os.chown(os.path.join(place, name), NOBODY, NOBODY, follow_symlinks=False)


def template(binaries: Binaries, fallback: Path) -> Path:
    """Return a data directory to clone: initialised, never started, with our roles but no passwords.

    Made at the first use and shared by all processes of this user; in ``fallback`` where the cache isn't ours to write.
    """
    recipe = "\n".join((*INITDB, ROLES.read_text(encoding="utf-8"), str(binaries.directory)))
    name = f"postgres-{binaries.version}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    cache = _writable_cache(fallback)
    made = cache / name
    with locked(cache / f"{name}.lock"):
        if not made.exists():
            _initialise(binaries, made)
    return made


def _writable_cache(fallback: Path) -> Path:
    if identity() != "nobody":  # which can't enter root's home
        with contextlib.suppress(OSError):  # no home directory, or a read-only one
            cache_directory().mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(cache_directory(), os.W_OK):
                return cache_directory()
    fallback.mkdir(mode=0o700, parents=True, exist_ok=True)
    give_away(fallback)
    return fallback


def _initialise(binaries: Binaries, made: Path) -> None:
    partial = fresh(made)
    give_away(partial)
    binaries.run("initdb", f"--pgdata={partial}", *INITDB)
    single_user(binaries, partial, "template1", ROLES.read_text(encoding="utf-8"))
    partial.rename(made)


def fresh(directory: Path) -> Path:
    """Make an empty directory beside ``directory`` to be renamed to it; remove what an earlier try left."""
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    return partial


def single_user(binaries: Binaries, data: Path, database: str, script: str) -> None:
    """Run SQL on a server that isn't running; statements end with a semicolon and an empty line."""
    printed = binaries.run("postgres", "--single", "-j", "-D", str(data), "-c", "log_min_messages=error",
                           "-c", "exit_on_error=on", database, stdin=script)
    if "ERROR:" in printed:
        raise EngineError(f"setting up {data} failed: {printed[-2000:]}")


def copy(source: Path, target: Path) -> None:
    """Copy a data directory of a server that isn't running; it appears under its name when it is complete."""
    partial = fresh(target)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(partial)], check=True)
    partial.chmod(0o700)
    partial.rename(target)


def clone(binaries: Binaries, source: Path, target: Path) -> None:
    """Copy a data directory and give the copy a system identifier of its own."""
    partial = fresh(target)
    copied = partial / "data"
    copy(source, copied)
    give_away(partial)
    _new_identity(copied / "global" / "pg_control")
    binaries.run("pg_resetwal", "--force", "-D", str(copied))
    copied.rename(target)
    partial.rmdir()


def _new_identity(control: Path) -> None:
    raw = control.read_bytes()
    size = next((n for n in CONTROL_SIZES if _crc32c(raw[:n]) == struct.unpack_from("<I", raw, n)[0]), None)
    if size is None:
        raise EngineError(f"the layout of {control} is unknown: no checksum found")
    changed = struct.pack("<Q", secrets.randbits(63)) + raw[8:size]
    with control.open("r+b") as file:
        file.write(changed + struct.pack("<I", _crc32c(changed)))
