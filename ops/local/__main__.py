"""``python -m ops.local {up,run,down,reset,status,add-node}``: real servers, no root, no Docker.

Exit status: 0 all is well; 1 something failed; 2 refused, and the message says what to do; 3 (status) not all runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from ops.local import foreground
from ops.local.layout import CATALOG, INTERNAL, SERVICE, Layout, Refusal, remembered, state_directory, wanted
from ops.local.locking import alone
from ops.local.stack import Stack, forget, holds_stack
from shardlib.errors import ShardlibError
from shardlib.testing.cluster import CATALOG_DATABASE, NODE_DATABASE
from shardlib.testing.secrets_file import APPLICATION

FAILED, REFUSED, NOT_ALL = 1, 2, 3


def say(text: str) -> None:
    """Tell the person, at once, beside what a script reads."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = parser().parse_args(arguments)
    commands = {"up": up, "run": run, "down": down, "reset": reset, "status": status, "add-node": add_node}
    try:
        return commands[options.command](options)
    except Refusal as error:
        say(str(error))
        return REFUSED
    except (ShardlibError, OSError) as error:
        say(str(error))
        return FAILED
    except KeyboardInterrupt:
        say("interrupted; `make up` goes on from here, `make down` stops what runs")
        return FAILED


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(prog="python -m ops.local", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start the stack in the background; return when the service is ready")
    commands.add_parser("run", help="start the stack, and stop it at Ctrl-C")
    commands.add_parser("down", help="stop the stack; the data stays")
    commands.add_parser("reset", help="stop the stack and forget its data")
    state = commands.add_parser("status", help="say what runs")
    state.add_argument("--json", action="store_true", help="print one JSON document")
    node = commands.add_parser("add-node", help="start one more node and register it")
    node.add_argument("name")
    node.add_argument("--weight", type=float, default=1.0)
    node.add_argument("--region", default="")
    node.add_argument("--zone", default="")
    return made


def up(_: argparse.Namespace) -> int:
    """Start in the background."""
    started = time.monotonic()
    directory = state_directory()
    with alone(directory, say):
        layout = settled_layout()
        Stack(layout).up(say)
    say(greeting(layout, time.monotonic() - started, "make down stops it"))
    return 0


def run(_: argparse.Namespace) -> int:
    """Start in the foreground."""
    started = time.monotonic()
    layout = settled_layout()
    stack = Stack(layout, tied=True)
    foreground.run(stack, say, lambda: say(greeting(layout, time.monotonic() - started, "Ctrl-C stops it")))
    return 0


def down(_: argparse.Namespace) -> int:
    """Stop."""
    directory = state_directory()
    if not holds_stack(directory):
        return 0
    with alone(directory, say):
        stack = Stack(remembered(directory))
        stack.down()
        stack.end()
    return 0


def reset(_: argparse.Namespace) -> int:
    """Stop and forget."""
    directory = state_directory()
    if not holds_stack(directory):
        return 0
    with alone(directory, say):
        if holds_stack(directory):  # another reset may have come first
            Stack(remembered(directory)).end()
            forget(directory)
    return 0


def status(options: argparse.Namespace) -> int:
    """Say what runs."""
    found = Stack(remembered(state_directory())).status()
    if options.json:
        print(json.dumps({"parts": [asdict(part) for part in found]}))
    else:
        for part in found:
            print(f"{part.name:<16} {part.port:>5}  {f'pid {part.pid}' if part.pid else 'not running'}")
    return 0 if all(part.pid for part in found) else NOT_ALL


def add_node(options: argparse.Namespace) -> int:
    """Start and register one more node."""
    with alone(state_directory(), say):
        layout = remembered(state_directory()).with_node(
            options.name, weight=options.weight, region=options.region, zone=options.zone
        )
        Stack(layout).add_node(options.name, say)
    say(f"{options.name} is a node now and owns nothing yet")
    return 0


def settled_layout() -> Layout:
    """Return the layout to start with; Refusal when the stack runs on other ports."""
    directory = state_directory()
    layout, present = wanted(directory), remembered(directory)
    if layout.offset != present.offset and any(part.running for part in Stack(present).parts):
        raise Refusal(f"the stack runs with LOCAL_PORT_OFFSET={present.offset}; stop it first: make down")
    return layout


def greeting(layout: Layout, seconds: float, how_to_stop: str) -> str:
    """Say what is where."""
    nodes = "\n".join(
        f"  {name:<12} postgresql://{APPLICATION}@127.0.0.1:{ports.primary}/{NODE_DATABASE}"
        f"   replica on {', '.join(map(str, ports.replicas))}"
        for name, ports in layout.node_ports.items()
    )
    return f"""
ready in {seconds:.1f} s; {how_to_stop}

  service      http://127.0.0.1:{layout.port(SERVICE)}   (its docs: /docs)
  internal     http://127.0.0.1:{layout.port(INTERNAL)}/readyz?verbose, /metrics
  catalog      postgresql://{APPLICATION}@127.0.0.1:{layout.port(CATALOG)}/{CATALOG_DATABASE}
{nodes}

  set -a; . {shlex.quote(f'{layout.directory}/env')}; set +a     what programs and psql need to reach it"""


if __name__ == "__main__":
    sys.exit(main())
