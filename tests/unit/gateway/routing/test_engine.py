"""Model names to pools, pools to ranked plans."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.config.model import ModelConfig, RoutingConfig
from gateway.routing.engine import ANY, FIRST_BYTE_FRESH, FIRST_BYTE_SAMPLES, Pool, Router
from gateway.workers.state import ModelInfo, Status, WorkerState
from gateway.workers.worker import Worker
from tests.support.candidates import Ask
from tests.support.exchange import Rig, state


def pool_of(rig: Rig, name: str) -> Pool:
    found = rig.rt.router.route(name)
    assert found is not None, f"{name!r} leads nowhere"
    return found.pool


def ids(workers: Sequence[Worker]) -> list[str]:
    return [worker.id for worker in workers]


def plan(pool: Pool) -> list[str]:
    return ids(list(pool.plan(Ask())))


# -- names ------------------------------------------------------------------------------------------------------------


def test_each_model_has_its_workers() -> None:
    """A worker is in the pool of every model that it serves, and in no other."""
    with Rig([state(0, models=("a", "b")), state(1, models=("b",))]) as rig:
        assert ids(pool_of(rig, "a").members) == ["w0"] and ids(pool_of(rig, "b").members) == ["w0", "w1"]
        assert rig.rt.router.route("c") is None
        assert sorted(pool.name for pool in rig.rt.router.pools) == ["a", "b"]


def test_a_model_stays_known_while_a_worker_serves_it() -> None:
    """Known is not available: a worker that is away keeps its models known, one that is gone does not."""
    with Rig([state(0, models=("a",), status=Status.NOT_READY)]) as rig:
        assert plan(pool_of(rig, "a")) == []
        rig.tell([])
        assert rig.rt.router.route("a") is None
    with Rig([], {"models": [{"name": "a"}]}) as rig:
        assert plan(pool_of(rig, "a")) == [], "the configuration names it"


def test_workers_of_unknown_models_serve_what_nobody_claims() -> None:
    """A name goes to those that claim it, else to those of which nothing is known."""
    with Rig([state(0, models=("a",)), state(1, models=())]) as rig:
        assert plan(pool_of(rig, "a")) == ["w0"] and plan(pool_of(rig, "anything")) == ["w1"]
        assert pool_of(rig, "anything").name == ANY
        assert not rig.rt.router.starting


@pytest.mark.parametrize("status", [Status.PENDING, Status.NOT_READY, Status.FAILED])
def test_a_worker_that_told_nothing_yet_may_still_tell(status: Status) -> None:
    """While some worker has not told its models, an unknown name may become known."""
    with Rig([state(0, models=("a",)), state(1, models=(), status=status)]) as rig:
        assert rig.rt.router.starting and rig.rt.router.route("b") is None
        rig.tell([state(0, models=("a",)), state(1, models=("b",))])
        assert not rig.rt.router.starting and plan(pool_of(rig, "b")) == ["w1"]


def test_a_request_without_a_model() -> None:
    """It goes to the only model there is, adapters aside; with several it goes nowhere."""
    lora = ModelInfo(name="lora", parent="a")
    with Rig([state(0, models=(ModelInfo(name="a"), lora))]) as rig:
        assert pool_of(rig, "").name == "a"
        rig.tell([state(0, models=(ModelInfo(name="a"), lora)), state(1, models=("b",))])
        assert rig.rt.router.route("") is None
        rig.tell([state(0, models=())])
        assert pool_of(rig, "").name == ANY


def test_aliases() -> None:
    """An alias leads to its model, with the name to put in its place; a real model of that name goes first."""
    config = {"models": [{"name": "a", "aliases": ["x", "b"]}, {"name": "c", "aliases": ["y"], "rewrite_alias": False}]}
    with Rig([state(0, models=("a",)), state(1, models=("b",)), state(2, models=("c",))], config) as rig:
        found = rig.rt.router.route("x")
        assert found is not None and (found.pool.name, found.rewrite) == ("a", "a")
        found = rig.rt.router.route("y")
        assert found is not None and (found.pool.name, found.rewrite) == ("c", None)
        found = rig.rt.router.route("b")
        assert found is not None and (found.pool.name, found.rewrite) == ("b", None)


# -- plans ------------------------------------------------------------------------------------------------------------


def test_tiers() -> None:
    """The highest priority with an available worker goes first, each tier ranked by the policy, each worker once."""
    workers = [state(0, priority=1), state(1, priority=9), state(2, priority=9), state(3, priority=5), state(4, priority=5)]
    with Rig(workers, {"routing": {"policy": "least_load"}}) as rig:
        pool = pool_of(rig, "m")
        rig.workers[1].enter()
        rig.workers[4].enter()
        assert plan(pool) == ["w2", "w1", "w3", "w4", "w0"]
        workers[1] = state(1, priority=9, status=Status.DRAINING)
        workers[2] = state(2, priority=0)
        rig.tell(workers)
        assert plan(pool) == ["w3", "w4", "w0", "w2"]
        rig.workers[4].leave()
        rig.workers[1].leave()


def test_an_open_breaker_takes_a_worker_out() -> None:
    """Open is out, half-open is in again, at once."""
    with Rig(2, {"breaker": {"min_requests": 1, "open_s": 5}}) as rig:
        pool = pool_of(rig, "m")
        assert plan(pool) == ["w0", "w1"]
        rig.workers[0].breaker.failure()
        assert plan(pool) == ["w1"]
        rig.advance(6)
        rig.rt.registry.tick(rig.loop.now_s)
        assert plan(pool) == ["w0", "w1"]


def test_tiers_keep_their_identity() -> None:
    """What did not change is the same tuple again, so that policies can keep what they derived from it."""
    workers = [state(0, priority=2), state(1, priority=2), state(2, priority=1)]
    with Rig(workers) as rig:
        pool = pool_of(rig, "m")
        high, low = pool.tiers
        workers[2] = state(2, priority=1, status=Status.NOT_READY)
        rig.tell(workers)
        (again,) = pool.tiers
        assert again is high
        workers[2] = state(2, priority=1)
        rig.tell(workers)
        assert pool.tiers[0] is high and pool.tiers[1] == low
        assert rig.rt.router.route("m") is not None and pool_of(rig, "m") is pool


class Forgetful:
    """A policy that notes whom it forgets."""

    name = "forgetful"

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget(self, candidate_id: str) -> None:
        self.forgotten.append(candidate_id)


def test_policies_forget_who_left() -> None:
    """A worker that left the fleet, or no longer serves the model, is forgotten; one that is away is not."""
    with Rig([state(0), state(1), state(2)]) as rig:
        pool = pool_of(rig, "m")
        pool.policy = policy = Forgetful()  # type: ignore[assignment]
        rig.tell([state(0, status=Status.NOT_READY), state(1, models=("other",))])
        assert sorted(policy.forgotten) == ["w1", "w2"]


def test_a_new_configuration_keeps_what_did_not_change() -> None:
    """A pool gets a fresh policy where its policy or the parameters changed, and keeps it otherwise."""
    with Rig([state(0, models=("a", "b"))], {"models": [{"name": "a", "policy": "random"}]}) as rig:
        router = rig.rt.router
        a, b = pool_of(rig, "a"), pool_of(rig, "b")
        old_a, old_b = a.policy, b.policy
        assert (old_a.name, old_b.name) == ("random", "passthrough")
        routing = rig.config.routing
        router.configure(routing, (ModelConfig(name="a", policy="round_robin"), ModelConfig(name="new")))
        assert a.policy.name == "round_robin" and b.policy is old_b and pool_of(rig, "new").policy.name == "passthrough"
        router.configure(routing.model_copy(update={"load_factor": 2.0}), ())
        assert b.policy is not old_b and a.policy.name == "passthrough" and router.route("new") is None


# -- times ------------------------------------------------------------------------------------------------------------


def test_the_quantile_of_first_bytes() -> None:
    """It is unknown at first, then that of the last samples, drawn anew every few."""
    with Rig() as rig:
        pool = pool_of(rig, "m")
        for _ in range(FIRST_BYTE_FRESH - 1):
            pool.observe_first_byte(1.0)
        assert pool.first_byte_quantile_s(0.9) is None
        pool.observe_first_byte(1.0)
        assert pool.first_byte_quantile_s(0.9) == 1.0
        for number in range(FIRST_BYTE_SAMPLES):
            pool.observe_first_byte(number / FIRST_BYTE_SAMPLES)
        assert pool.first_byte_quantile_s(0.5) == pytest.approx(0.5)
        assert len(pool._samples) == FIRST_BYTE_SAMPLES


def test_listed() -> None:
    """Only models of ready workers are shown, each once, with their aliases."""
    with Rig([state(0, models=("a",)), state(1, models=("a",)), state(2, models=(), status=Status.READY)]) as rig:
        assert [one.name for one in rig.rt.router.listed()] == ["a"]


def test_a_router_alone() -> None:
    """A router needs no runtime, and says what it has."""
    table = Rig(1)
    try:
        workers: list[Worker] = table.workers
        router = Router(lambda: workers, RoutingConfig(), (), lambda: 0.0)
        assert router.route("m") is None
        router.refresh()
        assert repr(router) == "<Router [<Pool 'm' cache_aware 1 workers, 1 available>]>"
        states: list[WorkerState] = [worker.state for worker in workers]
        assert states[0].models[0].name == "m"
    finally:
        table.table.close()
