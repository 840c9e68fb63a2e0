"""What the service is told by its environment: read once, checked, printable without its secrets.

Each field is set by ``SERVICE_<FIELD>``, or by a file named in ``SERVICE_<FIELD>_FILE`` (its content, without the last
line's end). The catalog's address is the library's own ``SHARDLIB_CATALOG_URL``; database passwords are the library's
business alone (``SHARDLIB_PASSWORD[_FILE]``).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

_PREFIX = "SERVICE_"
_CATALOG = "SHARDLIB_CATALOG_URL"
_SECRETS = frozenset({"identifier_keys", "cursor_key"})
_MASK = "********"
_PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")
_MIN_KEY_BYTES = 16

Seconds = Annotated[float, Meta(gt=0, le=600)]
Count = Annotated[int, Meta(ge=1, le=100_000)]


class BadSettings(Exception):
    """The environment can't be used; the message says which variable, and what it should be."""


class Address(Struct, frozen=True):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Settings(Struct, frozen=True, kw_only=True):
    """Every knob there is. Times are seconds; the limits hold for one worker process."""

    catalog_url: str
    identifier_keys: str
    cursor_key: str
    listen: str = "127.0.0.1:8080"
    internal: str = "127.0.0.1:8081"
    workers: Annotated[int, Meta(ge=1, le=64)] = os.cpu_count() or 1
    pool_size: Annotated[int, Meta(ge=1, le=200)] = 10
    max_in_flight: Count = 1000
    request_seconds: Seconds = 5.0
    body_seconds: Seconds = 10.0
    idle_seconds: Seconds = 75.0
    drain_delay_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.5
    drain_seconds: Seconds = 10.0
    slow_seconds: Seconds = 1.0
    stuck_seconds: Seconds = 30.0
    sweep_seconds: Seconds = 60.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_requests: Literal["notable", "all"] = "notable"
    snapshot_file: str | None = None
    redis_url: str | None = None

    @property
    def listen_address(self) -> Address:
        """Where the API is served."""
        return _loopback("listen", self.listen)

    @property
    def internal_address(self) -> Address:
        """Where health and metrics are served."""
        return _loopback("internal", self.internal)

    @property
    def keys(self) -> Mapping[int, bytes]:
        """The HMAC keys of identifiers by their number."""
        return _parse_keys(self.identifier_keys)

    @property
    def current_key(self) -> int:
        """The number of the key that new identifiers are hidden with: the first one that is named."""
        return next(iter(self.keys))

    @property
    def signing_key(self) -> bytes:
        """What cursors are signed with, and ids of idempotent requests derived from."""
        return _long_enough("cursor_key", self.cursor_key.encode())

    def masked(self) -> dict[str, object]:
        """Return all settings by name, with nothing in them that opens a door."""
        plain = {name: getattr(self, name) for name in self.__struct_fields__}
        hidden = dict.fromkeys(_SECRETS, _MASK)
        urls = {name: _PASSWORD.sub(_MASK, value) for name, value in plain.items() if name.endswith("_url") and value}
        return plain | urls | hidden


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this environment; BadSettings names the variable that is wrong or missing."""
    found = {name: value for name in Settings.__struct_fields__ if (value := _lookup(environment, name)) is not None}
    missing = [_variable(name) for name in Settings.__struct_fields__[:3] if name not in found]
    if missing:
        raise BadSettings(f"{', '.join(missing)}: not set (nor as a file, with _FILE)")
    try:
        settings = msgspec.convert(found, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise BadSettings(_explain(str(error))) from None
    _check(settings)
    return settings


def unknown(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the ``SERVICE_`` variables that mean nothing here: a typing error, as a rule."""
    known = {_variable(name) + end for name in Settings.__struct_fields__ for end in ("", "_FILE")}
    return sorted(name for name in environment if name.startswith(_PREFIX) and name not in known)


def _lookup(environment: Mapping[str, str], name: str) -> str | None:
    variable = _variable(name)
    path = environment.get(f"{variable}_FILE")
    if path is None:
        return environment.get(variable) or None
    if environment.get(variable):
        raise BadSettings(f"{variable} and {variable}_FILE are both set: which one is meant?")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{variable}_FILE: can't read {path}: {error.__class__.__name__}") from None


def _variable(name: str) -> str:
    return _CATALOG if name == "catalog_url" else _PREFIX + name.upper()


def _explain(message: str) -> str:
    """Turn msgspec's "Expected `int` - at `$.workers`" into words about the variable."""
    what, _, path = message.partition(" - at `$.")
    return f"{_variable(path.rstrip('`'))}: {what}"


def _check(settings: Settings) -> None:
    """Look at what types can't say; a property that can't be computed raises."""
    if settings.listen_address == settings.internal_address and settings.listen_address.port:
        raise BadSettings("SERVICE_LISTEN and SERVICE_INTERNAL are the same address")
    if not settings.keys or not settings.signing_key:
        raise BadSettings("SERVICE_IDENTIFIER_KEYS: no key")


def _loopback(name: str, text: str) -> Address:
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise BadSettings(f"{_variable(name)}: not HOST:PORT: {text!r}")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise BadSettings(f"{_variable(name)}: the host must be an IP address or localhost: {host!r}") from None
    if not is_loopback:
        raise BadSettings(
            f"{_variable(name)}: accounts have no authentication yet, so only a loopback address will do, not {host}"
        )
    return Address(host, int(port))


def _parse_keys(text: str) -> Mapping[int, bytes]:
    keys: dict[int, bytes] = {}
    for entry in text.replace(",", " ").split():
        number, colon, digits = entry.partition(":")
        if not colon or not number.isdecimal() or int(number) in keys:
            raise BadSettings("SERVICE_IDENTIFIER_KEYS: expected NUMBER:HEX, each number once, the current key first")
        keys[int(number)] = _hex_key("identifier_keys", digits)
    return keys


def _hex_key(name: str, digits: str) -> bytes:
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        raise BadSettings(f"{_variable(name)}: not hexadecimal digits") from None
    return _long_enough(name, key)


def _long_enough(name: str, key: bytes) -> bytes:
    if len(key) < _MIN_KEY_BYTES:
        raise BadSettings(f"{_variable(name)}: at least {_MIN_KEY_BYTES} bytes are needed, {len(key)} are given")
    return key
