"""The table of metrics keeps to the rules of names."""

from __future__ import annotations

import re

import pytest

from gateway.telemetry.metrics import GROUPS, METRICS, Metric, series_names

SMG_NAMES = """
smg_http_requests_total smg_http_request_duration_seconds smg_http_responses_total smg_http_connections_active
smg_http_rate_limit_total smg_router_requests_total smg_router_request_duration_seconds smg_router_request_errors_total
smg_router_upstream_responses_total smg_router_ttft_seconds smg_router_tpot_seconds smg_router_generation_duration_seconds
smg_router_tokens_total smg_worker_pool_size smg_worker_connections_active smg_worker_requests_active smg_worker_health
smg_worker_selection_total smg_worker_errors_total smg_worker_cb_state smg_worker_cb_transitions_total
smg_worker_cb_outcomes_total smg_worker_retries_total smg_worker_retries_exhausted_total smg_scheduler_admit_total
smg_scheduler_inflight smg_scheduler_queue_depth smg_scheduler_queue_size_limit smg_scheduler_queue_wait_seconds
smg_scheduler_utilization
""".split()  # noqa: SIM905 - thirty names are read better than quoted


def test_names_are_unique() -> None:
    """No name is in the table twice."""
    assert len(METRICS) == sum(len(metrics) for _, metrics in GROUPS)


@pytest.mark.parametrize("name", SMG_NAMES)
def test_the_family_has_smgs_names(name: str) -> None:
    """Dashboards made for smg find these."""
    assert name in METRICS


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_name_says_its_kind(metric: Metric) -> None:
    """Counters end in _total, histograms in a unit, gauges in neither."""
    assert re.fullmatch(r"smg_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")
    assert len(set(metric.labels)) == len(metric.labels)
    assert metric.help.endswith(".")
    assert "\n" not in metric.help and "\\" not in metric.help


def test_a_histogram_is_found_under_four_names() -> None:
    """Queries ask for buckets, sum and count."""
    assert series_names(METRICS["smg_router_ttft_seconds"])[1:] == (
        "smg_router_ttft_seconds_bucket",
        "smg_router_ttft_seconds_sum",
        "smg_router_ttft_seconds_count",
    )
    assert series_names(METRICS["smg_build_info"]) == ("smg_build_info",)
