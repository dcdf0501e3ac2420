import pytest

from harness.bench.placement import Placement, place


@pytest.mark.parametrize(
    ("cores", "processes", "expected"),
    [
        ([0, 1], 1, Placement((0,), (1,))),
        ([0, 1, 2, 3], 2, Placement((0, 1), (2, 3))),
        ([4, 6, 7], 2, Placement((4, 6), (7,))),
        ([0, 1], 2, Placement()),
        ([0], 1, Placement()),
    ],
)
def test_gateways_and_load_are_apart(cores: list[int], processes: int, expected: Placement) -> None:
    """A core for each process and at least one for the load, or nothing is pinned."""
    assert place(cores, processes, taskset=True) == expected
    assert place(cores, processes, taskset=False) == Placement()


def test_a_placement_is_a_prefix_and_can_be_read() -> None:
    """Commands run under taskset, or as they are."""
    pinned = place([0, 1, 2], 1, taskset=True)
    assert (pinned.gateway_prefix, pinned.load_prefix) == (["taskset", "-c", "0"], ["taskset", "-c", "1,2"])
    assert str(pinned) == "gateways on core 0, load and upstreams on core 1,2"
    assert (Placement().gateway_prefix, Placement().load_prefix, str(Placement())) == ([], [], "not pinned")
