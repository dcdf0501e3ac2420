"""Cells count what they are told, and stay bounded."""

from __future__ import annotations

import pytest

from gateway.telemetry import cells
from gateway.telemetry.cells import DURATION_BOUNDS_S, OTHER_MODELS, Histogram, ProcessCells


@pytest.mark.parametrize(
    ("value", "place"),
    [(0.0, 0), (0.001, 0), (0.0011, 1), (7200.0, len(DURATION_BOUNDS_S) - 1), (7200.1, len(DURATION_BOUNDS_S))],
)
def test_a_value_counts_in_the_bucket_whose_bound_it_does_not_exceed(value: float, place: int) -> None:
    """Bounds are inclusive, as Prometheus has them."""
    histogram = Histogram()
    histogram.observe(value)
    assert histogram.counts.index(1) == place
    assert sum(histogram.counts) == 1
    assert histogram.total == value


def test_cells_of_a_model_are_made_once() -> None:
    """Asking twice gives the same cells, per endpoint and way of answering."""
    process = ProcessCells()
    one = process.model("m", "/v1/x", True)
    assert process.model("m", "/v1/x", True) is one
    assert process.model("m", "/v1/x", False) is not one
    assert process.endpoint("/v1/x") is process.endpoint("/v1/x")


def test_models_beyond_the_limit_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that come and go cannot grow the table without end."""
    monkeypatch.setattr(cells, "MAX_MODEL_CELLS", 2)
    process = ProcessCells()
    known = process.model("a", "/v1/x", True)
    process.model("b", "/v1/x", True)
    other = process.model("c", "/v1/x", True)
    assert other.model == OTHER_MODELS
    assert process.model("d", "/v1/x", True) is other
    assert process.model("a", "/v1/x", True) is known
    assert len(process.models) == 3


def test_waits_count_by_priority_class() -> None:
    """Each priority class has its own histogram."""
    process = ProcessCells()
    process.waited("bulk", 0.5)
    process.waited("bulk", 1.5)
    process.waited("default", 0.5)
    assert process.queue_wait["bulk"].total == 2.0
    assert sum(process.queue_wait["default"].counts) == 1
