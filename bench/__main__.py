"""Run benchmarks: ``python -m bench [NAME...]``, all of them without a name."""

from __future__ import annotations

import signal
import sys

import uvloop

from bench import http_get, point_ops, routing

BENCHMARKS = {"routing": routing.main, "point_ops": point_ops.main, "http_get": http_get.main}


def main(names: list[str]) -> int:
    """Run the named benchmarks one after another; return the exit code."""
    if unknown := [name for name in names if name not in BENCHMARKS]:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers are stopped then, too
    for name in names or BENCHMARKS:
        print(f"{name}:", flush=True)
        uvloop.run(BENCHMARKS[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
