"""Whether an endpoint is to be asked at all: a circuit breaker, as a fold over what happened.

DESIGN. A server that hangs must cost its callers nothing but the first few of them: after some failures in a row its
breaker opens, and requests for it end at once. Users' requests are never the probe: the endpoint's monitor looks at it
all the while, and only its answers close the breaker again (M. Nygard, "Release It!", 2nd ed., chapter 5, lets one
request in; here a monitor exists anyway, and a hung server would hold that request until its deadline).

States are values: the shell keeps one per endpoint and replaces it by ``after(...)``. In the steady state that is
HEALTHY itself, and an answer changes nothing, so ``breaker is HEALTHY`` is all that a request that went well needs to
ask. How far replicas lag is another matter, and stands in ``route.ReplicaView``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

OPEN_AFTER = 3  # failures in a row: one may be a lost packet, two a fast restart
CLOSE_AFTER = 2  # answers to the monitor in a row: a server that comes up may fall over again at once
MIN_RETRY_AFTER = 0.5  # seconds; two looks of the monitor
MAX_RETRY_AFTER = 10.0  # seconds; nobody should miss a recovery by more


class State(enum.Enum):
    """Where a breaker stands.

    CLOSED: requests go to the endpoint. Failures in a row are counted, an answer sets the count back to none;
    OPEN_AFTER of them, of requests and looks of the monitor together, open it.

    OPEN: requests are refused at once. Their late answers and failures, from before it opened, change nothing. An
    answer to the monitor makes it half open.

    HALF_OPEN: requests are still refused. CLOSE_AFTER answers to the monitor in a row, the first included, close it;
    a failure opens it again.
    """

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Outcome(enum.Enum):
    """What became of a request, or of a look of the monitor. Errors that the server answers with are answers."""

    ANSWERED = "a request was answered"
    FAILED = "a request met a dead connection, or none could be made, or time was up"
    LOOKED = "the monitor was answered"
    LOOK_FAILED = "the monitor was not answered"


@dataclass(frozen=True, slots=True)
class Breaker:
    """One endpoint's breaker; ``why`` is the failure that opened it, for messages."""

    state: State = State.CLOSED
    count: int = 0  # failures in a row while closed, answers in a row while half open
    opened_at: float = 0.0
    why: str = ""

    @property
    def lets_through(self) -> bool:
        """Whether requests may be sent."""
        return self.state is State.CLOSED

    def retry_after(self, now: float) -> float:
        """Return in how many seconds a refused caller had better come back: 0 while requests may be sent.

        As long again as the outage has lasted, within bounds: short outages are noticed soon, long ones draw no crowd.
        """
        if self.lets_through:
            return 0.0
        return min(max(now - self.opened_at, MIN_RETRY_AFTER), MAX_RETRY_AFTER)

    def after(self, outcome: Outcome, now: float, why: str = "") -> Breaker:
        """Return the breaker as it stands once this has happened."""
        if self.state is State.CLOSED:
            return self._while_closed(outcome, now, why)
        if outcome is Outcome.LOOKED:
            answers = self.count + 1
            return HEALTHY if answers >= CLOSE_AFTER else replace(self, state=State.HALF_OPEN, count=answers)
        if outcome is Outcome.LOOK_FAILED:
            return replace(self, state=State.OPEN, count=0)
        return self

    def _while_closed(self, outcome: Outcome, now: float, why: str) -> Breaker:
        if outcome in (Outcome.ANSWERED, Outcome.LOOKED):
            return HEALTHY
        if self.count + 1 >= OPEN_AFTER:
            return Breaker(State.OPEN, 0, now, why)
        return Breaker(State.CLOSED, self.count + 1)


HEALTHY = Breaker()
