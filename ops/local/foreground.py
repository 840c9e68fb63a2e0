"""``run``: the stack in the foreground, and nothing of it left when that ends.

The first signal (Ctrl-C, SIGTERM, or the terminal's end) stops the stack in order, at whatever point it comes. A second
one ends everything at once. Even SIGKILL leaves nothing: the parts that ``run`` started are tied to its life.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ops.local.locking import alone
from ops.local.stack import Say, Stack, end_everything

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WATCH_SECONDS = 0.5
Handler = Callable[[int, FrameType | None], None]


class Stopped(BaseException):
    """A signal asked for the end; no error, so nothing that handles errors may catch it."""


@contextmanager
def on_signal(handler: Handler) -> Iterator[None]:
    """Handle the signals that mean "end" in this way."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def run(stack: Stack, say: Say, greet: Callable[[], None]) -> None:
    """Start the stack, greet, and watch until a signal; then stop everything."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in SIGNALS:  # the next one finds the handler of the stopping
            signal.signal(number, hurry)
        raise Stopped

    def hurry(_number: int, _frame: FrameType | None) -> None:
        end_everything(stack.layout.directory)

    with on_signal(stop):
        try:
            with alone(stack.layout.directory, say):
                stack.up(say)
            greet()
            watch(stack, say)
        except Stopped:
            say("\nstopping; once more to end at once")
        finally:
            stop_all(stack, hurry)
    say("stopped; the data stays in " + str(stack.layout.directory))


def stop_all(stack: Stack, hurry: Handler) -> None:
    """Stop in order, then make sure."""
    with on_signal(hurry):
        stack.down()
        stack.end()


def watch(stack: Stack, say: Say) -> None:
    """Report each part that ends or comes back by itself; return when none runs any more."""
    known = {status.name: status.pid for status in stack.status()}
    while any(known.values()):
        time.sleep(WATCH_SECONDS)
        present = {status.name: status.pid for status in stack.status()}
        for name, pid in present.items():
            if pid is None and known[name] is not None:
                say(f"{name} (pid {known[name]}) has ended; in another terminal, `make up` starts it again")
            elif pid is not None and pid != known.get(name):
                say(f"{name} runs again (pid {pid})")
        known = present
