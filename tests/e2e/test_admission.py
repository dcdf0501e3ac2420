"""Keys, tenant limits and the queue, as clients of a whole gateway meet them."""

from __future__ import annotations

import asyncio
import pathlib
from hashlib import sha256

import httpx

from tests.support.served import Served, served

ASK = {"model": "sim-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}


def key(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "sha256": sha256(f"sk-{name}".encode()).hexdigest(), **more}


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


async def ask(client: httpx.AsyncClient, gateway: Served, **headers: str) -> httpx.Response:
    return await client.post(f"{gateway.url}/v1/chat/completions", json=ASK, headers=headers)


async def counts(client: httpx.AsyncClient, gateway: Served) -> dict[str, float]:
    """Every line of the exposition, by name and labels."""
    text = (await client.get(gateway.metrics_url)).text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_keys_roles_and_limits(tmp_path: pathlib.Path) -> None:
    """A key opens what its roles say, and a tenant gets as much as its limits say, in the client's dialect with Retry-After."""
    config: dict[str, object] = {
        "auth": {"keys": [key("app"), key("ops", roles=["admin"]), key("few"), key("terse")]},
        "admission": {"tenants": {"few": {"requests_per_minute": 2}, "terse": {"tokens_per_minute": 60}}},
    }
    async with served(tmp_path, config) as gateway, httpx.AsyncClient(timeout=30, trust_env=False) as client:
        missing, wrong = await ask(client, gateway), await ask(client, gateway, authorization="Bearer sk-ap")
        assert (missing.status_code, wrong.status_code) == (401, 401)
        assert missing.json()["error"]["code"] == missing.headers["x-smg-error-code"] == "unauthenticated"
        assert (await ask(client, gateway, **bearer("app"))).status_code == 200
        assert (await ask(client, gateway, **{"x-api-key": "sk-app"})).status_code == 200
        assert (await ask(client, gateway, **bearer("ops"))).status_code == 403
        workers = f"{gateway.url}/workers"
        assert (await client.get(workers)).status_code == 401
        assert (await client.get(workers, headers=bearer("app"))).status_code == 403
        assert (await client.get(workers, headers=bearer("ops"))).status_code == 200

        few = [await ask(client, gateway, **bearer("few")) for _ in range(4)]
        assert [answer.status_code for answer in few] == [200, 200, 429, 429]
        assert 1 <= int(few[2].headers["retry-after"]) <= 120
        assert few[2].json()["error"]["type"] == "rate_limit_error"

        terse = [await ask(client, gateway, **bearer("terse")) for _ in range(8)]
        used = [answer.json()["usage"]["total_tokens"] for answer in terse if answer.status_code == 200]
        assert 60 - 30 <= sum(used) <= 60 + 30 and terse[-1].status_code == 429, "about 30 tokens are reserved and used by each"
        assert gateway.engine.state().requests >= 4 + len(used)

        seen = await counts(client, gateway)
        assert seen['smg_http_rate_limit_total{result="rejected",limit="requests_per_minute"}'] == 2
        assert seen['smg_http_rate_limit_total{result="rejected",limit="tokens_per_minute"}'] == 8 - len(used)


async def test_a_failed_request_costs_no_tokens(tmp_path: pathlib.Path) -> None:
    """What the engine could not answer is not charged, so that the tenant can try again."""
    config: dict[str, object] = {
        "admission": {"tenant_limit": {"tokens_per_minute": 60}},
        "retry": {"max_attempts": 1},
        "breaker": {"enabled": False},
    }
    async with served(tmp_path, config) as gateway, httpx.AsyncClient(timeout=30, trust_env=False) as client:
        gateway.engine.faults(kind="error", times=10)
        failed = [await ask(client, gateway) for _ in range(10)]
        assert {answer.status_code for answer in failed} == {500}
        assert (await ask(client, gateway)).status_code == 200


async def test_the_limit_is_one_for_all_processes(tmp_path: pathlib.Path) -> None:
    """Two processes let three requests run at once, not six; who waits gets its turn, and every count returns to zero."""
    config: dict[str, object] = {"admission": {"max_concurrent_requests": 3}}
    async with (
        served(tmp_path, config, processes=2, decode_base_ms=15.0) as gateway,
        httpx.AsyncClient(timeout=60, trust_env=False, limits=httpx.Limits(max_connections=24, max_keepalive_connections=0)) as client,
    ):
        most = 0
        asked = [asyncio.ensure_future(ask(client, gateway)) for _ in range(24)]
        while not all(one.done() for one in asked):
            state = gateway.engine.state()
            most = max(most, state.running + state.waiting)
            await asyncio.sleep(0.005)
        assert [one.result().status_code for one in asked] == [200] * 24
        assert most == 3
        seen = await counts(client, gateway)
        assert seen["smg_scheduler_inflight"] == seen["smg_scheduler_waiting"] == 0
        assert seen['smg_scheduler_admit_total{class="default",outcome="admitted"}'] == 24
        assert seen['smg_scheduler_queued_total{class="default"}'] >= 24 - 2 * 3


async def test_a_full_queue_a_late_turn_and_a_client_that_leaves(tmp_path: pathlib.Path) -> None:
    """429 when the class is full, 503 when the turn comes too late, and a seat that is free again when its client leaves."""
    config: dict[str, object] = {
        "admission": {
            "max_concurrent_requests": 1,
            "default": {"queue_size": 1, "queue_timeout_s": 1.0},
            "bulk": {"queue_size": 1, "queue_timeout_s": 60},
        }
    }
    async with served(tmp_path, config) as gateway, httpx.AsyncClient(timeout=60, trust_env=False) as client:
        gateway.engine.faults(kind="latency", delay_s=4.0, times=1)
        running = asyncio.ensure_future(ask(client, gateway))
        while gateway.engine.state().requests == 0 or not _asked(gateway):
            await asyncio.sleep(0.01)
        bulk = {"x-smg-priority": "bulk"}
        leaving = asyncio.ensure_future(ask(client, gateway, **bulk))
        while (await counts(client, gateway))["smg_scheduler_waiting"] < 1:
            await asyncio.sleep(0.02)
        full = await ask(client, gateway, **bulk)
        assert (full.status_code, full.json()["error"]["code"]) == (429, "rate_limited") and int(full.headers["retry-after"]) >= 1
        leaving.cancel()
        while (await counts(client, gateway))["smg_scheduler_waiting"] > 0:
            await asyncio.sleep(0.02)
        seated = asyncio.ensure_future(ask(client, gateway, **bulk))
        late = await ask(client, gateway)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "overloaded") and int(late.headers["retry-after"]) >= 1
        assert ((await running).status_code, (await seated).status_code) == (200, 200)
        seen = await counts(client, gateway)
        ended = {
            outcome: seen[f'smg_scheduler_admit_total{{class="bulk",outcome="{outcome}"}}']
            for outcome in ("admitted", "rejected_queue_full", "client_cancelled")
        }
        assert ended == {"admitted": 1, "rejected_queue_full": 1, "client_cancelled": 1}


def _asked(gateway: Served) -> bool:
    return gateway.engine.state().paths.get("/v1/chat/completions", 0) > 0
