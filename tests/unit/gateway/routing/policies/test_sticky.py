"""sticky: a key stays with its worker, until its worker or the key is gone."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.config.model import RoutingConfig
from gateway.routing.policies.sticky import Sticky
from tests.support.candidates import Ask, Clock, fleet

KEY = b"x-smg-routing-key"


def build(clock: Clock | None = None, seed: int = 1, **settings: object) -> Sticky:
    return Sticky(RoutingConfig.model_validate(settings), clock or Clock(), random.Random(seed))


def send(policy: Sticky, workers: tuple, key: bytes) -> str:
    ask = Ask(headers={KEY: key})
    worker = next(policy.rank(ask, workers))
    policy.chosen(ask, worker)
    return worker.id


def test_a_key_stays_whatever_the_load() -> None:
    """Every request of a key goes to the worker of the first one."""
    policy = build()
    with fleet(8) as workers:
        homes = {b"k%d" % at: send(policy, workers, b"k%d" % at) for at in range(40)}
        for worker in workers:
            worker.load = random.Random(worker.id).randrange(100)
        for _ in range(3):
            assert {key: send(policy, workers, key) for key in homes} == homes


def test_new_keys_go_where_load_and_keys_are_few() -> None:
    """Load decides first; among equally loaded workers the number of keys does, by cost."""
    policy = build()
    with fleet(4, {3: 2.0}) as workers:
        workers[0].load = 1
        found = Counter(send(policy, workers, b"k%d" % at) for at in range(500))
        assert found["w0"] == 0
        assert [found["w1"], found["w2"], found["w3"]] == pytest.approx([200, 200, 100], abs=3)


def test_a_key_moves_when_its_worker_is_away_and_does_not_move_back() -> None:
    """While home is not among the candidates the key finds a new home, and stays there when the old one returns."""
    policy = build()
    with fleet(3) as workers:
        homes = {b"k%d" % at: send(policy, workers, b"k%d" % at) for at in range(30)}
        rest = workers[1:]
        moved = {key: send(policy, rest, key) for key in homes}
        assert all(moved[key] == home for key, home in homes.items() if home != "w0")
        assert "w0" not in moved.values()
        assert {key: send(policy, workers, key) for key in homes} == moved


def test_a_failed_attempt_does_not_move_a_key() -> None:
    """When home refuses one request and another worker takes it, the next request tries home again."""
    policy = build()
    with fleet(3) as workers:
        home = send(policy, workers, b"k")
        ask = Ask(headers={KEY: b"k"})
        ranked = list(policy.rank(ask, workers))
        assert ranked[0].id == home
        policy.chosen(ask, ranked[0])
        policy.chosen(ask, ranked[1])
        assert send(policy, workers, b"k") == home


def test_an_idle_key_forgets_its_worker() -> None:
    """After `sticky_ttl_s` without a request the key is placed anew; each request starts the time again."""
    clock = Clock()
    policy = build(clock, sticky_ttl_s=100)
    with fleet(2) as workers:
        home = send(policy, workers, b"k")
        for _ in range(5):
            clock.now += 90
            assert send(policy, workers, b"k") == home
        clock.now += 101
        workers[int(home[1])].load = 5
        assert send(policy, workers, b"k") != home


def test_idle_keys_are_dropped_by_later_requests() -> None:
    """Keys that nobody uses any more do not stay in memory."""
    clock = Clock()
    policy = build(clock, sticky_ttl_s=10)
    with fleet(2) as workers:
        for at in range(100):
            send(policy, workers, b"old%d" % at)
        clock.now += 11
        for at in range(34):
            send(policy, workers, b"new%d" % at)
        assert len(policy) == 34


def test_keys_are_bounded() -> None:
    """Above `sticky_max_keys` the least lately used key goes, and its place at its worker is free again."""
    policy = build(sticky_max_keys=50)
    with fleet(4) as workers:
        kept = send(policy, workers, b"kept")
        for at in range(500):
            send(policy, workers, b"k%d" % at)
            assert send(policy, workers, b"kept") == kept
            assert len(policy) <= 50
        assert sum(home.keys for home in policy._homes.values()) == 50
        assert max(home.keys for home in policy._homes.values()) <= 14


def test_a_forgotten_worker_has_no_keys_even_if_it_comes_again() -> None:
    """A worker that left and came back under the same id is a new worker: its old keys are placed anew."""
    policy = build()
    with fleet(2) as workers:
        homes = {b"k%d" % at: send(policy, workers, b"k%d" % at) for at in range(20)}
        policy.forget("w0")
        workers[0].load = 9
        assert {send(policy, workers, key) for key in homes} == {"w1"}
        assert {home.id for home in policy._homes.values()} == {"w1"}
        assert policy._homes["w1"].keys == 20


def test_long_keys_take_no_more_memory_than_short_ones() -> None:
    """A key of 60 KB is kept as its hash, and still its own key."""
    policy = build()
    with fleet(8) as workers:
        keys = [b"x" * 60_000 + b"%d" % at for at in range(16)]
        homes = [send(policy, workers, key) for key in keys]
        assert [send(policy, workers, key) for key in keys] == homes
        assert len({*homes}) == 8
        assert max(map(len, policy._keys)) <= 128


def test_requests_without_a_key_are_not_kept() -> None:
    """Without the header the least loaded worker is taken and nothing is remembered."""
    policy = build()
    with fleet(3) as workers:
        workers[0].load = workers[1].load = 2
        ask = Ask(b"prompt")
        worker = next(policy.rank(ask, workers))
        policy.chosen(ask, worker)
        assert worker is workers[2]
        assert len(policy) == 0
