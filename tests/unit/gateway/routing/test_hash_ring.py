"""The ring: everybody draws the same one, little moves, and loads stay within the bound."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.hash_ring import BoundedRing, HashRing, point_of
from tests.support.candidates import Clock, fleet

KEYS = [b"key-%d" % at for at in range(3000)]


def ring_of(*names: str, weights: dict[str, float] | None = None) -> HashRing:
    ring = HashRing()
    ring.set([(name, f"http://{name}", (weights or {}).get(name, 1.0)) for name in names])
    return ring


def homes(ring: HashRing) -> dict[bytes, str]:
    names = {owner: name for name, owner in ring.owners.items()}
    return {key: names[next(ring.walk(point_of(key)))] for key in KEYS}


def test_places_are_the_same_in_every_process_and_version() -> None:
    """Where a key falls depends on nothing but the key and the URLs: these places are fixed for good."""
    assert point_of(b"session-1") == 12459036657078566912
    assert point_of(b"") == 13020603013274796032
    assert "".join([homes(ring_of("a", "b", "c"))[key] for key in KEYS[:12]]) == "baacacabcccb"
    forward, backward = ring_of("a", "b", "c"), ring_of("c", "b", "a")
    assert homes(forward) == homes(backward)


def test_keys_spread_evenly() -> None:
    """Each of eight workers gets its share within a third."""
    found = Counter(homes(ring_of(*"abcdefgh")).values())
    assert all(count == pytest.approx(3000 / 8, rel=0.34) for count in found.values())
    assert len(found) == 8


def test_weights_are_shares() -> None:
    """A worker of weight one half gets about half the keys of the others."""
    found = Counter(homes(ring_of(*"abcd", weights={"d": 0.5})).values())
    assert found["d"] / (3000 / 3.5) == pytest.approx(0.5, abs=0.15)


def test_a_worker_that_leaves_moves_its_own_keys_only() -> None:
    """Removing one of five moves the keys that it had, no other; adding it again brings exactly those back."""
    ring = ring_of(*"abcde")
    before = homes(ring)
    ring.remove("c")
    after = homes(ring)
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == "c"}
    assert Counter(after[key] for key in KEYS if before[key] == "c").keys() == set("abde")
    ring.set([("c", "http://c", 1.0)])
    assert homes(ring) == before


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef"), st.sampled_from([0.001, 0.5, 1.0, 9.0])), max_size=30))
def test_a_ring_after_changes_is_the_ring_of_its_members(changes: list[tuple[bool, str, float]]) -> None:
    """However members came, went and were weighed anew, keys fall where they would on a ring made of the members at once."""
    ring = HashRing()
    members: dict[str, float] = {}
    for add, name, weight in changes:
        if add:
            ring.set([(name, f"http://{name}", weight)])
            members[name] = weight
        else:
            ring.remove(name)
            members.pop(name, None)
    fresh = ring_of(*members, weights=members)
    if members:
        names = {owner: name for name, owner in ring.owners.items()}
        for key in KEYS[:20]:
            walked = [names[owner] for owner in ring.walk(point_of(key))]
            assert sorted(walked) == sorted(members)
        assert homes(ring) == homes(fresh)
    else:
        assert list(ring.walk(0)) == []


@given(
    loads=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    factor=st.floats(1.0, 3.0),
    key=st.binary(min_size=1, max_size=8),
)
def test_the_first_choice_is_within_the_bound(loads: list[int], factor: float, key: bytes) -> None:
    """With the new request a worker has at most ceil(load_factor * mean), where the mean counts the new one."""
    ring = BoundedRing(factor, Clock())
    with fleet(len(loads)) as workers:
        for worker, load in zip(workers, loads, strict=True):
            worker.load = load
        first = next(ring.rank(key, workers))
        assert first.load + 1 <= math.ceil(factor * (sum(loads) + 1) / len(loads) + 1e-9)


def test_one_hot_key_fills_workers_up_to_the_bound_in_ring_order() -> None:
    """All requests have one key and none ends: the fullest worker never has more than the bound, and home is always full first."""
    ring = BoundedRing(1.25, Clock())
    with fleet(5) as workers:
        home = next(ring.rank(b"hot", workers))
        for number in range(1, 201):
            next(ring.rank(b"hot", workers)).load += 1
            assert max(worker.load for worker in workers) <= math.ceil(1.25 * number / 5)
            assert home.load == max(worker.load for worker in workers)


def test_the_bound_follows_cost() -> None:
    """A worker of cost 2 has room for half as many requests."""
    ring = BoundedRing(1.0, Clock())
    with fleet(3, {1: 2.0, 2: 2.0}) as workers:
        for _ in range(400):
            next(ring.rank(b"hot", workers)).load += 1
        assert [worker.load for worker in workers] == pytest.approx([200, 100, 100], abs=2)


def test_an_absent_worker_gives_and_gets_back_its_keys_only() -> None:
    """While a worker is not among the candidates its keys are elsewhere; everybody else's stay, and its own come back."""
    ring = BoundedRing(1.25, Clock())
    with fleet(5) as workers:
        all_five, four = workers, workers[:2] + workers[3:]
        keys = KEYS[:400]
        before = {key: next(ring.rank(key, all_five)).id for key in keys}
        away = {key: next(ring.rank(key, four)).id for key in keys}
        assert {key for key in keys if before[key] != away[key]} == {key for key in keys if before[key] == "w2"}
        assert {key: next(ring.rank(key, all_five)).id for key in keys} == before
        ring.forget("w2")
        assert {key: next(ring.rank(key, four)).id for key in keys} == away


def test_a_cost_that_changes_redraws_the_ring() -> None:
    """A worker whose configured cost is doubled while the candidates stay keeps some of its keys and takes no new ones."""
    clock = Clock()
    ring = BoundedRing(3.0, clock)
    rng = random.Random(1)
    with fleet(4) as workers:
        keys = [rng.randbytes(8) for _ in range(800)]
        before = {key: next(ring.rank(key, workers)).id for key in keys}
        workers[0].cost = workers[0].effective_cost = 2.0
        clock.now += 1
        after = {key: next(ring.rank(key, workers)).id for key in keys}
        lost = [key for key in keys if before[key] == "w0" != after[key]]
        assert 0 < len(lost) < list(before.values()).count("w0")
        assert not [key for key in keys if before[key] != "w0" == after[key]]
