"""bucket: lengths apart, work even."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import RoutingConfig
from gateway.routing.policies.bucket import ANSWER_BYTES, CLASSES, Bucket, length_class
from tests.support.candidates import Ask, Clock, fleet


def build(clock: Clock | None = None, seed: int = 1, **settings: object) -> Bucket:
    return Bucket(RoutingConfig.model_validate(settings), clock or Clock(), random.Random(seed))


def first(policy: Bucket, workers: tuple, length: int) -> int:
    return next(policy.rank(Ask(b"x" * length), workers)).slot


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_classes_are_in_the_order_of_lengths(one: int, other: int) -> None:
    """A longer prompt is never in a lower class, and every length has one."""
    low, high = sorted((one, other))
    assert 0 <= length_class(low) <= length_class(high) < CLASSES


def test_long_prompts_are_kept_from_short_ones() -> None:
    """With three prompt lengths of equal work on three workers, each length has a worker of its own."""
    policy = build()
    rng = random.Random(2)
    lengths = [100, 3000, 50_000]
    counts = [1 / (length + ANSWER_BYTES) for length in lengths]
    with fleet(3) as workers:
        for _ in range(3000):
            first(policy, workers, rng.choices(lengths, counts)[0])
        for slot, length in enumerate(lengths):
            found = Counter(first(policy, workers, length) for _ in range(50))
            assert found[slot] >= 45


def test_work_is_even_for_any_mix() -> None:
    """Bytes of work, not requests, are equal, by 1 / cost: lengths from a wide distribution, costs 1, 1 and 2."""
    policy = build(balance_abs_threshold=10**6)
    rng = random.Random(2)
    work: dict[int, int] = defaultdict(int)
    with fleet(3, {2: 2.0}) as workers:
        for at in range(12_000):
            length = int(rng.lognormvariate(7, 1.2)) + 1
            slot = first(policy, workers, length)
            work[slot] += (length + ANSWER_BYTES) * (at > 2000)
        total = sum(work.values())
        assert [work[slot] / total for slot in range(3)] == pytest.approx([0.4, 0.4, 0.2], abs=0.05)


def test_boundaries_follow_the_lengths_seen() -> None:
    """When traffic turns from short prompts to long ones, the boundary between two workers moves within a few intervals."""
    clock = Clock()
    policy = build(clock, bucket_interval_s=5)
    rng = random.Random(2)
    with fleet(2) as workers:
        for _ in range(500):
            first(policy, workers, rng.randrange(100, 1000))
        assert first(policy, workers, 150) == 0
        assert first(policy, workers, 5000) == 1
        for _ in range(8):
            clock.now += 6
            for _ in range(300):
                first(policy, workers, rng.randrange(5000, 50_000))
        assert first(policy, workers, 6000) == 0
        assert first(policy, workers, 49_000) == 1


def test_lengths_of_long_ago_fade() -> None:
    """A burst of giant prompts does not hold the boundaries up for ever: what was seen counts half after each interval."""
    clock = Clock()
    policy = build(clock, bucket_interval_s=5)
    rng = random.Random(2)
    with fleet(2) as workers:
        for _ in range(300):
            first(policy, workers, 100_000)
        for _ in range(12):
            clock.now += 6
            for _ in range(200):
                first(policy, workers, rng.randrange(100, 4000))
        assert first(policy, workers, 150) == 0
        assert first(policy, workers, 3900) == 1


def test_boundaries_stand_between_two_intervals() -> None:
    """Within an interval, a mix that has not doubled the work seen does not move the boundaries."""
    policy = build()
    rng = random.Random(2)
    with fleet(2) as workers:
        for _ in range(600):
            first(policy, workers, rng.randrange(100, 1000))
        line = policy._line
        for _ in range(20):
            first(policy, workers, 2000)
        assert policy._line is line


def test_load_wins_over_length_when_imbalanced() -> None:
    """A worker whose bucket is flooded hands over to the least loaded one."""
    policy = build()
    with fleet(2) as workers:
        for _ in range(200):
            first(policy, workers, 200)
            first(policy, workers, 20_000)
        assert first(policy, workers, 20_000) == 1
        workers[1].load = 17
        assert first(policy, workers, 20_000) == 0
        workers[0].load = 12
        assert first(policy, workers, 20_000) == 1


def test_equal_lengths_spread_from_the_first_requests_on() -> None:
    """Where all prompts have one length there is no boundary to draw, and nobody gets it all: not even at the start."""
    policy = build()
    with fleet(4) as workers:
        found = Counter(first(policy, workers, 700) for _ in range(400))
        assert len(found) == 4
        assert max(found.values()) < 160
