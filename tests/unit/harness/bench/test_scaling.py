import pytest

from harness.bench.scaling import Sample, share_of, side_of


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(2, 2, 0.25), (2, 4, 0.125), (4, 2, 0.5), (16, 2, 0.5), (16, 16, 0.25), (1, 2, 0.125)]
)
def test_the_share_leaves_room_for_the_load(cores: int, processes: int, expected: float) -> None:
    """Serving processes use a quarter of the machine together, and half a core each at most."""
    assert share_of(cores, processes) == expected


def test_rounds_of_a_side_are_summed_up() -> None:
    """Medians; the busiest process is what counts for requests a CPU second; errors are all of them."""
    samples = [
        Sample(requests=1000, errors=0, seconds=2.0, cpu_s=[0.5, 0.4], load_cpu_s=0.4),
        Sample(requests=1200, errors=1, seconds=2.0, cpu_s=[0.4, 0.5], load_cpu_s=0.6),
        Sample(requests=800, errors=2, seconds=2.0, cpu_s=[0.5, 0.5], load_cpu_s=0.5),
    ]
    side = side_of(samples)
    assert (side.processes, side.rps, side.requests_per_cpu_s, side.errors) == (2, 500.0, 2000.0, 3)
    assert (side.cpu, side.cpu_of_load) == ([0.25, 0.25], 0.25)
