"""What one tenant, one class and one request may take: minute limits, the queue, bodies, and shedding under overload."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import time
from collections import Counter
from typing import Any

from harness.sim import SimEngine, running
from tests.support.gateway_process import GatewayProcess, gateway_process, total, until, until_holds
from tests.support.keys import bearer, key
from tests.support.outcomes import CHAT, Outcome, ask, body, client


async def early_in_a_minute(seconds: float) -> None:
    """Wait until so many seconds are left of the minute by which the gateway counts; a test must not straddle its turn."""
    left_s = 60.0 - time.monotonic() % 60.0
    if left_s < seconds:
        await asyncio.sleep(left_s + 0.05)


async def fresh(gateway: GatewayProcess, count: int, request: dict[str, Any], headers: dict[str, str]) -> list[Outcome]:
    """Ask on so many connections, one after the other, so that every process gets its part."""
    outcomes = []
    for _ in range(count):
        async with client() as http:
            outcomes.append(await ask(http, gateway.url, request, headers))
    return outcomes


async def test_minute_limits_count_over_all_processes(tmp_path: pathlib.Path) -> None:
    """Of 24 requests over two processes ten are let in, and tokens are counted as used; others hear when to come back."""
    config: dict[str, Any] = {
        "auth": {"keys": [key("few"), key("terse"), key("free"), key("second-of-few", tenant="few")]},
        "admission": {"tenants": {"few": {"requests_per_minute": 10}, "terse": {"tokens_per_minute": 300}}},
    }
    async with running(decode_base_ms=0.5) as engine:
        config["workers"] = [{"url": engine.url}]
        async with gateway_process(tmp_path, config, processes=2) as gateway:
            await early_in_a_minute(12)
            few = await fresh(gateway, 16, body(stream=True), bearer("few"))
            few += await fresh(gateway, 8, body(), bearer("second-of-few"))
            assert Counter(one.status for one in few) == {200: 10, 429: 14}
            assert all(one.ok for one in few[:10]), "those that came first"
            for one in few[10:]:
                assert one.error == "rate_limited" and 1 <= int(one.headers["retry-after"]) <= 120

            terse = await fresh(gateway, 20, body("four words are here", max_tokens=20), bearer("terse"))
            used = [one.body["usage"]["total_tokens"] for one in terse if one.status == 200]
            assert 300 - 60 <= sum(used) <= 300 + 60 and terse[-1].status == 429, used
            assert 1 <= int(terse[-1].headers["retry-after"]) <= 120
            assert all(one.ok for one in await fresh(gateway, 4, body(), bearer("free"))), "other tenants have their own"
            assert engine.state().paths[CHAT] == 10 + len(used) + 4
            metrics = await gateway.metrics()
            assert total(metrics, "smg_http_rate_limit_total", limit="requests_per_minute") == 14
            assert total(metrics, "smg_http_rate_limit_total", limit="tokens_per_minute") == 20 - len(used)


async def queued(gateway: GatewayProcess, count: int) -> None:
    async def waiting() -> float:
        return (await gateway.metrics())["smg_scheduler_waiting"]

    await until(waiting, lambda now: now == count, 5.0)


def order(engine: SimEngine) -> list[str]:
    """The prompts of the chat requests, in the order in which the engine got them."""
    seen = [request for request in engine.state().last if request.target == CHAT]
    return [json.loads(request.body)["messages"][0]["content"] for request in seen]


async def test_classes_are_served_in_order_and_no_higher_than_allowed(tmp_path: pathlib.Path) -> None:
    """With one place: system before interactive before default before bulk, first come first served within; keys bound what is asked."""
    config: dict[str, Any] = {
        "auth": {"keys": [key("ops", max_priority="system"), key("app"), key("batch", max_priority="bulk")]},
        "admission": {"max_concurrent_requests": 1},
    }
    async with running(decode_base_ms=1.0) as engine:
        config["workers"] = [{"url": engine.url}]
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            engine.faults(kind="latency", delay_s=2.0, times=1)
            work = [asyncio.ensure_future(ask(http, gateway.url, body("first"), bearer("app")))]
            await until_holds(lambda: engine.state().paths.get(CHAT, 0) == 1)
            wanted = [
                ("batch", "system", "bulk: not above its key"),
                ("app", "bulk", "bulk 2"),
                ("app", "", "default 1"),
                ("app", "no such class", "default 2"),
                ("app", "system", "interactive: not above its key"),
                ("app", "interactive", "interactive 2"),
                ("ops", "system", "system 1"),
                ("ops", "SYSTEM", "system 2"),
                ("ops", "", "default 3"),
            ]
            for place, (name, priority, text) in enumerate(wanted):
                headers = {**bearer(name), **({"x-smg-priority": priority} if priority else {})}
                work.append(asyncio.ensure_future(ask(http, gateway.url, body(text, max_tokens=2, stream=place % 2 == 0), headers)))
                await queued(gateway, place + 1)
            assert all(one.ok for one in await asyncio.gather(*work))
            assert order(engine) == [
                "first",
                "system 1",
                "system 2",
                "interactive: not above its key",
                "interactive 2",
                "default 1",
                "default 2",
                "default 3",
                "bulk: not above its key",
                "bulk 2",
            ]
            metrics = await gateway.metrics()
            assert metrics["smg_scheduler_inflight"] == metrics["smg_scheduler_waiting"] == 0


async def test_overload_is_shed_early_and_the_queue_is_bounded(tmp_path: pathlib.Path) -> None:
    """Far more load than room: at most the limit runs, refusals are quick, in time and bounded, and who is let in is served whole."""
    limit, size, timeout_s = 4, 30, 1.0
    admission = {"max_concurrent_requests": limit, "default": {"queue_size": size, "queue_timeout_s": timeout_s}}
    async with running(decode_base_ms=10.0) as engine:
        config = {"admission": admission, "workers": [{"url": engine.url}]}
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            loop = asyncio.get_running_loop()
            stop_s = loop.time() + 4.0
            most = 0
            answers: list[tuple[Outcome, float]] = []

            async def press(number: int) -> None:
                while (begun_s := loop.time()) < stop_s:
                    outcome = await ask(http, gateway.url, body(f"{number}", stream=number % 2 == 0, ignore_eos=True))
                    answers.append((outcome, loop.time() - begun_s))
                    if outcome.status != 200:
                        await asyncio.sleep(0.1)

            async def watch() -> None:
                nonlocal most
                while loop.time() < stop_s:
                    most = max(most, engine.state().running + engine.state().waiting)
                    await asyncio.sleep(0.005)

            await asyncio.gather(watch(), *(press(number) for number in range(60)))
            assert most == limit
            served = [one for one, _ in answers if one.status == 200]
            refused = [(one, took_s) for one, took_s in answers if one.status != 200]
            assert all(one.ok for one in served) and len(served) > 40
            kinds = Counter((one.status, one.error) for one, _ in refused)
            assert set(kinds) <= {(429, "rate_limited"), (503, "overloaded")} and kinds[429, "rate_limited"] and kinds[503, "overloaded"], (
                kinds
            )
            assert all(int(one.headers["retry-after"]) >= 1 for one, _ in refused)
            assert max(took_s for _, took_s in refused) < timeout_s + 1.0
            metrics = await gateway.metrics()
            assert metrics["smg_scheduler_inflight"] == metrics["smg_scheduler_waiting"] == 0
            assert total(metrics, "smg_scheduler_admit_total", outcome="admitted") == len(served) == engine.state().paths[CHAT]


async def test_large_bodies_and_heads_are_refused(tmp_path: pathlib.Path) -> None:
    """Above `max_body_bytes` 413, declared or chunked; above `max_header_bytes` 431; nothing of it reaches a worker."""
    async with running() as engine:
        config = {"workers": [{"url": engine.url}], "server": {"max_body_bytes": 20_000, "max_header_bytes": 8_000}}
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            url = gateway.url + CHAT
            fits = await ask(http, gateway.url, body("x" * 19_000, max_tokens=2))
            assert fits.ok
            declared = await http.post(url, content=b"x" * 20_001)

            async def pieces() -> Any:
                for _ in range(30):
                    yield b"x" * 1_000

            chunked = await http.post(url, content=pieces())
            for answer in (declared, chunked):
                assert (answer.status_code, answer.headers["x-smg-error-code"]) == (413, "payload_too_large"), answer.text
            large_head = await http.get(f"{gateway.url}/health", headers={"x-large": base64.b64encode(b"x" * 9_000).decode()})
            assert (large_head.status_code, large_head.headers["x-smg-error-code"]) == (431, "headers_too_large")
            assert engine.state().paths[CHAT] == 1
            assert (await ask(http, gateway.url, body())).ok
