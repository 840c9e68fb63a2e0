"""The nodes of the present topology: their endpoints, who of them is primary, how far the others have come.

DESIGN. An endpoint's role is observed, never configured: of the addresses of a node, the one that is not in recovery
serves writes, and if two claim so, the one on the later timeline. Each endpoint has a monitor with a connection of its
own. A replica's lag isn't taken from its own clocks (an idle replica that was cut off calls itself current): each round
notes the primary's position first, and a replica that has replayed the position of time t is current as of t.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import CLOCK_BOOTTIME, clock_gettime, monotonic

from shardlib.core.topology import Node as NodeEntry
from shardlib.core.topology import Topology, changed_nodes
from shardlib.errors import DeadlineExceeded, NodeUnavailable, Overloaded
from shardlib.observe import BreakerClosed, BreakerOpened, Observer, PrimaryChanged
from shardlib.pg.errors import outcome_of
from shardlib.pg.link import Credentials, Link, open_connection
from shardlib.pg.monitor import Monitor, Sighting
from shardlib.pg.pool import EndpointPool, Limits
from shardlib.ports import Outcome

_MAX_WAITING_FOR_PRIMARY = 1000  # requests per node that may wait while no primary is known
_PATIENCE_SECONDS = 60.0  # for requests to end at an address that left the cluster
_POSITIONS_KEPT = 512  # of the primary, newest first: over two minutes at four a second


Endpoint = tuple[EndpointPool, Monitor]


class PgNode:
    """One node."""

    def __init__(self, entry: NodeEntry, sessions: Sessions, observer: Observer) -> None:
        self.name = entry.name
        self.not_before = float("-inf")  # CLOCK_BOOTTIME: a snapshot that was confirmed before must not be used here
        self._sessions = sessions
        self._observer = observer
        self._positions: deque[tuple[float, int, int]] = deque(maxlen=_POSITIONS_KEPT)  # (asked at, timeline, lsn)
        self._timeline = 0
        self._waiting = 0
        self._found = asyncio.Event()
        self.nobody = EndpointPool(entry.name, "nobody", sessions.never, Limits(size=0), lambda _pool, _reason: None)
        self.primary = self.nobody  # until one is seen
        self._endpoints: dict[str, Endpoint] = {}  # by address
        self.readdress(entry)

    def __repr__(self) -> str:
        return f"<node {self.name}: primary {self.primary.name}>"

    def readdress(self, entry: NodeEntry) -> list[Endpoint]:
        """Open what is new among the addresses, return the endpoints of those that are gone; the others go on."""
        wanted = dict.fromkeys((entry.url, *entry.replicas))
        gone = [self._endpoints.pop(url) for url in self._endpoints.keys() - wanted.keys()]
        for pool, _ in gone:
            self._on_demoted(pool)
        self._endpoints = {url: self._endpoints.get(url) or self._open(url) for url in wanted}
        self.pools = [pool for pool, _ in self.endpoints()]
        self.monitors = [monitor for _, monitor in self.endpoints()]
        return gone

    def endpoints(self) -> list[Endpoint]:
        """Return all its endpoints."""
        return list(self._endpoints.values())

    def all_pools(self) -> Sequence[EndpointPool]:
        """Return the pools of all its endpoints."""
        return self.pools

    def replicas(self) -> Sequence[EndpointPool]:
        """Return the pools that aren't the primary's."""
        return [pool for pool in self.pools if pool is not self.primary]

    def timeline(self) -> int:
        """Return the primary's timeline; before one was seen, the latest that a replica replays (0: none)."""
        return self._timeline or max((pool.view.timeline for pool in self.pools if pool.view.usable), default=0)

    async def primary_pool(self, until: float) -> EndpointPool:
        """Return the primary's pool, waiting for one while the endpoints answer and none is primary."""
        while self.primary is self.nobody:
            broken = [pool for pool in self.pools if pool.broken]
            if broken and all(pool.broken or pool.view.usable for pool in self.pools):
                raise broken[0].unavailable()  # the others are standbys
            await self._wait_for_primary(until)
        return self.primary

    def apply_epoch(self, epoch: int) -> None:
        """Have links greet again before their next use: what this node owns has changed."""
        for pool in self.pools:
            pool.epoch = epoch

    # -- what the monitors report

    def seen(self, pool: EndpointPool, sighting: Sighting) -> None:
        """Take in what an endpoint said of itself."""
        if not sighting.in_recovery:
            self._note_primary(pool, sighting)
        view = pool.view
        if view.instance != sighting.instance:
            view.replayed, view.current_as_of = -1, float("-inf")
        view.instance, view.timeline, view.replayed = sighting.instance, sighting.timeline, sighting.lsn
        view.asked_at = sighting.asked_at
        pool.looked()
        view.usable = sighting.in_recovery and not pool.broken
        view.current_as_of = max(view.current_as_of, self._current_as_of(sighting))
        if pool is self.primary and sighting.in_recovery:
            self._set_primary(self.nobody, 0)

    def heard(self, link: Link) -> None:
        """Take in the timeline that a greeting told: it may be ahead of the monitor's."""
        if self._timeline and link.timeline > self._timeline:
            self.not_before = clock_gettime(CLOCK_BOOTTIME)

    def _note_primary(self, pool: EndpointPool, sighting: Sighting) -> None:
        oldest = self._timeline + (self.primary is not self.nobody)
        if pool is not self.primary and sighting.timeline < oldest:
            return  # a deposed primary that doesn't know it yet
        if self._timeline not in (0, sighting.timeline):
            self.not_before = clock_gettime(CLOCK_BOOTTIME)
            self._positions.clear()
        self._timeline = sighting.timeline
        self._positions.appendleft((sighting.asked_at, sighting.timeline, sighting.lsn))
        self._set_primary(pool, sighting.timeline)

    def _set_primary(self, pool: EndpointPool, timeline: int) -> None:
        if pool is not self.primary:
            pool.forget_greetings()
            self.primary = pool
            self._observer.observe(PrimaryChanged(self.name, None if pool is self.nobody else pool.name, timeline))
        if pool is not self.nobody:
            self._found.set()

    def _current_as_of(self, sighting: Sighting) -> float:
        for asked_at, timeline, lsn in self._positions:
            if timeline == sighting.timeline and lsn <= sighting.lsn:
                return asked_at
        return float("-inf")

    # -- inside

    async def _wait_for_primary(self, until: float) -> None:
        if self._waiting >= _MAX_WAITING_FOR_PRIMARY:
            raise Overloaded(f"{self._waiting} requests wait for a primary of {self.name}")
        self._found.clear()
        self._waiting += 1
        try:
            async with asyncio.timeout(max(0.0, min(until - monotonic(), 0.25))):
                await self._found.wait()
        except TimeoutError:
            if monotonic() >= until:
                raise DeadlineExceeded(f"{self.name} had no primary in time") from None
        finally:
            self._waiting -= 1

    def _open(self, url: str) -> Endpoint:
        name = _host_and_port(url)
        pool = EndpointPool(
            self.name,
            name,
            EndpointOpener(self._sessions, url, self.heard),
            self._sessions.limits,
            self._on_breaker,
            self._on_demoted,
        )
        monitor = Monitor(
            name=f"{self.name} {name}",
            connect=lambda: self._sessions.connect(url, "monitor"),
            seen=lambda sighting: self.seen(pool, sighting),
            failed=pool.look_failed,
        )
        return pool, monitor

    def _on_demoted(self, pool: EndpointPool) -> None:
        if pool is self.primary:
            self._set_primary(self.nobody, 0)

    def _on_breaker(self, pool: EndpointPool, reason: str | None) -> None:
        event = BreakerClosed(self.name, pool.name) if reason is None else BreakerOpened(self.name, pool.name, reason)
        self._observer.observe(event)


class Sessions:
    """How to open a session: credentials, limits, the name that the server shows."""

    def __init__(self, credentials: Credentials, limits: Limits, application_name: str) -> None:
        self.limits = limits
        self._credentials = credentials
        self._application_name = application_name

    async def connect(self, url: str, purpose: str = "") -> Link:
        """Open a session without greeting it."""
        name = f"{self._application_name} {purpose}".strip()
        seconds = self.limits.open_seconds
        return Link(await open_connection(url, self._credentials.application, name, seconds))

    async def never(self, _epoch: int) -> Link:
        """Refuse: the pool of nobody opens nothing."""
        raise NodeUnavailable("no primary is known", node="")


class EndpointOpener:
    """Opens greeted links to one address."""

    def __init__(self, sessions: Sessions, url: str, heard: Callable[[Link], None]) -> None:
        self._sessions = sessions
        self._url = url
        self._heard = heard

    async def __call__(self, epoch: int) -> Link:
        """Open a session and greet it, within the limit for both."""
        async with asyncio.timeout(self._sessions.limits.open_seconds):
            link = await self._sessions.connect(self._url)
            try:
                await link.greet(epoch)
            except BaseException:
                link.connection.terminate()
                raise
            self._heard(link)
            return link


class PgNodes:
    """The nodes of a topology; see ports.Nodes."""

    def __init__(self, sessions: Sessions, observer: Observer) -> None:
        self._sessions = sessions
        self._observer = observer
        self._nodes: dict[str, PgNode] = {}
        self._topology: Topology | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def apply(self, topology: Topology) -> Mapping[str, PgNode]:
        """Open and close pools so that they fit the topology; return its nodes by name."""
        for name in self._nodes.keys() - topology.nodes.keys():
            self._retire(self._nodes.pop(name).endpoints())
        for name, entry in topology.nodes.items():
            if name in self._nodes:
                self._retire(self._nodes[name].readdress(entry))
            else:
                self._nodes[name] = PgNode(entry, self._sessions, self._observer)
        for name in changed_nodes(self._topology, topology):
            self._nodes[name].apply_epoch(topology.epoch)
        self._topology = topology
        return dict(self._nodes)

    async def first_look(self, seconds: float) -> None:
        """Wait until each endpoint has answered once or failed, at most ``seconds``."""
        looks = [monitor.looked.wait() for node in self._nodes.values() for monitor in node.monitors]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*looks)
        except TimeoutError:
            return  # some endpoint hangs: its breaker will say so, the others can serve

    async def close(self) -> None:
        """End all sessions."""
        for task in self._closing:
            task.cancel()
        endpoints = [endpoint for node in self._nodes.values() for endpoint in node.endpoints()]
        self._nodes.clear()
        await asyncio.gather(*(end(endpoint) for endpoint in endpoints))
        await asyncio.gather(*self._closing, return_exceptions=True)

    def outcome_of(self, error: BaseException) -> Outcome:
        """Say what is known after this error."""
        return outcome_of(error)

    def _retire(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            task = asyncio.get_running_loop().create_task(end(endpoint, _PATIENCE_SECONDS), name="retire an endpoint")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def end(endpoint: Endpoint, patience_seconds: float = 0.0) -> None:
    """Stop looking, let requests that are under way end for so long, then end all sessions."""
    pool, monitor = endpoint
    try:
        await monitor.close()
    finally:
        await pool.close(patience_seconds)


def _host_and_port(url: str) -> str:
    return url.rpartition("@")[2].partition("/")[0] if "//" in url else url
