"""Every metric that the gateway exposes: name, kind, labels, help. The exposition, its reference page and the alerts obey it.

Names and labels are those of the `smg_*` family wherever the meaning is the same, so that dashboards carry over; a label
with one value so far (`router_type`, `backend_type`, `worker_type`, `connection_mode`, `method`) is there for that reason.
What counts per worker has the label `worker`, its URL, also where smg adds workers up: `sum` over it gives smg's series.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """One metric family."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


_MODEL = ("router_type", "backend_type", "connection_mode", "model", "endpoint", "streaming")
_POOL = ("worker_type", "connection_mode", "model")
_WORKER = ("worker_type", "connection_mode", "worker")

GROUPS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    (
        "Clients",
        (
            Metric("smg_http_requests_total", "counter", ("method", "path"), "Requests that ended, by endpoint."),
            Metric(
                "smg_http_request_duration_seconds", "histogram", ("method", "path"), "Seconds from the request to the end of its answer."
            ),
            Metric(
                "smg_http_responses_total",
                "counter",
                ("path", "status_code", "error_code"),
                "Answers by status and error code; the code is empty where there was no error, status 499 is a client that left.",
            ),
            Metric("smg_http_connections_active", "gauge", (), "Open client connections."),
            Metric("smg_http_connections_total", "counter", (), "Client connections accepted."),
            Metric("smg_http_framing_errors_total", "counter", (), "Client connections closed because of malformed HTTP."),
            Metric(
                "smg_http_rate_limit_total",
                "counter",
                ("result", "limit"),
                "Requests refused by a tenant's limit (result rejected, and which limit) or let through by admission (allowed).",
            ),
        ),
    ),
    (
        "Models",
        (
            Metric("smg_router_requests_total", "counter", _MODEL, "Requests for a model that ended."),
            Metric("smg_router_request_duration_seconds", "histogram", _MODEL, "Seconds from the request to the end of its answer."),
            Metric("smg_router_request_errors_total", "counter", (*_MODEL, "error_type"), "Requests for a model that ended in an error."),
            Metric("smg_router_ttft_seconds", "histogram", _MODEL, "Streams: seconds from the request to the first token sent."),
            Metric("smg_router_tpot_seconds", "histogram", _MODEL, "Streams: seconds per output token after the first."),
            Metric("smg_router_generation_duration_seconds", "histogram", _MODEL, "Streams: seconds from the first token to the end."),
            Metric(
                "smg_router_tokens_total",
                "counter",
                (*_MODEL, "token_type"),
                "Tokens as the engine counted them: input (the whole prompt), output, and cached, the part of input from its prefix cache.",
            ),
            Metric(
                "smg_router_usage_missing_total", "counter", _MODEL, "Answers without a usage of the engine: tokens missing or estimated."
            ),
            Metric("smg_router_hedges_total", "counter", _MODEL, "Requests that were sent to a second worker because the first was slow."),
            Metric("smg_worker_retries_total", "counter", ("worker_type", *_MODEL[2:]), "Attempts after the first, hedges apart."),
            Metric(
                "smg_worker_retries_exhausted_total",
                "counter",
                ("worker_type", *_MODEL[2:]),
                "Requests that failed after their last attempt was used up.",
            ),
        ),
    ),
    (
        "Workers",
        (
            Metric("smg_worker_pool_size", "gauge", _POOL, "Workers that serve a model, whatever their status."),
            Metric("smg_worker_pool_available", "gauge", _POOL, "Workers of a model that take requests: ready, breaker not open."),
            Metric("smg_worker_info", "gauge", ("worker", "worker_id", "engine", "version"), "Always 1: what a worker is."),
            Metric("smg_worker_status", "gauge", ("worker", "status"), "1 for the status that a worker is in; no other series of it."),
            Metric("smg_worker_health", "gauge", ("worker",), "1 while the fleet says that a worker takes requests, else 0."),
            Metric("smg_worker_requests_active", "gauge", ("worker",), "Requests in flight on a worker."),
            Metric("smg_worker_connections_active", "gauge", _WORKER, "Open connections to a worker."),
            Metric("smg_worker_selection_total", "counter", _WORKER, "Attempts sent to a worker."),
            Metric("smg_worker_errors_total", "counter", (*_WORKER, "error_type"), "Attempts on a worker that ended in an error."),
            Metric(
                "smg_router_upstream_responses_total", "counter", ("router_type", "worker", "status_code"), "Answers of a worker by status."
            ),
            Metric(
                "smg_worker_streams_broken_total", "counter", ("worker",), "Streams of a worker that broke off after their first event."
            ),
            Metric("smg_worker_hedges_won_total", "counter", ("worker",), "Answers that a worker gave as the second one asked."),
            Metric(
                "smg_worker_cb_state",
                "gauge",
                ("worker",),
                "Breaker of a worker: 0 closed, 1 open, 2 half open; the worst of all processes.",
            ),
            Metric(
                "smg_worker_cb_transitions_total", "counter", ("worker", "from", "to"), "Changes of a worker's breaker, of every process."
            ),
            Metric("smg_worker_cb_outcomes_total", "counter", ("worker", "outcome"), "Attempts by what the breaker made of them."),
        ),
    ),
    (
        "Admission",
        (
            Metric(
                "smg_scheduler_admit_total", "counter", ("class", "outcome"), "Requests by priority class and how their admission ended."
            ),
            Metric("smg_scheduler_queued_total", "counter", ("class",), "Requests that had to wait for admission."),
            Metric("smg_scheduler_queue_wait_seconds", "histogram", ("class",), "Seconds in the queue, however the wait ended."),
            Metric("smg_scheduler_inflight", "gauge", (), "Requests admitted and not over."),
            Metric("smg_scheduler_waiting", "gauge", (), "Requests that wait for admission, all classes."),
            Metric("smg_scheduler_queue_depth", "gauge", ("class",), "Requests that wait, by priority class."),
            Metric("smg_scheduler_queue_size_limit", "gauge", ("class",), "Room in the queue of a priority class, of one process."),
            Metric("smg_scheduler_capacity", "gauge", (), "Limit on requests at once; absent where there is none."),
            Metric("smg_scheduler_utilization", "gauge", (), "Requests admitted as a share of that limit; absent where there is none."),
        ),
    ),
    (
        "Gateway",
        (
            Metric("smg_build_info", "gauge", ("version", "python"), "Always 1: what runs."),
            Metric("smg_uptime_seconds", "gauge", (), "Seconds since the gateway started."),
            Metric("smg_config_version", "gauge", (), "Version of the configuration in force."),
            Metric("smg_config_last_apply_successful", "gauge", (), "0 when the last reload or apply was refused, else 1."),
            Metric("smg_processes", "gauge", (), "Processes whose counts are in this page."),
            Metric("smg_process_restarts_total", "counter", (), "Serving processes that were started again after they ended."),
            Metric("smg_process_start_time_seconds", "gauge", ("process",), "Unix time at which a process started."),
            Metric("smg_process_resident_memory_bytes", "gauge", ("process",), "Resident memory of a process."),
            Metric("smg_process_open_fds", "gauge", ("process",), "Open descriptors of a process."),
            Metric("smg_process_cpu_seconds_total", "counter", ("process",), "Processor time of a process."),
            Metric("smg_access_log_dropped_total", "counter", (), "Access log lines dropped because the sink did not keep up."),
            Metric("smg_trace_spans_dropped_total", "counter", (), "Spans dropped because the collector did not keep up."),
        ),
    ),
)
"""The table by subject, in the order of the reference page."""

METRICS: dict[str, Metric] = {metric.name: metric for _, metrics in GROUPS for metric in metrics}
"""The table by name."""


def series_names(metric: Metric) -> tuple[str, ...]:
    """Return the names under which queries find a metric."""
    if metric.kind == "histogram":
        return (metric.name, f"{metric.name}_bucket", f"{metric.name}_sum", f"{metric.name}_count")
    return (metric.name,)
