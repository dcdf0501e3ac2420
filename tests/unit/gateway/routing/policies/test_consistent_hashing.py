"""consistent_hashing: which key decides, and where it leads."""

from __future__ import annotations

import random

import pytest

from gateway.config.model import RoutingConfig
from gateway.routing.policies.consistent_hashing import ConsistentHashing
from tests.support.candidates import Ask, Clock, fleet

KEY, TARGET = b"x-smg-routing-key", b"x-smg-target-worker"


def build(seed: int = 1, **settings: object) -> ConsistentHashing:
    return ConsistentHashing(RoutingConfig.model_validate(settings), Clock(), random.Random(seed))


def first(policy: ConsistentHashing, workers: tuple, headers: dict[bytes, bytes]) -> str:
    return next(policy.rank(Ask(b"prompt", headers), workers)).id


@pytest.mark.parametrize("name", [KEY, b"authorization", b"x-forwarded-for", b"cookie"])
def test_each_key_decides_alone(name: bytes) -> None:
    """Equal values go to one worker in every process, different values to different ones."""
    with fleet(8) as workers:
        for at in range(10):
            assert len({first(build(seed), workers, {name: b"v%d" % at}) for seed in range(4)}) == 1
        policy = build()
        assert len({first(policy, workers, {name: b"v%d" % at}) for at in range(60)}) == 8


def test_the_order_of_the_keys() -> None:
    """The routing key goes before authorization, that before the address, that before the cookie."""
    order = [KEY, b"authorization", b"x-forwarded-for", b"cookie"]
    policy = build()
    with fleet(16) as workers:
        for at in range(40):
            values = {name: b"%d-%d" % (at, place) for place, name in enumerate(order)}
            for place, name in enumerate(order):
                expected = first(policy, workers, {name: values[name]})
                assert first(policy, workers, {later: values[later] for later in order[place:]}) == expected


def test_only_the_first_forwarded_address_counts() -> None:
    """A proxy more on the way does not move a client."""
    policy = build()
    with fleet(8) as workers:
        for at in range(20):
            near = first(policy, workers, {b"x-forwarded-for": b"10.1.1.%d" % at})
            assert first(policy, workers, {b"x-forwarded-for": b"10.1.1.%d, 172.16.0.9, 10.0.0.1" % at}) == near


@pytest.mark.parametrize("value", [b"2", b"w2", b"http://10.0.0.2:8000"])
def test_a_target_is_taken_whatever_its_load(value: bytes) -> None:
    """A worker named by number, id or URL comes first, also when it is full; then the others, each once."""
    policy = build()
    with fleet(4) as workers:
        workers[2].load = 1000
        ranked = list(policy.rank(Ask(headers={TARGET: value, KEY: b"k"}), workers))
        assert ranked[0] is workers[2]
        assert sorted(worker.id for worker in ranked) == ["w0", "w1", "w2", "w3"]


@pytest.mark.parametrize("value", [b"4", b"-1", b"w9", b"", b"\xff", b"99999999999999999999", "²".encode(), b"\xb2"])
def test_a_target_that_does_not_exist_is_passed_over(value: bytes) -> None:
    """The key decides then; the request is not refused."""
    policy = build()
    with fleet(4) as workers:
        for at in range(10):
            key = b"k%d" % at
            assert first(policy, workers, {TARGET: value, KEY: key}) == first(policy, workers, {KEY: key})


def test_the_key_header_is_configured() -> None:
    """`routing_key_header` names the header, in any case."""
    policy = build(routing_key_header="X-Session")
    with fleet(8) as workers:
        assert len({first(policy, workers, {b"x-session": b"s", b"authorization": b"a%d" % at}) for at in range(30)}) == 1
        assert len({first(policy, workers, {KEY: b"s", b"authorization": b"a%d" % at}) for at in range(30)}) > 4


def test_one_key_of_all_clients_does_not_lock_one_worker() -> None:
    """Where every request has the same authorization, load still spreads within the bound."""
    policy = build()
    with fleet(4) as workers:
        for _ in range(80):
            next(policy.rank(Ask(headers={b"authorization": b"Bearer shared"}), workers)).load += 1
        assert max(worker.load for worker in workers) <= 25


def test_a_forgotten_worker_takes_only_its_own_keys_along() -> None:
    """Keys of the other workers stay where they are when one leaves for good."""
    policy = build()
    with fleet(5) as workers:
        keys = [b"session-%d" % at for at in range(500)]
        before = {key: first(policy, workers, {KEY: key}) for key in keys}
        policy.forget("w4")
        after = {key: first(policy, workers[:4], {KEY: key}) for key in keys}
        assert all(after[key] == before[key] for key in keys if before[key] != "w4")
        assert len({after[key] for key in keys if before[key] == "w4"}) == 4
