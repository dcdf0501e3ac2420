"""passthrough: the candidates as they come."""

from __future__ import annotations

from gateway.routing.policies.passthrough import Passthrough
from tests.support.candidates import Ask, fleet


def test_the_first_available_worker_is_taken() -> None:
    """Order is kept whatever the loads; the next one comes only after a failure."""
    policy = Passthrough()
    with fleet(3) as workers:
        workers[0].load = 99
        assert list(policy.rank(Ask(b"x"), workers)) == list(workers)
        assert list(policy.rank(Ask(b"x"), workers[1:])) == list(workers[1:])
