from harness.bench.cases import CASES
from harness.bench.contest import cpu_us


def test_cpu_is_that_of_a_request() -> None:
    """Microseconds; nothing can be said of no requests."""
    assert (cpu_us(0.5, 10_000), cpu_us(0.5, 0)) == (50.0, None)


def test_rounds_of_streams_are_long_enough() -> None:
    """Whole answers take the time that was asked for, streams at least three seconds."""
    assert [case.lasts_s(0.5) for case in CASES.values()] == [0.5, 0.5, 3.0]
    assert [case.lasts_s(5.0) for case in CASES.values()] == [5.0, 5.0, 5.0]
