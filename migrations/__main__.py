"""``python -m migrations {apply,plan,status,drift}``: tables for people, ``--json`` for scripts.

Exit status: 0 all is well; 1 something failed, differs or has to wait; 2 nothing was done, and the message says why.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from migrations import drift
from migrations.files import Phase, Refused
from migrations.fleet import FILES, Fleet, State, Step
from migrations.targets import Access, Kind

_PHASES = {"pre": Phase.PRE, "post": Phase.POST, "all": None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: run it again, it goes on from where it was", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m migrations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    helps = {
        "apply": "bring the catalog and all nodes up to date",
        "plan": "say what apply would do",
        "status": "say what each database has",
        "drift": "say where the nodes' schemas differ",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument("--directory", type=Path, default=FILES, help="holds catalog/*.sql and node/*.sql")
        if name in {"apply", "plan"}:
            command.add_argument("--phase", choices=sorted(_PHASES), default="all", help="pre: before the new code")
        if name == "apply":
            command.add_argument("--canary", metavar="NODE", help="the node that goes first (default: by name)")
            command.add_argument("--parallel", type=_positive, default=4, help="nodes at a time after the canary")
    return parser


async def _run(options: argparse.Namespace) -> int:
    found = await Fleet.find(Access.from_environment(os.environ), options.directory)
    commands = {"apply": _apply, "plan": _plan, "status": _status, "drift": _drift}
    return await commands[options.command](found, options)


async def _apply(found: Fleet, options: argparse.Namespace) -> int:
    result = await found.apply(
        _PHASES[options.phase],
        canary=options.canary,
        parallel=options.parallel,
        report=_quiet if options.json else _print_step,
    )
    held = sorted(name for name in result.waiting if options.phase == "pre" and "_pre_" in name)
    if options.json:
        document = {"applied": [dataclasses.asdict(step) for step in result.applied], "failed": result.failed}
        _print_json({**document, "waiting": sorted(result.waiting)})
        return 1 if result.failed or held else 0
    for name, problem in result.failed.items():
        print(f"failed: {name}: {problem}", file=sys.stderr)
    if result.failed:
        _print_states(await found.states())
        print("nothing else was begun; mend it and run apply again: it goes on from there", file=sys.stderr)
    elif held:
        print(f"not applied: {', '.join(held)}: behind a post migration; apply --phase post first", file=sys.stderr)
    else:
        later = f"; for the other phase: {', '.join(sorted(result.waiting))}" if result.waiting else ""
        print(f"{len(result.applied)} applied; {len(found.targets)} databases are up to date{later}")
    return 1 if result.failed or held else 0


async def _plan(found: Fleet, options: argparse.Namespace) -> int:
    plans = found.plans(await found.states(), _PHASES[options.phase])
    names = {name: [migration.name for migration in plan.todo] for name, plan in plans.items()}
    if options.json:
        _print_json(names)
    else:
        for name, todo in names.items():
            print(f"{name:<12} {', '.join(todo) or 'nothing to do'}")
    return 0


async def _status(found: Fleet, options: argparse.Namespace) -> int:
    states = await found.states()
    if options.json:
        _print_json([_as_json(state) for state in states])
    else:
        _print_states(states)
    return 1 if any(state.problem for state in states) else 0


async def _drift(found: Fleet, options: argparse.Namespace) -> int:
    nodes = [target for target in found.targets if target.kind is Kind.NODE]
    schemas = await drift.read_all(found.access, nodes)
    differences = drift.compare(schemas)
    if options.json:
        digests = {name: drift.digest(schema) for name, schema in schemas.items()}
        _print_json({"digests": digests, "differences": [dataclasses.asdict(each) for each in differences]})
        return 1 if differences else 0
    for difference in differences:
        print(f"{difference.kind} {difference.name}")
        for text, names in difference.variants:
            print(f"    {', '.join(names)}: {text or 'missing'}")
    print(f"{len(differences)} objects differ on {len(nodes)} nodes")
    return 1 if differences else 0


def _print_states(states: Sequence[State]) -> None:
    for state in states:
        half_done = "".join(f", {row.name} died half way" for row in state.ledger if not row.finished)
        text = state.problem or f"at {state.level:04}{half_done}; pending: {', '.join(state.pending) or 'nothing'}"
        print(f"{state.target.name:<12} {text}")


def _as_json(state: State) -> dict[str, object]:
    return {
        "database": state.target.name,
        "kind": state.target.kind.value,
        "applied": [dataclasses.asdict(row) for row in state.ledger],
        "pending": state.pending,
        "problem": state.problem,
    }


def _print_step(step: Step) -> None:
    tries = "" if step.tries == 1 else f", {step.tries} tries"
    print(f"{step.database:<12} {step.migration} ({step.seconds:.2f} s{tries})", flush=True)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=1))


def _quiet(step: Step) -> None:
    pass


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
