"""Which metrics and labels a PromQL expression names."""

from __future__ import annotations

import re

from gateway.telemetry.metrics import METRICS, Metric, series_names

_BY_SERIES: dict[str, Metric] = {name: metric for metric in METRICS.values() for name in series_names(metric)}
_SELECTOR = re.compile(r"\b(smg_[a-z_]+)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_SCRAPE_LABELS = {"job", "instance"}


def unknown_names(expression: str) -> set[str]:
    """Return the metrics and labels of an expression that the table does not have."""
    unknown: set[str] = set()
    labels: set[str] = set()
    for name, matchers in _SELECTOR.findall(expression):
        metric = _BY_SERIES.get(name)
        if metric is None:
            unknown.add(name)
            continue
        known = {*metric.labels, *_SCRAPE_LABELS, *(["le"] if name.endswith("_bucket") else [])}
        labels |= known
        unknown |= {f"{name}{{{label}}}" for label in _MATCHER.findall(matchers) if label not in known}
    for group in _GROUPING.findall(expression):
        unknown |= {f"by {label.strip()}" for label in group.split(",") if label.strip() and label.strip() not in labels}
    return unknown
