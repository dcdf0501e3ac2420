"""Every alert fires when it should and not otherwise, as promtool's rule tests see it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prometheus import ASSETS, needs_promtool, promtool

RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for rule in yaml.safe_load((ASSETS / "alerts.yaml").read_text())["groups"][0]["rules"]
}
AT = {"job": "smg", "instance": "gw:29000"}


@dataclass
class Case:
    """What is measured each minute, and what an alert makes of it."""

    alert: str
    series: dict[str, str]
    """Series without job and instance -> promtool's notation of values."""
    at: str = "20m"
    fires: dict[str, str] | None = field(default_factory=dict)
    """Labels of the alert beyond job and instance; None where it must not fire."""
    id: str = "fires"


W = 'worker="http://w1:8000"'
M = 'model="m"'
WORKER = {"worker": "http://w1:8000"}
MODEL = {"model": "m"}
POOL = {"worker_type": "regular", "connection_mode": "http", "model": "m"}
RESPONSES = 'smg_http_responses_total{path="/v1/chat/completions"'

CASES = [
    Case("SmgDown", {"up": "0x30"}, at="2m"),
    Case("SmgDown", {"up": "1x30"}, fires=None, id="up"),
    Case("SmgModelUnavailable", {f'smg_worker_pool_available{{worker_type="regular",connection_mode="http",{M}}}': "0x30"}, fires=POOL),
    Case("SmgModelUnavailable", {f"smg_worker_pool_available{{{M}}}": "1x30"}, fires=None, id="one left"),
    Case(
        "SmgErrorRateHigh",
        {
            RESPONSES + ',status_code="200",error_code=""}': "0+90x30",
            RESPONSES + ',status_code="200",error_code="stream_broken"}': "0+10x30",
        },
    ),
    Case(
        "SmgErrorRateHigh",
        {
            RESPONSES + ',status_code="200",error_code=""}': "0+90x30",
            RESPONSES + ',status_code="400",error_code="invalid_request"}': "0+90x30",
        },
        fires=None,
        id="the client's fault",
    ),
    Case("SmgWorkerUnhealthy", {f"smg_worker_health{{{W}}}": "0x30", f'smg_worker_status{{{W},status="not_ready"}}': "1x30"}, fires=WORKER),
    Case(
        "SmgWorkerUnhealthy",
        {f"smg_worker_health{{{W}}}": "0x30", f'smg_worker_status{{{W},status="draining"}}': "1x30"},
        fires=None,
        id="draining",
    ),
    Case("SmgWorkerStartsSlowly", {f'smg_worker_status{{{W},status="pending"}}': "1x60"}, at="45m", fires=WORKER | {"status": "pending"}),
    Case("SmgWorkerStartsSlowly", {f'smg_worker_status{{{W},status="pending"}}': "1x60"}, fires=None, id="still in time"),
    Case("SmgBreakerOpen", {f"smg_worker_cb_state{{{W}}}": "1x30"}, fires=WORKER),
    Case("SmgBreakerOpen", {f"smg_worker_cb_state{{{W}}}": "1 1 1 2 0 1 1 1 2 0 1 1 1 2 0 1 1 1 2 0 1 1 1 2"}, fires=None, id="recovers"),
    Case("SmgStreamsBroken", {f"smg_worker_streams_broken_total{{{W}}}": "0+1x30"}, fires=WORKER),
    Case("SmgStreamsBroken", {f"smg_worker_streams_broken_total{{{W}}}": "0 0 0 2x30"}, fires=None, id="two"),
    Case(
        "SmgRetriesHigh",
        {f"smg_worker_retries_total{{{M}}}": "0+20x40", f"smg_router_requests_total{{{M}}}": "0+100x40"},
        at="30m",
        fires=MODEL,
    ),
    Case(
        "SmgRetriesHigh",
        {f"smg_worker_retries_total{{{M}}}": "0+5x40", f"smg_router_requests_total{{{M}}}": "0+100x40"},
        at="30m",
        fires=None,
        id="few",
    ),
    Case(
        "SmgFirstTokenSlow",
        {
            f'smg_router_ttft_seconds_bucket{{{M},le="10"}}': "0+50x40",
            f'smg_router_ttft_seconds_bucket{{{M},le="30"}}': "0+100x40",
            f'smg_router_ttft_seconds_bucket{{{M},le="+Inf"}}': "0+100x40",
        },
        at="30m",
        fires=MODEL,
    ),
    Case(
        "SmgFirstTokenSlow",
        {f'smg_router_ttft_seconds_bucket{{{M},le="10"}}': "0+100x40", f'smg_router_ttft_seconds_bucket{{{M},le="+Inf"}}': "0+101x40"},
        at="30m",
        fires=None,
        id="fast",
    ),
    Case("SmgSaturated", {"smg_scheduler_utilization": "1x30", "smg_scheduler_waiting": "5x30"}),
    Case("SmgSaturated", {"smg_scheduler_utilization": "1x30", "smg_scheduler_waiting": "0x30"}, fires=None, id="nobody waits"),
    Case(
        "SmgRequestsShed",
        {'smg_scheduler_admit_total{class="bulk",outcome="rejected_queue_full"}': "0+1x30"},
        fires={"class": "bulk"},
    ),
    Case("SmgRequestsShed", {'smg_scheduler_admit_total{class="bulk",outcome="client_cancelled"}': "0+1x30"}, fires=None, id="left"),
    Case(
        "SmgUsageMissing",
        {f"smg_router_usage_missing_total{{{M}}}": "0+10x60", f"smg_router_requests_total{{{M}}}": "0+100x60"},
        at="45m",
        fires=MODEL,
    ),
    Case(
        "SmgUsageMissing",
        {f"smg_router_usage_missing_total{{{M}}}": "0+1x60", f"smg_router_requests_total{{{M}}}": "0+100x60"},
        at="45m",
        fires=None,
        id="rare",
    ),
    Case("SmgProcessRestarts", {"smg_process_restarts_total": "0+1x30"}),
    Case("SmgProcessRestarts", {"smg_process_restarts_total": "0 0 1x30"}, fires=None, id="once"),
    Case("SmgConfigRefused", {"smg_config_last_apply_successful": "0x30"}),
    Case("SmgConfigRefused", {"smg_config_last_apply_successful": "1x30"}, fires=None, id="applied"),
    Case("SmgMemoryHigh", {'smg_process_resident_memory_bytes{process="0"}': "2000000000x30"}, fires={"process": "0"}),
    Case("SmgMemoryHigh", {'smg_process_resident_memory_bytes{process="0"}': "100000000x30"}, fires=None, id="low"),
    Case("SmgTelemetryDropped", {"smg_access_log_dropped_total": "0+1x30", "smg_trace_spans_dropped_total": "0x30"}),
    Case(
        "SmgTelemetryDropped", {"smg_access_log_dropped_total": "7x30", "smg_trace_spans_dropped_total": "0x30"}, fires=None, id="long ago"
    ),
]


def _series(name: str) -> str:
    own = ",".join(f'{label}="{value}"' for label, value in AT.items())
    return name.replace("{", "{" + own + ",") if "{" in name else f"{name}{{{own}}}"


def _expected(case: Case) -> dict[str, Any]:
    assert case.fires is not None
    labels = AT | case.fires
    rule = RULES[case.alert]

    def expand(text: str) -> str:
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)

    return {
        "exp_labels": labels | rule["labels"],
        "exp_annotations": {name: expand(text) for name, text in rule["annotations"].items()},
    }


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=[f"{case.alert}-{case.id}" for case in CASES])
def test_an_alert_fires_when_it_should(case: Case, tmp_path: Path) -> None:
    """Given these measurements, the alert fires with its labels and texts, or does not."""
    script = {
        "rule_files": [str(ASSETS / "alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": _series(name), "values": values} for name, values in case.series.items()],
                "alert_rule_test": [
                    {"eval_time": case.at, "alertname": case.alert, "exp_alerts": [] if case.fires is None else [_expected(case)]}
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(script))
    code, said = promtool("test", "rules", str(path))
    assert code == 0, said


def test_every_alert_is_shown_to_fire_and_to_stay_silent() -> None:
    """No alert is without both cases."""
    assert {case.alert for case in CASES if case.fires is not None} == RULES.keys()
    assert {case.alert for case in CASES if case.fires is None} == RULES.keys()
