"""Dashboard, alert rules and Prometheus configuration name only what exists, and the real tools take them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from gateway.errors import Code
from gateway.telemetry.metrics import METRICS
from tests.support.prometheus import ASSETS, needs_promtool, promtool
from tests.support.queries import unknown_names

DASHBOARD: dict[str, Any] = json.loads((ASSETS / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
RULES: list[dict[str, Any]] = yaml.safe_load((ASSETS / "alerts.yaml").read_text())["groups"][0]["rules"]

NOT_THE_CLIENTS_FAULT = {
    Code.INTERNAL, Code.OVERLOADED, Code.NO_CANDIDATE, Code.DRAINING, Code.DEADLINE_EXCEEDED, Code.CONNECT_FAILED, Code.UPSTREAM_FAILED,
    Code.UPSTREAM_TIMEOUT, Code.UPSTREAM_PROTOCOL, Code.CREDENTIAL_FAILED, Code.STREAM_BROKEN,
}  # fmt: skip


@needs_promtool
@pytest.mark.parametrize("what", [("rules", "alerts.yaml"), ("config", "prometheus.yaml")], ids=["rules", "config"])
def test_promtool_accepts_a_file(what: tuple[str, str]) -> None:
    """What we ship loads in the real Prometheus."""
    code, said = promtool("check", what[0], str(ASSETS / what[1]))
    assert code == 0, said
    assert "SUCCESS" in said


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_names_only_what_exists(rule: dict[str, Any]) -> None:
    """Metrics and labels of the expression are in the table; it says how bad it is and what to do."""
    assert unknown_names(rule["expr"]) == set()
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}


def test_the_error_rate_counts_what_is_not_the_clients_fault() -> None:
    """The codes in the rule are codes, and all those that say so."""
    (rule,) = [rule for rule in RULES if rule["alert"] == "SmgErrorRateHigh"]
    (codes,) = re.findall(r'error_code=~"([^"]+)"', rule["expr"])
    assert set(codes.split("|")) == {str(code) for code in NOT_THE_CLIENTS_FAULT}


@pytest.mark.parametrize(
    ("expression", "unknown"),
    [
        ("smg_no_such_thing > 1", {"smg_no_such_thing"}),
        ('smg_worker_health{model="m"}', {"smg_worker_health{model}"}),
        ("sum by (tenant) (smg_worker_health)", {"by tenant"}),
        ("rate(smg_router_ttft_seconds_bucket[5m])", set()),
        ("rate(smg_router_ttft_seconds_buckets[5m])", {"smg_router_ttft_seconds_buckets"}),
    ],
)
def test_a_wrong_name_is_noticed(expression: str, unknown: set[str]) -> None:
    """The check of the other tests can fail."""
    assert unknown_names(expression) == unknown


@pytest.mark.parametrize("panel", CHARTS, ids=[panel["title"] for panel in CHARTS])
def test_a_panel_names_only_what_exists(panel: dict[str, Any]) -> None:
    """Metrics, labels and variables of each query exist; the data source is the variable."""
    variables = {f"${one['name']}" for one in DASHBOARD["templating"]["list"]} | {"$__rate_interval"}
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    for target in panel["targets"]:
        expression = target["expr"]
        assert target["datasource"] == panel["datasource"]
        assert set(re.findall(r"\$\w+", expression)) <= variables
        assert unknown_names(expression) == set()
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_dashboard_has_the_shape_that_grafana_imports() -> None:
    """Schema version, a data source variable, known panel types, unique ids, and a grid without overlaps."""
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["id"] is None and DASHBOARD["uid"] and DASHBOARD["title"]
    assert DASHBOARD["templating"]["list"][0] | {"type": "datasource", "query": "prometheus"} == DASHBOARD["templating"]["list"][0]
    assert {panel["type"] for panel in PANELS} <= {"row", "timeseries", "stat", "state-timeline", "table", "heatmap", "gauge"}
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_has_a_row_for_every_subject() -> None:
    """Traffic, latency, workers, admission, tokens, process."""
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Workers", "Admission", "Tokens", "Process"]


def test_every_metric_that_alerts_use_is_on_the_dashboard_or_explained() -> None:
    """Whoever is woken up finds the number that woke them."""
    shown = " ".join(target["expr"] for panel in CHARTS for target in panel["targets"])
    alerted = {name for rule in RULES for name in METRICS if re.search(rf"\b{name}\b", rule["expr"])}
    assert {name for name in alerted if name not in shown} <= {
        "smg_worker_status",  # the health panel shows it as `out`
        "smg_scheduler_utilization",  # in flight over capacity
        "smg_config_last_apply_successful",
    }
