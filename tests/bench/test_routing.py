"""What one routing decision costs, for each policy over 8, 64 and 1024 workers: the first choice, and hearing who was chosen.

Targets at 64 workers, one process: 15 us for all but cache_aware, 60 us for cache_aware with a prompt of 4k tokens (16 KB) that
shares its first half with others and is inserted. Nothing here fails by time; pytest-benchmark keeps the figures.
"""

from __future__ import annotations

import random
import time
from itertools import count

import pytest

from gateway.config.model import RoutingConfig
from gateway.routing.policies import POLICIES, make
from tests.support.candidates import Ask, fleet

pytestmark = pytest.mark.bench

PROMPT_BYTES = 16 << 10
KEYS = 1000


def _asks() -> list[Ask]:
    """Prompts of 16 KB: 20 shared beginnings of 8 KB, each followed by something of its own; 1000 sessions."""
    rng = random.Random(5)
    heads = [rng.randbytes(PROMPT_BYTES // 4).hex().encode() for _ in range(20)]
    return [
        Ask(
            b'[{"role":"user","content":"' + rng.choice(heads) + rng.randbytes(PROMPT_BYTES // 4).hex().encode(),
            {b"x-smg-routing-key": b"session-%d" % at},
        )
        for at in range(KEYS)
    ]


@pytest.mark.parametrize(("workers", "rows"), [(8, 1), (64, 1), (1024, 1), (64, 2), (64, 8)])
@pytest.mark.parametrize("name", POLICIES)
def test_decision(benchmark, name: str, workers: int, rows: int) -> None:
    """One decision with equal costs and uneven loads; `rows` is the number of serving processes."""
    rng = random.Random(7)
    policy = make(name, RoutingConfig(policy=name, max_tree_bytes=8 << 20), time.monotonic, rng)
    asks = _asks()
    turn = count()
    with fleet(workers, rows=rows) as candidates:
        for worker in candidates:
            worker.load = rng.randrange(8)
        for ask in asks:
            policy.chosen(ask, next(policy.rank(ask, candidates)))

        def decide() -> None:
            ask = asks[next(turn) % KEYS]
            policy.chosen(ask, next(policy.rank(ask, candidates)))

        benchmark(decide)


@pytest.mark.parametrize("name", ["round_robin", "random", "power_of_two", "least_load", "consistent_hashing"])
def test_decision_with_costs(benchmark, name: str) -> None:
    """One decision over 64 workers of three different costs."""
    rng = random.Random(7)
    policy = make(name, RoutingConfig(policy=name), time.monotonic, rng)
    ask = _asks()[0]
    with fleet(64, {at: float(1 + at % 3) for at in range(64)}) as candidates:
        benchmark(lambda: policy.chosen(ask, next(policy.rank(ask, candidates))))


def test_cache_aware_new_prompts(benchmark) -> None:
    """A full tree over 64 workers, prompts of 16 KB nobody has seen: each one is inserted, and others are evicted for it."""
    rng = random.Random(7)
    policy = make("cache_aware", RoutingConfig(max_tree_bytes=4 << 20), time.monotonic, rng)
    prompts = [rng.randbytes(PROMPT_BYTES) for _ in range(2000)]
    turn = count()
    with fleet(64) as candidates:

        def decide() -> None:
            ask = Ask(prompts[next(turn) % 2000])
            policy.chosen(ask, next(policy.rank(ask, candidates)))

        benchmark(decide)


@pytest.mark.parametrize("workers", [64, 1024])
def test_cache_aware_hot_prefix(benchmark, workers: int) -> None:
    """One system prompt of 16 KB that every worker holds, and a question of its own in each request."""
    rng = random.Random(7)
    policy = make("cache_aware", RoutingConfig(max_tree_bytes=4 << 20), time.monotonic, rng)
    head = rng.randbytes(PROMPT_BYTES)
    asks = [Ask(head + rng.randbytes(300)) for _ in range(KEYS)]
    turn = count()
    with fleet(workers) as candidates:
        for worker in candidates:
            worker.load = rng.randrange(8)
            policy.chosen(asks[0], worker)

        def decide() -> None:
            ask = asks[next(turn) % KEYS]
            policy.chosen(ask, next(policy.rank(ask, candidates)))

        benchmark(decide)


def test_forget_a_worker(benchmark) -> None:
    """Forgetting a worker that holds part of a full tree of 16 MiB."""
    rng = random.Random(7)
    policy = make("cache_aware", RoutingConfig(max_tree_bytes=16 << 20), time.monotonic, rng)
    with fleet(64) as candidates:
        for at in range(40_000):
            policy.chosen(Ask(rng.randbytes(200)), candidates[at % 64])
        turn = count()
        benchmark.pedantic(lambda: policy.forget(f"w{next(turn)}"), rounds=60)
