"""The reference page has every metric."""

from __future__ import annotations

from gateway.telemetry.metrics import METRICS
from gateway.telemetry.reference import metrics_page


def test_every_metric_has_a_row() -> None:
    """Name, kind, labels and help of each are on the page, in one table row."""
    rows = {line.split("`")[1]: line for line in metrics_page().splitlines() if line.startswith("| `")}
    assert rows.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        assert f"| {metric.kind} |" in rows[name]
        assert metric.help in rows[name]
        assert all(f"`{label}`" in rows[name] for label in metric.labels)
        assert rows[name].count("|") == 5
