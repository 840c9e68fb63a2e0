"""Schemathesis against a running service: ``python -m tests.service.fuzz http://127.0.0.1:8080 --seeds 1-5``.

Every check is on. Each run starts from nothing, so its seed repeats it; the exit status is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fuzz(base: str, seed: int, examples: int, directory: Path) -> tuple[int, str]:
    """Run once; return the exit status and what was said. ``directory`` takes what the tool leaves behind."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{base}/openapi.json", "--checks", "all",
        "--seed", str(seed), "--max-examples", str(examples), "--no-color",
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.service.fuzz_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Run all seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.service.fuzz", description=__doc__)
    parser.add_argument("base", help="where the service is")
    parser.add_argument("--seeds", default="1-5", help="FIRST-LAST")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="takes what the tool leaves behind")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    worst = 0
    for seed in range(int(first), int(last or first) + 1):
        status, said = fuzz(options.base, seed, options.examples, options.directory)
        print(f"seed {seed}: {'nothing found' if status == 0 else said}", flush=True)
        worst = max(worst, status)
    return min(worst, 1)


if __name__ == "__main__":
    sys.exit(main())
