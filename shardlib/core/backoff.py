"""How long to wait before trying again, and when to stop trying.

DESIGN. Full jitter: a delay drawn evenly from nothing up to a ceiling that doubles with each failure and is capped. Of
the variants that Marc Brooker compared ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015) it causes the
least work for a server that many clients come back to at once; equal delays, however long, only move the crowd.
Chance is an argument, so the same chance gives the same delay.
"""

from __future__ import annotations

from dataclasses import dataclass

_DOUBLINGS = 62  # more are all beyond any cap; a float would overflow at 1,024


@dataclass(frozen=True, slots=True)
class Backoff:
    """A ceiling of ``base`` seconds after the first failure, twice as much after each further one, ``cap`` at most."""

    base: float
    cap: float

    def ceiling(self, failures: int) -> float:
        """Return the longest delay in seconds after so many failures, counted from 1."""
        return min(self.cap, self.base * 2.0 ** min(max(failures, 1) - 1, _DOUBLINGS))

    def delay(self, failures: int, chance: float = 1.0) -> float:
        """Return the seconds to wait; ``chance`` is uniform in [0, 1).

        Without a chance it is the ceiling: right only for a caller who is alone in coming back.
        """
        return self.ceiling(failures) * chance

    def delay_before(self, deadline: float, failures: int, now: float, chance: float) -> float | None:
        """Return the seconds to wait, or None to give up: after that delay it would be ``deadline`` or later.

        Giving up at once is better than sleeping up to a deadline that nothing can be done before.
        """
        delay = self.delay(failures, chance)
        return delay if now + delay < deadline else None
