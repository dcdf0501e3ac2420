"""The registry follows the fleet: same way, same worker; another way, another worker; gone, retired."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gateway.transports.http import HttpPool
from gateway.transports.mock import MockPool
from gateway.workers.breaker import BreakerState
from gateway.workers.state import Status
from tests.support.exchange import ANSWER, Rig, state


def test_a_worker_lives_as_long_as_its_way() -> None:
    """Status, models, cost and priority change the same object; URL, key or TLS make a new one, with the old one's counts."""
    with Rig([state(0)]) as rig:
        (worker,) = rig.workers
        rig.tell([state(0, models=("b",), cost=3, priority=7, status=Status.DRAINING)])
        assert rig.workers == [worker] and worker.cost == 3
        cells = worker.cells
        for more in ({"api_key": "k"}, {"url": "http://other:1"}, {"max_connections": 5}, {"slot": 9}):
            rig.tell([state(0, **more)] if "slot" not in more else [state(9)])
            (new,) = rig.workers
            assert new is not worker and (new.cells is cells or "slot" in more)
            assert rig.rt.registry.workers == {new.id: new}
            worker = new


def test_tls_settings_are_part_of_the_way() -> None:
    """Whether a certificate is checked decides the connections."""
    with Rig([state(0, url="https://w0")]) as rig:
        (worker,) = rig.workers
        rig.tell([state(0, url="https://w0", verify_tls=False)])
        assert rig.workers[0] is not worker


def test_requests_in_flight_finish_on_the_old_worker() -> None:
    """A worker that is replaced or removed takes nothing new; what it has goes on, and its load comes back to zero."""
    with Rig([state(0)]) as rig:
        _, first = rig.ask()
        old = rig.pools["w0"]
        rig.tell([state(0, api_key="k")])
        assert old.closed and rig.workers[0].load == 1
        _, second = rig.ask()
        assert rig.pools["w0"] is not old and len(rig.calls) == 1
        old.calls[0].answer(200, ANSWER)
        rig.call.answer(200, ANSWER)
        assert first.status == second.status == 200 and rig.workers[0].load == 0
        rig.rt.registry.sweep(rig.loop.now_s)
        assert not rig.rt.registry._retired


def test_a_worker_that_cannot_be_used_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A URL that is none costs this worker, not the others."""
    with Rig([state(0), state(1, url="http://bad url")]) as rig:
        assert [worker.id for worker in rig.workers] == ["w0"] and "w1" not in rig.rt.registry.workers
        assert "cannot be used" in caplog.text
        rig.tell([state(0, url="http://bad url"), state(1)])
        assert [worker.id for worker in rig.workers] == ["w1"]


def test_every_update_is_told_once() -> None:
    """Listeners hear one change for each update of the fleet."""
    with Rig(2) as rig:
        heard: list[int] = []
        rig.rt.registry.on_change = lambda: heard.append(len(rig.rt.registry.workers))
        rig.rt.states((state(0), state(2)))
        assert heard == [2]


def test_a_worker_that_came_back() -> None:
    """It starts slowly and with a fresh breaker, once, and only when the fleet says that it recovered."""
    with Rig([state(0)], {"upstream": {"slow_start_s": 10}, "breaker": {"min_requests": 1}}) as rig:
        (worker,) = rig.workers
        assert not worker.slow_until_s, "a worker that is new starts at once"
        worker.breaker.failure()
        rig.tell([state(0, status=Status.NOT_READY)])
        rig.tell([state(0, recovered=True)])
        assert worker.effective_cost == 10.0 and worker.breaker.state is BreakerState.CLOSED
        breaker = worker.breaker
        rig.advance(5)
        rig.rt.registry.tick(rig.loop.now_s)
        assert worker.effective_cost == 2.0
        rig.tell([state(0, recovered=True, cost=1.0)])
        assert worker.effective_cost == 2.0 and worker.breaker is breaker
        rig.advance(6)
        rig.rt.registry.tick(rig.loop.now_s)
        assert worker.effective_cost == 1.0
        rig.tell([state(1, recovered=True)])
        assert rig.workers[0].effective_cost == 10.0, "a process that starts while a worker recovers gives it its share slowly too"


def test_breakers_are_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Each change of a breaker is counted, logged, and heard by the router."""
    caplog.set_level(logging.INFO)
    with Rig(1, {"breaker": {"min_requests": 1, "open_s": 5, "success_threshold": 1}}) as rig:
        (worker,) = rig.workers
        heard: list[bool] = []
        rig.rt.registry.on_change = lambda: heard.append(worker.breaker.available)
        worker.breaker.failure()
        rig.advance(6)
        rig.rt.registry.tick(rig.loop.now_s)
        worker.breaker.success()
        assert heard == [False, True, True]
        assert worker.cells.breaker_transitions == {("closed", "open"): 1, ("open", "half_open"): 1, ("half_open", "closed"): 1}
        levels = [record.levelname for record in caplog.records if "breaker of" in record.message]
        assert levels == ["WARNING", "WARNING", "INFO"]


def test_new_limits_reach_open_pools() -> None:
    """Limits of connections change in place; breakers start anew only where their settings changed."""
    with Rig([state(0), state(1, max_connections=7)]) as rig:
        first, second = rig.workers
        breaker = first.breaker
        upstream = rig.config.upstream.model_copy(update={"max_connections": 3, "max_waiting": 4, "keep_alive_s": 5.0})
        timeouts = rig.config.timeouts.model_copy(update={"connect_s": 6.0})
        rig.rt.registry.configure(rig.config.breaker, upstream, timeouts)
        assert (first.http.max_connections, first.http.max_waiting, first.http.keep_alive_s, first.http.connect_s) == (3, 4, 5.0, 6.0)
        assert second.http.max_connections == 7 and first.breaker is breaker
        rig.rt.registry.configure(rig.config.breaker.model_copy(update={"min_requests": 99}), upstream, timeouts)
        assert first.breaker is not breaker and first.breaker.epoch > breaker.epoch


def test_pools_of_new_workers_have_the_limits() -> None:
    """A worker's pool is made with the limits in force."""
    pools: list[HttpPool] = []
    with Rig(0, {"upstream": {"max_connections": 3, "max_waiting": 4, "keep_alive_s": 5}, "timeouts": {"connect_s": 6}}) as rig:
        rig.rt.states((state(0), state(1, max_connections=7)))
        pools = [worker.http for worker in rig.workers]
    found: list[Any] = [(pool.max_connections, pool.max_waiting, pool.keep_alive_s, pool.connect_s) for pool in pools]
    assert found == [(3, 4, 5.0, 6.0), (7, 4, 5.0, 6.0)]


async def test_closing() -> None:
    """`aclose` closes every pool, of retired workers too."""
    with Rig(2) as rig:
        rig.ask()
        old = rig.pools["w0"]
        rig.tell([state(1)])
        await rig.rt.registry.aclose()
        assert old.closed and rig.pools["w1"].closed and rig.rt.registry.workers == {} and not old.open_calls
        assert isinstance(old, MockPool)
