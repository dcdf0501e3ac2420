"""The Prometheus writer, read back by prometheus-client's own parser."""

from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.sim.exposition import NO_LABELS, Exposition, Histogram, number
from harness.sim.measures import token_bounds


def test_a_text_is_read_back() -> None:
    """Gauges, counters, summaries and histograms come back with their labels and values."""
    histogram = Histogram((0.1, 1))
    for value in (0.1, 0.5, 2.0):
        histogram.observe(value)
    out = Exposition({"model_name": 'a"b\\c\nd'}, 5.0)
    out.gauge("g", "Gauge.", [({"z": "1"}, 2)])
    out.counter("c_total", "Counter.", [(NO_LABELS, 3)])
    out.summary("s", "Summary.", [(NO_LABELS, 2, 9.5)], bare=True)
    out.histogram("h", "Histogram.", [(NO_LABELS, histogram)])
    samples = {
        (sample.name, sample.labels.get("le")): (sample.value, sample.labels.get("model_name"))
        for family in text_string_to_metric_families(out.text())
        for sample in family.samples
    }
    name = 'a"b\\c\nd'
    assert samples["g", None] == (2.0, name)
    assert samples["c_total", None] == (3.0, name)
    assert samples["c_created", None] == (5.0, name)
    assert samples["s_sum", None] == (9.5, None)
    assert [samples["h_bucket", bound][0] for bound in ("0.1", "1.0", "+Inf")] == [1, 2, 3]
    assert samples["h_sum", None][0] == pytest.approx(2.6)


def test_numbers() -> None:
    """Values are written as Prometheus reads them."""
    assert [number(value) for value in (1, 0.5, math.inf, math.nan)] == ["1.0", "0.5", "+Inf", "NaN"]


def test_token_bounds_end_with_the_context() -> None:
    """Bounds go 1, 2, 5, 10 and so on, no further than the context length."""
    assert token_bounds(2048) == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
    assert token_bounds(1) == (1,)
