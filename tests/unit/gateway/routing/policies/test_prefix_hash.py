"""prefix_hash: one worker a prefix, from the text, within the bound."""

from __future__ import annotations

import random

from gateway.config.model import RoutingConfig
from gateway.routing.policies.prefix_hash import PrefixHash
from tests.support.candidates import Ask, Clock, fleet


def build(seed: int = 1, **settings: object) -> PrefixHash:
    return PrefixHash(RoutingConfig.model_validate(settings), Clock(), random.Random(seed))


def test_prompts_that_share_their_first_bytes_go_to_one_worker() -> None:
    """Only `prefix_bytes` of the prompt decide, in every process alike."""
    rng = random.Random(2)
    with fleet(8) as workers:
        for _ in range(20):
            head = rng.randbytes(1024)
            taken = {next(build(seed).rank(Ask(head + rng.randbytes(seed * 50)), workers)).id for seed in range(5)}
            assert len(taken) == 1


def test_different_prefixes_go_to_different_workers() -> None:
    """A hundred prefixes reach all of eight workers."""
    rng = random.Random(2)
    policy = build()
    with fleet(8) as workers:
        assert len({next(policy.rank(Ask(rng.randbytes(2000)), workers)).id for _ in range(100)}) == 8


def test_the_prefix_length_is_configured() -> None:
    """With `prefix_bytes: 4`, what follows the fourth byte does not matter; a shorter prompt counts whole."""
    policy = build(prefix_bytes=4)
    with fleet(8) as workers:
        assert len({next(policy.rank(Ask(b"abcd%d" % at), workers)).id for at in range(50)}) == 1
        assert len({next(policy.rank(Ask(b"a%d" % at), workers)).id for at in range(50)}) > 4


def test_a_hot_prefix_overflows_to_the_next_worker() -> None:
    """A hundred requests of one prefix in flight: nobody has more than `load_factor` times the mean."""
    policy = build(load_factor=1.5)
    with fleet(4) as workers:
        for _ in range(100):
            next(policy.rank(Ask(b"hot" * 500), workers)).load += 1
        assert max(worker.load for worker in workers) <= 38
