"""Read users back over HTTP, each of a file that was imported, and compare: ``python -m bench.people.compare FILE``.

A user whose line has an id is read by its id, any other is looked up by e-mail. Exit code 1: some differ or are gone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import click

FIELDS = ("email", "name", "username", "profile", "locale")
AT_ONCE = 32


async def read_back(session: aiohttp.ClientSession, user: dict[str, Any]) -> dict[str, Any]:
    """Return the user as the service shows it; its problem if there is none."""
    if "id" in user:
        asked = session.get(f"/v1/users/{user['id']}")
    else:
        asked = session.post("/v1/users/lookup", json={"email": user["email"]})
    async with asked as answer:
        found: dict[str, Any] = json.loads(await answer.read())
        return found


async def differing(base: str, lines: Iterator[bytes]) -> tuple[int, list[str]]:
    """Return how many lines there are, and a message for each whose user isn't shown as the line has it."""
    messages: list[str] = []
    count = 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal count
        for line in lines:
            user = json.loads(line)
            found = await read_back(session, user)
            wrong = [name for name in FIELDS if found.get(name) != user.get(name)]
            count += 1
            if wrong:
                messages.append(f"{user['email']!r}: {', '.join(wrong)} differ {found.get('detail', '')}")

    async with aiohttp.ClientSession(base) as session, asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work(session))
    return count, messages


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--base", default="http://127.0.0.1:8080", show_default=True, help="Where the service is.")
def main(file: Path, base: str) -> None:
    """Compare each user of FILE with what the service shows."""
    began = time.monotonic()
    with file.open("rb") as lines:
        count, messages = asyncio.run(differing(base, iter(lines)))
    for message in messages:
        click.echo(message)
    click.echo(f"{count:,} users read back in {time.monotonic() - began:.1f} s, {len(messages):,} differ")
    sys.exit(1 if messages else 0)


if __name__ == "__main__":
    main()
