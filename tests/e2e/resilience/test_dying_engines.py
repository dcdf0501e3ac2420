"""Engines that are killed, that hang, and that come back, as clients and the other engines meet it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import signal
from collections.abc import AsyncIterator

from tests.support.gateway_process import EngineProcess, GatewayProcess, engine_processes, gateway_process, total, until
from tests.support.outcomes import CHAT, Outcome, ask, body, client, keep_asking

FAST_CHECKS = {"interval_s": 0.3, "timeout_s": 1.0, "failure_threshold": 2}


async def worker_status(gateway: GatewayProcess, engine: EngineProcess) -> dict[str, object]:
    async with client() as http:
        workers = (await http.get(f"{gateway.url}/workers")).json()["workers"]
    found: dict[str, object] = next(one for one in workers if one["url"] == engine.url)
    return found


async def asked(engines: list[EngineProcess]) -> list[int]:
    """Chat requests that each engine has received."""
    return [(await engine.state())["paths"].get(CHAT, 0) for engine in engines]


@contextlib.asynccontextmanager
async def load(gateway: GatewayProcess, clients: int, **more: int) -> AsyncIterator[list[Outcome]]:
    """Load while the block runs; the list is filled when it is left."""
    outcomes: list[Outcome] = []
    stop = asyncio.Event()
    asking = asyncio.ensure_future(keep_asking(gateway.url, clients, stop, **more))
    try:
        yield outcomes
    finally:
        stop.set()
        outcomes += await asking


async def test_a_killed_engine_costs_only_the_streams_that_it_had_begun(tmp_path: pathlib.Path) -> None:
    """Of 64 requests at once only streams already begun on the killed engine end early, in an error event, and none as a success;
    restarted, the engine gets its share back slowly."""
    config = {"routing": {"policy": "round_robin"}, "health": FAST_CHECKS, "upstream": {"slow_start_s": 4.0}}
    async with engine_processes(tmp_path, 3, "--step-ms", "8", "--per-request-ms", "0") as engines:
        config["workers"] = [{"url": engine.url} for engine in engines]
        victim = engines[0]
        async with gateway_process(tmp_path, config) as gateway:
            async with load(gateway, 64, max_tokens=40) as outcomes:
                await asyncio.sleep(1.0)
                held = (await victim.state())["running"]
                victim.kill()
                await asyncio.sleep(1.0)
            failed = [one for one in outcomes if not one.ok]
            assert held > 0 and len(outcomes) > 64
            assert all(one.stream and one.began and one.error == "stream_broken" and not one.done for one in failed), failed
            assert 0 < len(failed) <= held, (len(failed), held)

            await until(lambda: worker_status(gateway, victim), lambda worker: worker["status"] == "not_ready")
            await victim.restart()
            async with load(gateway, 12, max_tokens=4) as outcomes:
                await until(lambda: worker_status(gateway, victim), lambda worker: worker["status"] == "ready")
                shares = []
                before = await asked(engines)
                for _ in range(6):
                    await asyncio.sleep(1.0)
                    now = await asked(engines)
                    new = [after - earlier for after, earlier in zip(now, before, strict=True)]
                    shares.append(new[0] / sum(new))
                    before = now
            assert all(one.ok for one in outcomes)
            assert 0 < shares[0] < 0.2, f"a burst, or nothing at all: {shares}"
            assert shares[0] < shares[2] < shares[5] and 0.28 < shares[5] < 0.38, shares


async def test_a_frozen_engine_is_left_after_the_first_byte_limit(tmp_path: pathlib.Path) -> None:
    """An engine that takes connections and answers nothing costs its requests the first-byte limit once; then its breaker opens."""
    config = {
        "routing": {"policy": "round_robin"},
        "timeouts": {"first_byte_s": 0.5},
        "breaker": {"min_requests": 3, "open_s": 60},
        "health": {"interval_s": 60},
    }
    async with engine_processes(tmp_path, 2, "--step-ms", "1") as engines:
        config["workers"] = [{"url": engine.url} for engine in engines]
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            engines[0].child.signal(signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            begun_s = loop.time()
            outcomes = await asyncio.gather(*(ask(http, gateway.url, body(f"{n}", stream=n % 2 == 0)) for n in range(12)))
            took_s = loop.time() - begun_s
            assert all(one.ok for one in outcomes), [one for one in outcomes if not one.ok]
            assert 0.4 < took_s < 5, took_s
            assert (await worker_status(gateway, engines[0]))["breaker"] == "open"
            begun_s = loop.time()
            outcomes = await asyncio.gather(*(ask(http, gateway.url, body(f"again {n}")) for n in range(12)))
            assert all(one.ok for one in outcomes) and loop.time() - begun_s < 0.5
            engines[0].child.signal(signal.SIGCONT)


async def test_a_refused_connection_is_no_error_and_is_heard_of_at_once(tmp_path: pathlib.Path) -> None:
    """Requests that meet a closed port go elsewhere, and the worker is out within about a second, long before its next check."""
    config = {"routing": {"policy": "round_robin"}, "health": {"interval_s": 60, "failure_threshold": 3}, "breaker": {"enabled": False}}
    async with engine_processes(tmp_path, 2, "--step-ms", "1") as engines:
        config["workers"] = [{"url": engine.url} for engine in engines]
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            await asyncio.sleep(0.6)  # a worker that was looked at just now is not looked at again for every report
            engines[0].kill()
            outcomes = await asyncio.gather(*(ask(http, gateway.url, body(f"{n}", stream=n % 2 == 0)) for n in range(20)))
            assert all(one.ok for one in outcomes), [one for one in outcomes if not one.ok]
            await until(lambda: worker_status(gateway, engines[0]), lambda worker: worker["status"] == "not_ready", 3.0)
            metrics = await gateway.metrics()
            refused = total(metrics, "smg_worker_errors_total", worker=engines[0].url, error_type="connect_failed")
            assert refused > 0, [series for series in metrics if "worker_errors" in series]
