"""Write users as NDJSON: ``python -m bench.people --count 200000 --seed 1 > people.ndjson``."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click

from bench.people.faults import FAULTS
from bench.people.pools import LOCALES, make_pool
from bench.people.population import User, users

_CHUNK_LINES = 1000


def lines(count: int, bad: int, seed: int) -> Iterator[tuple[str | None, bytes]]:
    """Yield (fault or None, line without its newline): ``count`` good users and ``bad`` faulty rows among them.

    The good ones are the same whatever ``bad`` is. The first line is always good.
    """
    pools = [make_pool(locale, seed) for locale in LOCALES]
    encode = json.JSONEncoder(ensure_ascii=False).encode
    escape = json.JSONEncoder(ensure_ascii=True).encode
    faulty = _fault_places(count, bad, seed)
    for number, user in enumerate(users(count, pools, seed)):
        yield None, (escape if number % 50 == 7 else encode)(user).encode()
        yield from _faults_after(faulty.get(number, ()), user)


def _fault_places(count: int, bad: int, seed: int) -> dict[int, list[int]]:
    chance = random.Random(f"faults:{seed}")
    places: dict[int, list[int]] = {}
    for fault in range(bad):
        places.setdefault(chance.randrange(count), []).append(fault)
    return places


def _faults_after(faults: list[int] | tuple[()], user: User) -> Iterator[tuple[str, bytes]]:
    kinds = tuple(FAULTS.items())
    for fault in faults:
        kind, make = kinds[fault % len(kinds)]
        yield kind, make(user, fault)


def write(out: BinaryIO, expected: BinaryIO | None, made: Iterator[tuple[str | None, bytes]]) -> None:
    """Write the lines, and for each faulty one where it stands and what is wrong with it."""
    waiting: list[bytes] = []
    for number, (fault, line) in enumerate(made, start=1):
        waiting.append(line)
        if fault is not None and expected is not None:
            expected.write(json.dumps({"line": number, "fault": fault}).encode() + b"\n")
        if len(waiting) == _CHUNK_LINES:
            out.write(b"\n".join(waiting) + b"\n")
            waiting.clear()
    if waiting:
        out.write(b"\n".join(waiting) + b"\n")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--count", default=1000, show_default=True, type=click.IntRange(min=1), help="Good users.")
@click.option("--bad", default=0, show_default=True, type=click.IntRange(min=0), help="Faulty rows among them.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same bytes.")
@click.option("--expect", type=click.File("wb"), help="Write line and kind of each faulty row here, as NDJSON.")
def main(count: int, bad: int, seed: int, expect: BinaryIO | None) -> None:
    """Write made-up users as NDJSON to standard output."""
    write(sys.stdout.buffer, expect, lines(count, bad, seed))


if __name__ == "__main__":
    main()
