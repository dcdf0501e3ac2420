"""How many requests run at once over all processes, and who waits for a turn: four classes, bounded, in order.

A request takes a place at once where one is free and nobody waits. Otherwise it waits in its class, which is bounded in
length and in time. Whenever a place is free, the next one is picked:

1. of the requests that waited longer than their class's `starvation_s`, the one that is overdue longest, whatever its class;
2. otherwise the oldest request of the highest class.

Places are counted in the shared table, so the limit is one for all processes; order is kept within a process. A place that
this process frees is given away in the next turn of the event loop, one that another process frees with the next `tick`.
While several processes have requests waiting, each takes no more than its share of the places, so that none starves.

Invariants.

1. Every `Waiting` ends exactly once: its `ready` hears a ticket, or an error, or `leave` was called and it hears nothing.
2. Every `Ticket` is released once; further releases do nothing. The columns of this row return to zero.
3. Within a class, requests are admitted in the order in which they came.
4. This process never runs more than the limit, and all processes together do not either: a process counts first and looks
   then, and takes itself back. (Where the hardware shows a store late, one more for each other process is possible.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from gateway.admission.limits import Reservation
from gateway.config.model import AdmissionConfig, ClassConfig, PriorityClass
from gateway.errors import Code, GatewayError
from gateway.shared.layout import CONCURRENCY, QUEUED
from gateway.shared.table import SharedTable
from gateway.telemetry.cells import ProcessCells

SHED_FACTOR: Final = 2.0
"""A request is refused at once where its expected wait is this multiple of its class's `queue_timeout_s`."""
SHED_SAMPLES: Final = 16
"""Places that must have come free, while requests waited, before an expected wait is believed."""
SMOOTHING: Final = 0.1
"""Weight of the newest interval between two free places in their moving average."""
MIN_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
_NEVER_S: Final = float("-inf")


class Soon(Protocol):
    """The part of an event loop that is needed here."""

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Call back in the next turn of the loop."""
        ...


class Ticket:
    """The right of one request to run. Made by admission; whoever has it releases it, exactly once."""

    __slots__ = ("_queue", "_reservation", "released")

    def __init__(self, queue: Queue, reservation: Reservation | None) -> None:
        self._queue = queue
        self._reservation = reservation
        self.released = False

    def __repr__(self) -> str:
        return f"<Ticket {'released' if self.released else 'running'}>"

    def settle(self, tokens: int) -> None:
        """Count the tokens really used in place of the estimate; 0 gives the whole estimate back. The first call counts."""
        if self._reservation is not None:
            self._reservation.settle(tokens)

    def abandon(self) -> None:
        """Give the request and its tokens back to the tenant, since nothing was done for it. Not after `settle`."""
        if self._reservation is not None:
            self._reservation.cancel()

    def release(self) -> None:
        """Give the place back, so that the next request can run. Later calls do nothing."""
        if not self.released:
            self.released = True
            self._queue.release()


class Waiting:
    """A request that waits for its turn. Made by `Queue.join`; ends when `ready` is called or `leave` is."""

    __slots__ = ("_queue", "lane", "ready", "reservation", "since_s")

    def __init__(
        self,
        queue: Queue,
        lane: _Lane,
        since_s: float,
        reservation: Reservation | None,
        ready: Callable[[Ticket | GatewayError], None],
    ) -> None:
        self._queue = queue
        self.lane = lane
        self.since_s = since_s
        self.reservation = reservation
        self.ready = ready

    def leave(self) -> None:
        """Stop waiting, since the client left; `ready` is not called. Does nothing once it was."""
        self._queue.leave(self)


class _Lane:
    """The requests of one class that wait, oldest first."""

    __slots__ = ("config", "priority", "waiting")

    def __init__(self, priority: PriorityClass, config: ClassConfig) -> None:
        self.priority = priority
        self.config = config
        self.waiting: OrderedDict[Waiting, None] = OrderedDict()
        """In order of arrival; leaving from the middle costs no search."""

    @property
    def head(self) -> Waiting:
        return next(iter(self.waiting))


class Queue:
    """The places and the waiting of one process. Made by `Admission`; plain calls on its event loop, and `tick` by its owner."""

    def __init__(
        self,
        config: AdmissionConfig,
        table: SharedTable,
        clock: Callable[[], float],
        loop: Soon,
        cells: ProcessCells,
    ) -> None:
        self._table = table
        self._own = table.own
        self._clock = clock
        self._loop = loop
        self._cells = cells
        self._pumping = False
        self._interval_s = 0.0
        """Moving average of the time between two places coming free here while requests wait."""
        self._samples = 0
        self._freed_s = _NEVER_S
        self._limit = config.max_concurrent_requests
        self._lanes = {priority: _Lane(priority, getattr(config, priority.value)) for priority in PriorityClass}

    def __repr__(self) -> str:
        waits = " ".join(f"{lane.priority}={len(lane.waiting)}" for lane in self._lanes.values())
        return f"<Queue running={self.running} limit={self._limit} {waits}>"

    @property
    def running(self) -> int:
        """Requests of this process that hold a place."""
        return self._own[CONCURRENCY]

    @property
    def waiting(self) -> int:
        """Requests of this process that wait."""
        return self._own[QUEUED]

    def depth(self) -> dict[str, int]:
        """Requests of this process that wait, by class."""
        return {lane.priority.value: len(lane.waiting) for lane in self._lanes.values()}

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._limit is not None

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Use new limits. Who waits goes on waiting, also where its class got shorter; who runs goes on running."""
        self._limit = config.max_concurrent_requests
        for priority, lane in self._lanes.items():
            lane.config = getattr(config, priority.value)
        self._wake()

    def join(
        self, priority: PriorityClass, reservation: Reservation | None, ready: Callable[[Ticket | GatewayError], None]
    ) -> Ticket | Waiting | GatewayError:
        """Give a request a place, or a wait for one, or the refusal. `ready` is never called from within."""
        own = self._own
        if own[QUEUED] == 0 and self._take():
            self._count(priority, "admitted")
            return Ticket(self, reservation)
        lane = self._lanes[priority]
        config = lane.config
        if len(lane.waiting) >= config.queue_size:
            self._count(priority, "queue_full")
            return GatewayError(
                Code.RATE_LIMITED, f"too many {priority} requests are waiting, retry later", retry_after_s=self._retry_after_s(lane)
            )
        if self._samples >= SHED_SAMPLES and self._expected_wait_s(lane) > SHED_FACTOR * config.queue_timeout_s:
            self._count(priority, "shed")
            return _overloaded(self._retry_after_s(lane))
        waiting = Waiting(self, lane, self._clock(), reservation, ready)
        if own[QUEUED] == 0:  # a new time of crowding: what was learnt in the last one is old
            self._freed_s = _NEVER_S
            self._samples = 0
        lane.waiting[waiting] = None
        own[QUEUED] += 1
        self._count(priority, "queued")
        return waiting

    def leave(self, waiting: Waiting) -> None:
        """Take a request out of its class."""
        if self._remove(waiting):
            self._count(waiting.lane.priority, "left")
            if waiting.reservation is not None:
                waiting.reservation.cancel()

    def release(self) -> None:
        """Free a place."""
        own = self._own
        own[CONCURRENCY] -= 1
        if own[QUEUED]:
            self._measure()
            self._wake()

    def tick(self, now_s: float) -> None:
        """Refuse who waited too long, and give away places that other processes freed. Called about four times a second."""
        if self._own[QUEUED] == 0:
            return
        self._pump()
        for lane in self._lanes.values():
            timeout_s = lane.config.queue_timeout_s
            while lane.waiting and now_s - (waiting := lane.head).since_s >= timeout_s:
                self._refuse(waiting, "queue_timeout", _overloaded(self._retry_after_s(lane)))

    def close(self) -> None:
        """Refuse everybody who waits; who runs keeps its place until it is released."""
        for lane in self._lanes.values():
            while lane.waiting:
                error = GatewayError(Code.DRAINING, "the gateway is shutting down, retry elsewhere", retry_after_s=MIN_RETRY_S)
                self._refuse(lane.head, "draining", error)

    # -- places -------------------------------------------------------------------------------------------------------

    def _take(self) -> bool:
        """Count one more place, if there is one for us."""
        own = self._own
        limit = self._limit
        if limit is None:
            own[CONCURRENCY] += 1
            return True
        table = self._table
        if table.rows > 1 and own[CONCURRENCY] and table.others(QUEUED) and own[CONCURRENCY] >= self._share(limit):
            return False
        own[CONCURRENCY] += 1
        if table.total(CONCURRENCY) <= limit:
            return True
        own[CONCURRENCY] -= 1
        return False

    def _share(self, limit: int) -> int:
        """Our share of the places that are left to the processes with requests waiting, ourselves among them."""
        table = self._table
        sharers = 1
        for row in range(table.rows):
            if row == table.index:
                continue
            if table.at(row, QUEUED):
                sharers += 1
            else:
                limit -= table.at(row, CONCURRENCY)
        return max(1, -(-limit // sharers))

    def _wake(self) -> None:
        if not self._pumping and self._own[QUEUED]:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Give away free places. Never called from within a request's own call, so that turns do not nest."""
        self._pumping = False
        own = self._own
        while own[QUEUED] and self._take():
            waiting = self._next()
            self._remove(waiting)
            self._count(waiting.lane.priority, "admitted")
            waiting.ready(Ticket(self, waiting.reservation))

    # -- order --------------------------------------------------------------------------------------------------------

    def _next(self) -> Waiting:
        """Pick who goes first; somebody waits."""
        now_s = self._clock()
        first = starved = None
        overdue_s = 0.0
        for lane in self._lanes.values():
            if not lane.waiting:
                continue
            head = lane.head
            if first is None:
                first = head
            late_s = now_s - head.since_s - lane.config.starvation_s
            if late_s >= 0.0 and (starved is None or late_s > overdue_s):
                starved, overdue_s = head, late_s
        chosen = starved if starved is not None else first
        assert chosen is not None
        return chosen

    def _remove(self, waiting: Waiting) -> bool:
        """Take a request out of its class; False if it is no longer there."""
        queue = waiting.lane.waiting
        if waiting not in queue:
            return False
        del queue[waiting]
        self._own[QUEUED] -= 1
        self._cells.waited(waiting.lane.priority.value, self._clock() - waiting.since_s)
        return True

    def _refuse(self, waiting: Waiting, outcome: str, error: GatewayError) -> None:
        self._remove(waiting)
        self._count(waiting.lane.priority, outcome)
        if waiting.reservation is not None:
            waiting.reservation.cancel()
        waiting.ready(error)

    # -- expectations -------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Learn how often places come free."""
        now_s = self._clock()
        if self._freed_s != _NEVER_S:
            interval_s = now_s - self._freed_s
            self._interval_s += (interval_s - self._interval_s) * (SMOOTHING if self._samples else 1.0)
            self._samples += 1
        self._freed_s = now_s

    def _expected_wait_s(self, lane: _Lane) -> float:
        """The time until a request that joins a class now would run: everybody of its class and above goes first."""
        ahead = 1
        for other in self._lanes.values():
            ahead += len(other.waiting)
            if other is lane:
                break
        return ahead * self._interval_s

    def _retry_after_s(self, lane: _Lane) -> float:
        return min(MAX_RETRY_S, max(MIN_RETRY_S, self._expected_wait_s(lane)))

    def _count(self, priority: PriorityClass, outcome: str) -> None:
        key = (priority.value, outcome)
        counts = self._cells.admission
        counts[key] = counts.get(key, 0) + 1


def _overloaded(retry_after_s: float) -> GatewayError:
    return GatewayError(Code.OVERLOADED, "the gateway has no room for this request in time, retry later", retry_after_s=retry_after_s)
