"""Snapshot: the counts of one process, or of all of them, as plain values that cross a link and become an exposition.

Strategy.

1. `take` copies the cells of a process, on its event loop, between two callbacks: a snapshot is consistent in itself.
2. `merge` adds snapshots up. Counters and histograms are summed, requests in flight and connections too; of a worker's
   breaker the worst state counts, of its status the least available.
3. A `Ledger` keeps the last snapshot of each process. A process that died goes into its base, counters only, so that no
   counter of the whole ever falls; one that does not answer in time counts as it last did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

import msgspec

from gateway.telemetry.cells import EndpointCells, Histogram, ModelCells, ProcessCells, WorkerCells
from gateway.telemetry.process import ProcessReading

_K = TypeVar("_K")

BREAKER_STATES = ("closed", "half_open", "open")
"""States of a breaker, the worst last."""
WORKER_STATUSES = ("ready", "not_ready", "pending", "draining", "failed")
"""Statuses of a worker, the least available last."""


class WorkerReading(msgspec.Struct, kw_only=True):
    """One worker as a process has it; what `take` is given."""

    id: str
    url: str
    cells: WorkerCells
    models: tuple[str, ...] = ()
    status: str = "ready"
    engine: str = ""
    in_flight: int = 0
    """Requests that this process has in flight on it (its own row of the shared table, not the total)."""
    breaker: str = "closed"
    open_connections: int = 0
    """Of this process to it."""


class HistogramCounts(msgspec.Struct):
    """A histogram over `cells.DURATION_BOUNDS_S`: one count a bound, one more above the last."""

    counts: list[int]
    total: float = 0.0

    def add(self, other: HistogramCounts) -> None:
        """Add another histogram over the same bounds."""
        if not self.counts:
            self.counts = list(other.counts)
        elif other.counts:
            self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class EndpointCounts(msgspec.Struct, kw_only=True):
    """Counts of one client endpoint."""

    path: str
    requests: int = 0
    duration: HistogramCounts
    responses: list[tuple[int, str, int]] = []
    """(status, error code or "", responses)."""


class ModelCounts(msgspec.Struct, kw_only=True):
    """Counts of one (model, endpoint, streaming)."""

    model: str
    endpoint: str
    streaming: bool
    requests: int = 0
    duration: HistogramCounts
    ttft: HistogramCounts
    tpot: HistogramCounts
    generation: HistogramCounts
    errors: dict[str, int] = {}
    retries: int = 0
    retries_exhausted: int = 0
    hedges: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    usage_missing: int = 0


class WorkerCounts(msgspec.Struct, kw_only=True):
    """Counts and state of one worker."""

    id: str
    url: str
    models: tuple[str, ...] = ()
    status: str = "ready"
    engine: str = ""
    in_flight: int = 0
    breaker: str = "closed"
    open_connections: int = 0
    selections: int = 0
    successes: int = 0
    failures: int = 0
    streams_broken: int = 0
    hedges_won: int = 0
    responses: dict[int, int] = {}
    errors: dict[str, int] = {}
    breaker_transitions: list[tuple[str, str, int]] = []
    """(from, to, times)."""


class Snapshot(msgspec.Struct, kw_only=True):
    """Everything that is counted, of one process or of several; empty when made without arguments."""

    processes: list[ProcessReading] = []
    """Who is in it; processes that died are not, their counters are."""
    connections_active: int = 0
    connections_total: int = 0
    framing_errors: int = 0
    in_flight: int = 0
    """Requests that admission has let in and that are not over."""
    queued: int = 0
    """Requests that wait for admission."""
    queue_depth: dict[str, int] = {}
    """Priority class -> requests that wait in its queue."""
    access_log_dropped: int = 0
    """Access log lines that were dropped because the sink did not keep up."""
    spans_dropped: int = 0
    """Spans that were dropped because the collector did not keep up."""
    rate_limited: dict[str, int] = {}
    admission: list[tuple[str, str, int]] = []
    """(priority class, outcome, requests)."""
    queue_wait: dict[str, HistogramCounts] = {}
    endpoints: list[EndpointCounts] = []
    models: list[ModelCounts] = []
    workers: list[WorkerCounts] = []

    def encode(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """Read what `encode` wrote; raises `msgspec.DecodeError` when it is something else."""
        return msgspec.json.decode(data, type=cls)


def take(
    cells: ProcessCells,
    workers: Iterable[WorkerReading],
    *,
    process: ProcessReading | None = None,
    in_flight: int = 0,
    queued: int = 0,
    queue_depth: dict[str, int] | None = None,
    access_log_dropped: int = 0,
    spans_dropped: int = 0,
) -> Snapshot:
    """Copy the counts of this process; call it on the event loop that writes the cells.

    Args:
        cells: The process's cells.
        workers: Its workers, each with what the process itself has in flight there.
        process: What it says of itself; processes without it are not named in the exposition.
        in_flight: Requests admitted and not over (`CONCURRENCY` in its own row of the shared table).
        queued: Requests that wait for admission (`QUEUED`).
        queue_depth: The same by priority class, where the admission tells.
        access_log_dropped: `AccessLog.dropped`.
        spans_dropped: `Tracer.dropped`.
    """
    return Snapshot(
        processes=[] if process is None else [process],
        connections_active=cells.connections_active,
        connections_total=cells.connections_total,
        framing_errors=cells.framing_errors,
        in_flight=in_flight,
        queued=queued,
        queue_depth=dict(queue_depth or {}),
        access_log_dropped=access_log_dropped,
        spans_dropped=spans_dropped,
        rate_limited=dict(cells.rate_limited),
        admission=[(priority, outcome, count) for (priority, outcome), count in cells.admission.items()],
        queue_wait={priority: _histogram(histogram) for priority, histogram in cells.queue_wait.items()},
        endpoints=[_endpoint(one) for one in cells.endpoints.values()],
        models=[_model(one) for one in cells.models.values()],
        workers=[_worker(one) for one in workers],
    )


def merge(snapshots: Iterable[Snapshot], base: Snapshot | None = None) -> Snapshot:
    """Add snapshots up, on top of a base of processes that died; none of them is changed."""
    parts = list(snapshots)
    if base is not None:
        parts.insert(0, base)
    whole = Snapshot()
    endpoints: dict[str, EndpointCounts] = {}
    models: dict[tuple[str, str, bool], ModelCounts] = {}
    workers: dict[str, WorkerCounts] = {}
    admission: dict[tuple[str, str], int] = {}
    for part in parts:
        whole.processes += part.processes
        for name in _SUMMED:
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        _add_counts(whole.queue_depth, part.queue_depth)
        _add_counts(whole.rate_limited, part.rate_limited)
        for priority, outcome, count in part.admission:
            admission[priority, outcome] = admission.get((priority, outcome), 0) + count
        for priority, histogram in part.queue_wait.items():
            whole.queue_wait.setdefault(priority, HistogramCounts([])).add(histogram)
        for endpoint in part.endpoints:
            _add_endpoint(endpoints, endpoint)
        for model in part.models:
            _add_model(models, model)
        for worker in part.workers:
            add_worker(workers, worker)
    whole.admission = [(*key, count) for key, count in admission.items()]
    whole.endpoints = list(endpoints.values())
    whole.models = list(models.values())
    whole.workers = list(workers.values())
    return whole


class Ledger:
    """The counts of all processes of a gateway over its whole life, as the leader keeps them.

    `put` takes what a process sent; a new process under an old key, known by pid and start, retires the old one. `retire`
    is for a process that ended. The base keeps workers until `merged` is told that the fleet no longer has them.
    """

    def __init__(self) -> None:
        self._last: dict[int, Snapshot] = {}
        self._base = Snapshot()

    def __repr__(self) -> str:
        return f"<Ledger {len(self._last)} processes>"

    def put(self, key: int, snapshot: Snapshot) -> None:
        """Take the newest snapshot of a process."""
        last = self._last.get(key)
        if last is not None and _identity(last) != _identity(snapshot):
            self.retire(key)
        self._last[key] = snapshot

    def retire(self, key: int) -> None:
        """Keep the counters of a process that ended; a key that is not known is ignored."""
        last = self._last.pop(key, None)
        if last is not None:
            self._base = merge([_without_gauges(last)], self._base)

    def merged(self, worker_ids: Collection[str] | None = None) -> Snapshot:
        """Return the whole; workers of processes that ended are dropped unless they are among `worker_ids`."""
        return merge(self.parts(worker_ids))

    def parts(self, worker_ids: Collection[str] | None = None) -> list[Snapshot]:
        """Return what `merged` adds up, for a thread to do it in; nobody changes these snapshots any more."""
        base = self._base
        if worker_ids is not None and base.workers:
            kept = [worker for worker in base.workers if worker.id in worker_ids]
            base = self._base = msgspec.structs.replace(base, workers=kept)
        return [base, *self._last.values()]


_SUMMED = (
    "connections_active", "connections_total", "framing_errors", "in_flight", "queued", "access_log_dropped", "spans_dropped",
)  # fmt: skip
_MODEL_SUMMED = (
    "requests", "retries", "retries_exhausted", "hedges", "prompt_tokens", "completion_tokens", "cached_tokens", "usage_missing",
)  # fmt: skip
_MODEL_HISTOGRAMS = ("duration", "ttft", "tpot", "generation")
_WORKER_SUMMED = ("in_flight", "open_connections", "selections", "successes", "failures", "streams_broken", "hedges_won")


def _histogram(cells: Histogram) -> HistogramCounts:
    return HistogramCounts(list(cells.counts), cells.total)


def _endpoint(cells: EndpointCells) -> EndpointCounts:
    return EndpointCounts(
        path=cells.path,
        requests=cells.requests,
        duration=_histogram(cells.duration),
        responses=[(status, code, count) for (status, code), count in cells.responses.items()],
    )


def _model(cells: ModelCells) -> ModelCounts:
    return ModelCounts(
        model=cells.model,
        endpoint=cells.endpoint,
        streaming=cells.streaming,
        duration=_histogram(cells.duration),
        ttft=_histogram(cells.ttft),
        tpot=_histogram(cells.tpot),
        generation=_histogram(cells.generation),
        errors=dict(cells.errors),
        requests=cells.requests,
        retries=cells.retries,
        retries_exhausted=cells.retries_exhausted,
        hedges=cells.hedges,
        prompt_tokens=cells.prompt_tokens,
        completion_tokens=cells.completion_tokens,
        cached_tokens=cells.cached_tokens,
        usage_missing=cells.usage_missing,
    )


def _worker(reading: WorkerReading) -> WorkerCounts:
    cells = reading.cells
    return WorkerCounts(
        id=reading.id,
        url=reading.url,
        models=reading.models,
        status=str(reading.status),
        engine=str(reading.engine),
        in_flight=reading.in_flight,
        breaker=str(reading.breaker),
        open_connections=reading.open_connections,
        selections=cells.selections,
        successes=cells.successes,
        failures=cells.failures,
        streams_broken=cells.streams_broken,
        hedges_won=cells.hedges_won,
        responses=dict(cells.responses),
        errors=dict(cells.errors),
        breaker_transitions=[(old, new, count) for (old, new), count in cells.breaker_transitions.items()],
    )


def _add_counts(into: dict[_K, int], more: dict[_K, int]) -> None:
    for key, count in more.items():
        into[key] = into.get(key, 0) + count


def _add_endpoint(into: dict[str, EndpointCounts], more: EndpointCounts) -> None:
    mine = into.get(more.path)
    if mine is None:
        mine = into[more.path] = EndpointCounts(path=more.path, duration=HistogramCounts([]))
    mine.requests += more.requests
    mine.duration.add(more.duration)
    responses = {(status, code): count for status, code, count in mine.responses}
    _add_counts(responses, {(status, code): count for status, code, count in more.responses})
    mine.responses = [(*key, count) for key, count in responses.items()]


def _add_model(into: dict[tuple[str, str, bool], ModelCounts], more: ModelCounts) -> None:
    key = (more.model, more.endpoint, more.streaming)
    mine = into.get(key)
    if mine is None:
        mine = into[key] = ModelCounts(
            model=more.model,
            endpoint=more.endpoint,
            streaming=more.streaming,
            duration=HistogramCounts([]),
            ttft=HistogramCounts([]),
            tpot=HistogramCounts([]),
            generation=HistogramCounts([]),
        )
    for name in _MODEL_SUMMED:
        setattr(mine, name, getattr(mine, name) + getattr(more, name))
    for name in _MODEL_HISTOGRAMS:
        getattr(mine, name).add(getattr(more, name))
    _add_counts(mine.errors, more.errors)


def add_worker(into: dict[str, WorkerCounts], more: WorkerCounts) -> None:
    """Add the counts of a worker to those under its id."""
    mine = into.get(more.id)
    if mine is None:
        mine = into[more.id] = WorkerCounts(
            id=more.id, url=more.url, models=more.models, status=more.status, engine=more.engine, breaker=more.breaker
        )
    mine.url, mine.models, mine.engine = more.url, more.models, more.engine
    mine.status = max(mine.status, more.status, key=lambda one: _rank(WORKER_STATUSES, one))
    mine.breaker = max(mine.breaker, more.breaker, key=lambda one: _rank(BREAKER_STATES, one))
    for name in _WORKER_SUMMED:
        setattr(mine, name, getattr(mine, name) + getattr(more, name))
    _add_counts(mine.responses, more.responses)
    _add_counts(mine.errors, more.errors)
    transitions = {(old, new): count for old, new, count in mine.breaker_transitions}
    _add_counts(transitions, {(old, new): count for old, new, count in more.breaker_transitions})
    mine.breaker_transitions = [(*key, count) for key, count in transitions.items()]


def _rank(order: tuple[str, ...], value: str) -> int:
    return order.index(value) if value in order else len(order)


def _identity(snapshot: Snapshot) -> tuple[tuple[int, float], ...]:
    return tuple((process.pid, process.started_s) for process in snapshot.processes)


def _without_gauges(snapshot: Snapshot) -> Snapshot:
    """The counters of a process that no longer runs."""
    workers = [
        msgspec.structs.replace(worker, in_flight=0, open_connections=0, breaker=BREAKER_STATES[0], status=WORKER_STATUSES[0])
        for worker in snapshot.workers
    ]
    return msgspec.structs.replace(snapshot, processes=[], connections_active=0, in_flight=0, queued=0, queue_depth={}, workers=workers)
