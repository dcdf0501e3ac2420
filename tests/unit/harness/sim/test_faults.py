"""Which requests a fault hits, and how often."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.sim.faults import MAX_FAULTS, Fault, Faults, Kind


def armed(*faults: dict[str, Any], seed: int = 0) -> Faults:
    """Return armed faults."""
    made = Faults(seed)
    for fault in faults:
        made.arm(msgspec.convert(fault, Fault))
    return made


def test_a_fault_hits_posts_unless_told_otherwise() -> None:
    """Without a path every POST is hit; with one, what begins with it; a star is everything."""
    assert armed({"kind": "error"}).strike("GET", "/health") is None
    assert armed({"kind": "error"}).strike("POST", "/generate") is not None
    aimed = armed({"kind": "error", "path": "/v1/chat"})
    assert aimed.strike("POST", "/v1/completions") is None
    assert aimed.strike("POST", "/v1/chat/completions") is not None
    assert armed({"kind": "error", "path": "*"}).strike("GET", "/health") is not None


def test_a_fault_is_used_up() -> None:
    """After `times` hits it is gone; what was handed out keeps its values."""
    made = armed({"kind": "reset", "times": 2})
    first = made.strike("POST", "/x")
    assert first is not None
    assert first.times == 2
    assert made.armed[0].times == 1
    assert made.strike("POST", "/x") is not None
    assert made.strike("POST", "/x") is None
    assert (made.armed, made.hits) == ((), 2)


def test_a_rate_is_kept_and_seeded() -> None:
    """A share of the requests is hit, the same ones for the same seed."""

    def hits(seed: int) -> list[bool]:
        made = armed({"kind": "error", "rate": 0.3}, seed=seed)
        return [made.strike("POST", "/x") is not None for _ in range(2_000)]

    assert hits(1) == hits(1) != hits(2)
    assert 500 < sum(hits(1)) < 700


def test_the_oldest_matching_fault_strikes_and_wide_ones_never() -> None:
    """Faults are tried in the order of arming; freeze and unhealthy act on the engine and hit no request."""
    made = armed({"kind": "freeze"}, {"kind": "error", "path": "/a"}, {"kind": "reset"})
    assert made.active(Kind.FREEZE)
    assert not made.active(Kind.UNHEALTHY)
    struck = made.strike("POST", "/a")
    assert struck is not None
    assert struck.kind is Kind.ERROR
    struck = made.strike("POST", "/b")
    assert struck is not None
    assert struck.kind is Kind.RESET
    made.clear()
    assert made.armed == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "nope"},
        {"kind": "error", "rate": 1.1},
        {"kind": "error", "times": 0},
        {"kind": "error", "after_events": -1},
        {"kind": "error", "status": 200},
        {"kind": "latency", "delay_s": -1.0},
        {"kind": "error", "unknown": 1},
    ],
)
def test_senseless_faults_are_refused(wrong: dict[str, Any]) -> None:
    """A fault with an unknown or senseless field is refused."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Fault)


def test_faults_are_bounded() -> None:
    """More faults than the limit are refused."""
    made = armed(*[{"kind": "error"}] * MAX_FAULTS)
    with pytest.raises(ValueError, match="clear them first"):
        made.arm(Fault(Kind.ERROR))
