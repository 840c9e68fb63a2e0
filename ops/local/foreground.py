"""``run``: the stack in the foreground, and nothing of it left when that ends.

The first signal (Ctrl-C, SIGTERM, or the terminal's end) stops the stack in order, at whatever point it comes. A second
one ends everything at once. Even SIGKILL leaves nothing: the parts that ``run`` started are tied to its life.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ops.local.locking import alone
from ops.local.stack import Say, Stack

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WATCH_SECONDS = 1.0


class Stopped(BaseException):
    """A signal asked for the end; no error, so nothing that handles errors may catch it."""


class Interrupts:
    """The signals that mean "end": raised as ``Stopped`` where that is allowed, else kept until it is.

    Where it isn't allowed is between the two attempts to stop: raised there, it would skip the second.
    """

    def __init__(self) -> None:
        """Listen; what the caller was told to ignore (nohup) stays ignored."""
        self._kept = False
        self._allowed = False
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._kept = not self._allowed
        if self._allowed:
            self._allowed = False
            raise Stopped

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise Stopped inside, once; at the door if a signal came before."""
        if self._kept:
            raise Stopped
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False


def run(stack: Stack, say: Say, greet: Callable[[], None]) -> None:
    """Start the stack, greet, and watch until a signal; then stop everything."""
    interrupts = Interrupts()
    try:
        with interrupts.raised():
            with alone(stack.layout.directory, say):
                stack.up(say)
            greet()
            watch(stack, say)
    except Stopped:
        say("\nstopping; once more to end at once")
    finally:
        with suppress(Stopped), interrupts.raised():
            stack.down()
        stack.end()
    say("stopped; the data stays in " + str(stack.layout.directory))


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
