"""Policies with simulated engines behind them: what routing is worth in throughput and cache hits, and what it costs."""

from __future__ import annotations

import pytest

from tests.support.simulated_fleet import run

SIZES = [(4, 16), (4, 48), (8, 32)]


@pytest.mark.parametrize(("workers", "clients"), SIZES)
def test_conversations_gain_from_cache_aware(workers: int, clients: int) -> None:
    """Growing conversations: cache_aware finds most prompts cached and serves half as many again as least_load, or more."""
    aware = run("cache_aware", "talks", workers=workers, clients=clients, requests=700)
    blind = run("least_load", "talks", workers=workers, clients=clients, requests=700)
    assert aware.hit_rate > 0.55 > blind.hit_rate * 1.5
    assert aware.requests_per_s > 1.4 * blind.requests_per_s
    assert aware.ttft_p50_s < blind.ttft_p50_s / 2


@pytest.mark.parametrize(("workers", "clients"), SIZES)
@pytest.mark.parametrize("workload", ["hot", "unique"])
def test_cache_aware_costs_nothing_where_it_cannot_gain(workload: str, workers: int, clients: int) -> None:
    """One prefix for all, or nothing in common: cache_aware serves as many as least_load, and uses all workers."""
    aware = run("cache_aware", workload, workers=workers, clients=clients, requests=700)
    blind = run("least_load", workload, workers=workers, clients=clients, requests=700)
    assert aware.requests_per_s > 0.95 * blind.requests_per_s
    assert aware.largest_share < 1.35 / workers


def test_affinity_without_a_bound_would_lock_one_worker() -> None:
    """The losing case that the thresholds are for: without them one hot prefix keeps 16 clients on one worker of four."""
    locked = run("cache_aware", "hot", workers=4, clients=16, requests=500, balance_abs_threshold=640)
    free = run("cache_aware", "hot", workers=4, clients=16, requests=500)
    assert locked.largest_share == 1.0
    assert free.requests_per_s > 1.3 * locked.requests_per_s


def test_prefix_hash_gains_without_any_memory() -> None:
    """Questions about documents: the hash of the first bytes alone finds more cached than balancing by load does."""
    hashed = run("prefix_hash", "documents", workers=4, clients=32, requests=700)
    blind = run("least_load", "documents", workers=4, clients=32, requests=700)
    assert hashed.hit_rate > blind.hit_rate + 0.08
    assert hashed.requests_per_s > 1.1 * blind.requests_per_s


def test_sticky_keeps_conversations_on_their_caches() -> None:
    """With a session key, sticky finds at least as much cached as cache_aware does, without reading any prompt."""
    stuck = run("sticky", "talks", workers=4, clients=16, requests=700)
    aware = run("cache_aware", "talks", workers=4, clients=16, requests=700)
    assert stuck.hit_rate > aware.hit_rate - 0.02
