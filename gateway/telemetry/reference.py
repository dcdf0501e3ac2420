"""The reference page of metrics, generated from `metrics.GROUPS`."""

from __future__ import annotations

from gateway.telemetry.cells import DURATION_BOUNDS_S
from gateway.telemetry.metrics import GROUPS

_HEAD = """# Metrics

Served in Prometheus text format at `/metrics` on the metrics port (`server.metrics_port`, 29000), for all processes of a
gateway together. Names and labels are those of the `smg_*` family wherever the meaning is the same. Labels are bounded:
endpoints and error codes are fixed sets, models are those that workers serve, and the series of a worker leave with it.
"""


def metrics_page() -> str:
    """Return `docs/reference/metrics.md`."""
    lines = [_HEAD]
    bounds = ", ".join(f"{bound:g}" for bound in DURATION_BOUNDS_S)
    lines.append(f"Histograms have the upper bounds {bounds} seconds.\n")
    for title, metrics in GROUPS:
        lines += (f"## {title}\n", "| name | type | labels | meaning |", "|---|---|---|---|")
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
        lines.append("")
    return "\n".join(lines)
