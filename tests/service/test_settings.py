"""Settings: what the environment may say, and what is said when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import Address, BadSettings, load, unknown

GOOD = {
    "SHARDLIB_CATALOG_URL": "postgresql://somebody:s3cret@127.0.0.1/catalog",
    "SERVICE_IDENTIFIER_KEYS": "2:" + "cd" * 32 + " 1:" + "ab" * 32,
    "SERVICE_CURSOR_KEY": "a key for tests and for nothing else",
}


def test_the_first_key_is_the_current_one() -> None:
    settings = load(GOOD)
    assert settings.current_key == 2
    assert settings.keys == {2: b"\xcd" * 32, 1: b"\xab" * 32}
    assert settings.listen_address == Address("127.0.0.1", 8080)


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from a file, with a line's end\n", encoding="utf-8")
    environment = {**GOOD, "SERVICE_CURSOR_KEY": "", "SERVICE_CURSOR_KEY_FILE": str(file)}
    assert load(environment).signing_key == b"from a file, with a line's end"


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.9.1:1"])
def test_loopback_has_many_names(listen: str) -> None:
    assert load({**GOOD, "SERVICE_LISTEN": listen}).listen_address.port == 1


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"LISTEN": "0.0.0.0:8080"}, "SERVICE_LISTEN: accounts have no authentication yet"),
        ({"LISTEN": "[::]:8080"}, "SERVICE_LISTEN: accounts have no authentication yet"),
        ({"LISTEN": "example.com:80"}, "SERVICE_LISTEN: the host must be an IP address"),
        ({"LISTEN": "8080"}, "SERVICE_LISTEN: not HOST:PORT"),
        ({"LISTEN": "127.0.0.1:99999"}, "SERVICE_LISTEN: not HOST:PORT"),
        ({"LISTEN": "127.0.0.1:8081"}, "are the same address"),
        ({"INTERNAL": "192.0.2.1:8081"}, "SERVICE_INTERNAL: accounts have no authentication yet"),
        ({"WORKERS": "many"}, "SERVICE_WORKERS: Expected `int`"),
        ({"WORKERS": "0"}, "SERVICE_WORKERS: Expected `int` >= 1"),
        ({"LOG_LEVEL": "loud"}, "SERVICE_LOG_LEVEL: Invalid enum value"),
        ({"REQUEST_SECONDS": "-1"}, "SERVICE_REQUEST_SECONDS: Expected `float` > 0"),
        ({"CURSOR_KEY": "short"}, "SERVICE_CURSOR_KEY: at least 16 bytes"),
        ({"IDENTIFIER_KEYS": "ab"}, "SERVICE_IDENTIFIER_KEYS: expected NUMBER:HEX"),
        ({"IDENTIFIER_KEYS": "1:xy"}, "SERVICE_IDENTIFIER_KEYS: not hexadecimal"),
        ({"IDENTIFIER_KEYS": " , "}, "SERVICE_IDENTIFIER_KEYS: no key"),
        ({"CURSOR_KEY": "", "IDENTIFIER_KEYS": ""}, "SERVICE_IDENTIFIER_KEYS, SERVICE_CURSOR_KEY: not set"),
        ({"CURSOR_KEY_FILE": "/nowhere"}, "SERVICE_CURSOR_KEY and SERVICE_CURSOR_KEY_FILE are both set"),
        ({"CURSOR_KEY": "", "CURSOR_KEY_FILE": "/nowhere"}, "SERVICE_CURSOR_KEY_FILE: can't read /nowhere"),
    ],
)
def test_bad_settings_are_said(settings: dict[str, str], words: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load({**GOOD, **{f"SERVICE_{name}": value for name, value in settings.items()}})
    assert words in str(caught.value)


def test_secrets_are_masked_and_strangers_named() -> None:
    shown = load(GOOD).masked()
    assert shown["catalog_url"] == "postgresql://somebody:********@127.0.0.1/catalog"
    assert shown["cursor_key"] == shown["identifier_keys"] == "********"
    assert unknown({**GOOD, "SERVICE_WROKERS": "4", "SERVICE_LISTEN_FILE": "x"}) == ["SERVICE_WROKERS"]
