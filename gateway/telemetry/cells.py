"""Counters of the request path: plain slotted objects that cost one attribute write, read by `snapshot.py` at scrape time.

A cell belongs to one process and one event loop; nothing here locks. Label values are bounded by construction: endpoints
are a fixed table, models are those of the registry, codes are `errors.Code`, workers leave with their worker.
"""

from __future__ import annotations

from bisect import bisect_left

DURATION_BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 7200.0,
)  # fmt: skip
"""1 ms to 2 h, as smg's histograms, so that dashboards carry over."""

MAX_MODEL_CELLS = 4096
"""(model, endpoint, streaming) triples counted apart; models that come and go (LoRA adapters) beyond it count as `other`."""
OTHER_MODELS = "other"


class Histogram:
    """A histogram over fixed upper bounds; `counts` has one more entry, for everything above the last bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = DURATION_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class EndpointCells:
    """Counts of one client endpoint (`smg_http_*`)."""

    __slots__ = ("duration", "path", "requests", "responses")

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests = 0
        self.duration = Histogram()
        self.responses: dict[tuple[int, str], int] = {}
        """(status, error code or "") -> responses."""


class ModelCells:
    """Counts of one (model, endpoint, streaming) (`smg_router_*`)."""

    __slots__ = (
        "cached_tokens", "completion_tokens", "duration", "endpoint", "errors", "generation", "hedges", "model", "prompt_tokens",
        "requests", "retries", "retries_exhausted", "streaming", "tpot", "ttft", "usage_missing",
    )  # fmt: skip

    def __init__(self, model: str, endpoint: str, streaming: bool) -> None:
        self.model = model
        self.endpoint = endpoint
        self.streaming = streaming
        self.requests = 0
        self.duration = Histogram()
        self.ttft = Histogram()
        """Seconds from the request to the first token sent to the client (streams)."""
        self.tpot = Histogram()
        """Seconds per output token after the first (streams)."""
        self.generation = Histogram()
        """Seconds from the first token to the last (streams)."""
        self.errors: dict[str, int] = {}
        """Error code -> requests that ended in it."""
        self.retries = 0
        self.retries_exhausted = 0
        self.hedges = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.usage_missing = 0
        """Answers that ended well without a usage, so that their tokens are not in the counts."""


class WorkerCells:
    """Counts of one worker (`smg_worker_*`)."""

    __slots__ = ("breaker_transitions", "errors", "failures", "hedges_won", "responses", "selections", "streams_broken", "successes")

    def __init__(self) -> None:
        self.selections = 0
        self.successes = 0
        self.failures = 0
        self.streams_broken = 0
        self.hedges_won = 0
        self.responses: dict[int, int] = {}
        """Upstream status -> answers."""
        self.errors: dict[str, int] = {}
        """Error code -> attempts that ended in it."""
        self.breaker_transitions: dict[tuple[str, str], int] = {}
        """(from, to) -> times."""


class ProcessCells:
    """Counts of one process that belong to no endpoint."""

    __slots__ = (
        "admission", "connections_active", "connections_total", "endpoints", "framing_errors", "models", "queue_wait", "rate_limited",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections_active = 0
        self.connections_total = 0
        self.framing_errors = 0
        """Client connections closed because of malformed HTTP."""
        self.rate_limited: dict[str, int] = {}
        """What refused ("requests_per_minute", "tokens_per_minute") -> requests."""
        self.admission: dict[tuple[str, str], int] = {}
        """(priority class, "admitted" | "queued" | "queue_full" | "queue_timeout" | "shed" | "draining" | "left") -> requests."""
        self.queue_wait: dict[str, Histogram] = {}
        """Priority class -> seconds that requests waited in its queue, however the wait ended."""
        self.endpoints: dict[str, EndpointCells] = {}
        self.models: dict[tuple[str, str, bool], ModelCells] = {}

    def endpoint(self, path: str) -> EndpointCells:
        """The cells of an endpoint, made on first use."""
        cells = self.endpoints.get(path)
        if cells is None:
            cells = self.endpoints[path] = EndpointCells(path)
        return cells

    def model(self, model: str, endpoint: str, streaming: bool) -> ModelCells:
        """The cells of a (model, endpoint, streaming), made on first use; `model` must be one of the registry's."""
        key = (model, endpoint, streaming)
        cells = self.models.get(key)
        if cells is None:
            if len(self.models) >= MAX_MODEL_CELLS and model != OTHER_MODELS:
                return self.model(OTHER_MODELS, endpoint, streaming)
            cells = self.models[key] = ModelCells(model, endpoint, streaming)
        return cells

    def waited(self, priority: str, wait_s: float) -> None:
        """Count the wait of a request in the queue of its priority class."""
        histogram = self.queue_wait.get(priority)
        if histogram is None:
            histogram = self.queue_wait[priority] = Histogram()
        histogram.observe(wait_s)
