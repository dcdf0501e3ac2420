"""How much load failures may add: hedges, the retry budget, and what a client is told when nobody can answer."""

from __future__ import annotations

import asyncio
import pathlib

from harness.sim import running
from tests.support.gateway_process import gateway_process, total, until_holds
from tests.support.outcomes import CHAT, ask, body, client


async def test_a_hedge_beats_a_slow_engine_and_the_loser_is_cancelled(tmp_path: pathlib.Path) -> None:
    """Where an engine becomes slow, a second one answers soon after the usual time; the slow one is told that nobody waits."""
    async with running(decode_base_ms=1.0) as first, running(decode_base_ms=1.0) as second:
        config = {
            "routing": {"policy": "round_robin"},
            "hedge": {"enabled": True, "quantile": 0.9, "min_delay_s": 0.1, "max_delay_s": 0.3, "max_ratio": 1.0},
            "health": {"interval_s": 60},
            "workers": [{"url": first.url}, {"url": second.url}],
        }
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            for _ in range(5):
                usual = await asyncio.gather(*(ask(http, gateway.url, body(f"{n}", stream=n % 2 == 0)) for n in range(8)))
                assert all(one.ok for one in usual)
            hedged_before = total(await gateway.metrics(), "smg_router_hedges_total")
            first.faults(kind="latency", delay_s=20)
            loop = asyncio.get_running_loop()
            begun_s = loop.time()
            outcomes = await asyncio.gather(*(ask(http, gateway.url, body(f"{n}", stream=n % 2 == 0)) for n in range(12)))
            took_s = loop.time() - begun_s
            assert all(one.ok for one in outcomes), [one for one in outcomes if not one.ok]
            assert took_s < 3.0, took_s
            slow = first.state().fault_hits
            assert slow > 0
            await until_holds(lambda: first.state().aborted == slow and first.state().connections == 0, 2.0, first.state)
            metrics = await gateway.metrics()
            assert total(metrics, "smg_router_hedges_total") - hedged_before >= slow
            assert total(metrics, "smg_worker_hedges_won_total", worker=second.url) >= slow
            assert total(metrics, "smg_worker_requests_active") == 0
            assert total(metrics, "smg_router_requests_total") == 40 + 12, "a hedged request is one request"


async def test_retries_stay_within_their_budget(tmp_path: pathlib.Path) -> None:
    """Where every engine fails, 200 requests lead to little more than 200 attempts, and clients get the engine's own answer."""
    async with running() as first, running() as second:
        config = {
            "routing": {"policy": "round_robin"},
            "retry": {"max_attempts": 4, "budget_ratio": 0.1, "budget_min_per_s": 1.0, "budget_window_s": 10.0},
            "breaker": {"enabled": False},
            "health": {"interval_s": 60},
            "workers": [{"url": first.url}, {"url": second.url}],
        }
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            for engine in (first, second):
                engine.faults(kind="error", status=500)
            outcomes = []
            for _ in range(10):
                outcomes += await asyncio.gather(*(ask(http, gateway.url, body(f"{n}", stream=n % 2 == 0)) for n in range(20)))
            assert {(one.status, one.error) for one in outcomes} == {(500, "upstream_failed")}
            assert "simulated failure" in str(outcomes[0].body)
            attempts = first.state().paths[CHAT] + second.state().paths[CHAT]
            assert 200 < attempts <= 200 + 10 + 0.1 * 200, attempts
            metrics = await gateway.metrics()
            assert total(metrics, "smg_worker_retries_total") == attempts - 200


async def test_where_nobody_can_answer_the_client_hears_when_to_come_back(tmp_path: pathlib.Path) -> None:
    """No workers, none that is ready, and none whose breaker is closed: each is 503 with Retry-After and a reason of its own."""
    async with gateway_process(tmp_path, {}, ready=False) as gateway, client() as http:
        none = await ask(http, gateway.url, body())
        assert (none.status, none.error) == (503, "no_candidate") and int(none.headers["retry-after"]) >= 1
        assert "no workers" in none.body["error"]["message"]
        ready = await http.get(f"{gateway.url}/readiness")
        assert (ready.status_code, (await http.get(f"{gateway.url}/liveness")).status_code) == (503, 200)

    async with running() as engine:
        breaker = {"min_requests": 2, "open_s": 30}
        config = {"workers": [{"url": engine.url, "models": ["sim-model"]}], "retry": {"max_attempts": 1}, "breaker": breaker}
        config["health"] = {"interval_s": 0.2, "failure_threshold": 2}
        async with gateway_process(tmp_path, config, name="second") as gateway, client() as http:
            engine.faults(kind="error", status=500)
            failed = [await ask(http, gateway.url, body()) for _ in range(3)]
            assert [one.status for one in failed] == [500, 500, 503]
            assert failed[2].error == "no_candidate" and 1 <= int(failed[2].headers["retry-after"]) <= 30
            assert "failed lately" in failed[2].body["error"]["message"]
            engine.faults(kind="unhealthy")

            async def ready() -> int:
                return (await http.get(f"{gateway.url}/readiness")).status_code

            async with asyncio.timeout(5):
                while await ready() != 503:
                    await asyncio.sleep(0.02)
            unready = await ask(http, gateway.url, body())
            assert (unready.status, unready.error) == (503, "no_candidate") and "ready" in unready.body["error"]["message"]
            assert int(unready.headers["retry-after"]) >= 1
