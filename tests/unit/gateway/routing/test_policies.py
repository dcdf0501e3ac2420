"""What every policy keeps to, whatever comes: a ranking of exactly the workers given, and shares within bounds."""

from __future__ import annotations

import random
from itertools import repeat
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.model import PolicyName, RoutingConfig
from gateway.routing.policies import POLICIES, make
from tests.support.candidates import Ask, Clock, fleet
from tests.support.closed_loop import closed_loop

NAMES = sorted(POLICIES)
BALANCING = sorted(set(NAMES) - {"passthrough"})
BY_LOAD = ["bucket", "cache_aware", "least_load", "power_of_two", "sticky", "prefix_hash", "consistent_hashing"]
BY_TURN = ["random", "round_robin"]


def build(name: PolicyName, seed: int = 3, clock: Clock | None = None, **settings_: object):
    return make(name, RoutingConfig.model_validate(settings_), clock or Clock(), random.Random(seed))


def own_prompts(rng: random.Random):
    """Prompts of one length that have nothing in common, and a session each."""
    while True:
        yield Ask(rng.randbytes(500), {b"x-smg-routing-key": rng.randbytes(8)})


def test_every_name_of_the_configuration_has_a_policy() -> None:
    """Each policy name that a configuration may hold can be built, and calls itself by that name."""
    assert set(POLICIES) == set(get_args(PolicyName))
    for name in NAMES:
        assert build(name).name == name


step = st.one_of(
    st.tuples(
        st.just("ask"),
        st.sets(st.integers(0, 7), min_size=1),
        st.sampled_from([b"", b"short", b"a" * 64, b"a" * 200, b"a" * 100 + b"b" * 300, b"a" * 64 + b"c" * 64, b"d" * 5000]),
        st.dictionaries(
            st.sampled_from([b"x-smg-routing-key", b"x-smg-target-worker", b"authorization", b"x-forwarded-for", b"cookie"]),
            st.sampled_from([b"", b"1", b"w2", b"http://10.0.0.3:8000", b"10.1.1.1, 10.2.2.2", b"\xff\xfe", b"9" * 30, b"k" * 300]),
        ),
        st.integers(0, 7),
    ),
    st.tuples(st.just("load"), st.integers(0, 7), st.integers(0, 100)),
    st.tuples(st.just("cost"), st.integers(0, 7), st.sampled_from([0.01, 0.5, 1.0, 1.0, 2.0, 1000.0])),
    st.tuples(st.just("forget"), st.integers(0, 7)),
    st.tuples(st.just("time"), st.floats(0, 100)),
)


@pytest.mark.parametrize("name", NAMES)
@given(
    steps=st.lists(step, max_size=40), costs=st.dictionaries(st.integers(0, 7), st.sampled_from([0.1, 1.0, 3.0])), seed=st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_a_ranking_is_exactly_the_workers_given(name: PolicyName, steps: list, costs: dict, seed: int) -> None:
    """Whatever happened before, and while it is read: every candidate comes once, none twice, none that was not given."""
    clock = Clock()
    policy = build(name, seed, clock, sticky_max_keys=2, sticky_ttl_s=30, max_tree_bytes=4096)
    with fleet(8, costs) as workers:
        tuples: dict[frozenset[int], tuple] = {}
        for kind, *rest in steps:
            if kind == "ask":
                chosen, prompt, headers, attempts = rest
                candidates = tuples.setdefault(frozenset(chosen), tuple(workers[at] for at in sorted(chosen)))
                ask = Ask(prompt, headers)
                half_read = policy.rank(ask, candidates)
                begun = [next(half_read)]
                ranked = []
                for worker in policy.rank(ask, candidates):
                    ranked.append(worker)
                    if len(ranked) <= attempts:
                        policy.chosen(ask, worker)
                assert sorted(map(id, ranked)) == sorted(map(id, candidates))
                begun += half_read
                assert sorted(map(id, begun)) == sorted(map(id, candidates))
            elif kind == "load":
                workers[rest[0]].load = rest[1]
            elif kind == "cost":
                workers[rest[0]].cost = workers[rest[0]].effective_cost = rest[1]
            elif kind == "forget":
                policy.forget(f"w{rest[0]}")
            else:
                clock.now += rest[0]


@pytest.mark.parametrize("name", BALANCING)
@pytest.mark.parametrize("count", [2, 5, 16])
def test_equal_workers_get_equal_shares(name: PolicyName, count: int) -> None:
    """Prompts and keys of their own, eight clients a worker: every worker's share is within a third of the mean."""
    policy = build(name)
    with fleet(count) as workers:
        outcome = closed_loop(policy, workers, own_prompts(random.Random(2)), clients=8 * count, requests=600 * count)
        for worker in workers:
            assert outcome.share(worker) == pytest.approx(1 / count, rel=0.33)


@pytest.mark.parametrize("name", BALANCING)
def test_a_worker_of_cost_two_gets_half(name: PolicyName) -> None:
    """Costs 1, 1, 2, 2 and many clients: the dear workers get half of what the cheap ones get."""
    policy = build(name)
    with fleet(4, {2: 2.0, 3: 2.0}) as workers:
        outcome = closed_loop(policy, workers, own_prompts(random.Random(2)), clients=48, requests=4000)
        cheap = outcome.share(workers[0]) + outcome.share(workers[1])
        dear = outcome.share(workers[2]) + outcome.share(workers[3])
        assert dear / cheap == pytest.approx(0.5, rel=0.3)


@pytest.mark.parametrize("name", [*BY_TURN, "least_load", "power_of_two", "cache_aware", "sticky"])
def test_cost_counts_among_idle_workers_too(name: PolicyName) -> None:
    """One request at a time: a worker of cost 3 is asked a third as often as one of cost 1, not never."""
    policy = build(name)
    with fleet(2, {1: 3.0}) as workers:
        outcome = closed_loop(policy, workers, own_prompts(random.Random(2)), clients=1, requests=4000)
        assert outcome.share(workers[1]) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("name", BALANCING)
def test_idle_workers_do_not_herd(name: PolicyName) -> None:
    """One request at a time over eight idle workers, each request new: nobody is left out and nobody gets a third of all."""
    policy = build(name)
    with fleet(8) as workers:
        outcome = closed_loop(policy, workers, own_prompts(random.Random(2)), clients=1, requests=1600)
        assert set(outcome.served) == {worker.id for worker in workers}
        assert max(outcome.served.values()) < 1600 / 3


@pytest.mark.parametrize("name", ["least_load", "power_of_two", "round_robin", "random", "cache_aware", "prefix_hash", "bucket"])
def test_processes_do_not_march_in_step(name: PolicyName) -> None:
    """The first choices of 64 processes that start at once over eight idle workers do not fall on one worker."""
    with fleet(8) as workers:
        first = [next(build(name, seed).rank(Ask(b"%d" % seed * 100), workers)).id for seed in range(64)]
        assert max(map(first.count, first)) < 24


@pytest.mark.parametrize("name", sorted({*BY_LOAD} - {"sticky"}))
def test_a_slow_worker_does_not_gather_requests(name: PolicyName) -> None:
    """A worker that takes ten times as long gets fewer requests than the others, since loads are looked at."""
    policy = build(name)
    with fleet(4) as workers:
        outcome = closed_loop(
            policy,
            workers,
            own_prompts(random.Random(2)),
            clients=32,
            requests=4000,
            service_s=lambda worker: 10.0 if worker is workers[0] else 1.0,
        )
        assert outcome.share(workers[0]) < 0.15


@pytest.mark.parametrize("name", NAMES)
def test_a_worker_that_came_back_gets_its_share_slowly(name: PolicyName) -> None:
    """With its effective cost ten times as high, a worker of a busy pool gets a small part, under every policy that balances."""
    policy = build(name)
    with fleet(3) as workers:
        workers[2].effective_cost = 10.0
        outcome = closed_loop(policy, workers, own_prompts(random.Random(2)), clients=60, requests=3000)
        assert outcome.share(workers[2]) < 0.12


@pytest.mark.parametrize("name", BY_LOAD)
def test_without_prompt_and_key_the_least_loaded_is_taken(name: PolicyName) -> None:
    """A policy that has nothing to decide by falls back to load; with two workers, to the less loaded one."""
    policy = build(name)
    with fleet(2) as workers:
        workers[0].load = 3
        assert {next(policy.rank(Ask(), workers)).id for _ in repeat(None, 50)} == {"w1"}


@pytest.mark.parametrize("name", BALANCING)
def test_the_requests_of_a_failed_worker_spread(name: PolicyName) -> None:
    """When the first choice fails, the second choices of many requests fall on all others, not on one neighbour."""
    policy = build(name)
    prompts = own_prompts(random.Random(2))
    second: list[str] = []
    with fleet(6) as workers:
        while len(second) < 300:
            ranked = list(policy.rank(next(prompts), workers))
            if ranked[0] is workers[0]:
                second.append(ranked[1].id)
        assert {*second} == {"w1", "w2", "w3", "w4", "w5"}
        assert max(map(second.count, {*second})) < 150
