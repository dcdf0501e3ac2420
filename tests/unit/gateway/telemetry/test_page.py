"""The writer of pages obeys the table of metrics."""

from __future__ import annotations

import pytest

from gateway.telemetry.page import Page, escape
from gateway.telemetry.snapshot import HistogramCounts


def test_a_family_has_its_head_once() -> None:
    """Help, type, then the rows."""
    page = Page()
    page.plain("smg_scheduler_queued_total", [("bulk", 1), ("default", 2)])
    assert page.encode().decode().splitlines() == [
        "# HELP smg_scheduler_queued_total Requests that had to wait for admission.",
        "# TYPE smg_scheduler_queued_total counter",
        'smg_scheduler_queued_total{class="bulk"} 1',
        'smg_scheduler_queued_total{class="default"} 2',
    ]


def test_a_family_without_rows_is_left_out() -> None:
    """No head without a series."""
    page = Page()
    page.plain("smg_scheduler_queued_total", [])
    page.histograms("smg_scheduler_queue_wait_seconds", [])
    assert page.encode() == b""


def test_a_name_that_is_not_in_the_table_is_refused() -> None:
    """Nothing is exposed that is not documented."""
    with pytest.raises(KeyError):
        Page().value("smg_made_up", 1)


@pytest.mark.parametrize("row", [(1,), ("bulk", "more", 1)])
def test_another_number_of_labels_is_refused(row: tuple[object, ...]) -> None:
    """Each row has a value for every label of the table."""
    with pytest.raises(TypeError):
        Page().plain("smg_scheduler_queued_total", [row])


def test_another_kind_is_refused() -> None:
    """A histogram is not written as a counter, nor the other way round."""
    with pytest.raises(AssertionError):
        Page().value("smg_scheduler_queue_wait_seconds", 1)
    with pytest.raises(AssertionError):
        Page().histograms("smg_scheduler_queued_total", [])


def test_a_histogram_over_other_bounds_is_refused() -> None:
    """Counts that do not fit the bounds are a mistake."""
    with pytest.raises(ValueError, match="zip"):
        Page().histograms("smg_scheduler_queue_wait_seconds", [(("bulk",), HistogramCounts([1, 2]))])


@pytest.mark.parametrize(("value", "escaped"), [("plain", "plain"), ('a"b', 'a\\"b'), ("a\\b", "a\\\\b"), ("a\nb", "a\\nb")])
def test_a_label_value_is_escaped(value: str, escaped: str) -> None:
    """Backslash, quote and newline, and nothing else."""
    assert escape(value) == escaped
