"""Rounds of churn: after each everything that a gateway had open is closed again, and its memory does not grow with the rounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import random
from collections import Counter
from typing import Any

import httpx
import psutil
import pytest

from gateway.sdk import AsyncClient
from tests.support.gateway_process import EngineProcess, GatewayProcess, engine_processes, gateway_process, total, until
from tests.support.outcomes import CHAT, Outcome, ask, body, client

ROUNDS = 6
WARM = 2
"""Rounds that fill what is kept by design: allocator, prefix trees, caches."""
ROUND_S = 2.0
CLIENTS = 14
MIB = 1 << 20
PROMPTS = [f"prompt {number} {'of a conversation ' * (number % 7 * 20)}" for number in range(40)]


class Churn:
    """One round of load: every kind of client there is, good and bad."""

    def __init__(self, gateway: GatewayProcess, seed: int) -> None:
        self.url = gateway.url
        host, port = gateway.url.removeprefix("http://").split(":")
        self.address = host, int(port)
        self.rng = random.Random(seed)
        self.outcomes: list[Outcome] = []
        self.did: Counter[str] = Counter()

    async def run(self) -> None:
        until_s = asyncio.get_running_loop().time() + ROUND_S
        async with client() as kept, asyncio.TaskGroup() as running:
            for _ in range(CLIENTS):
                running.create_task(self._client(kept, until_s))

    async def _client(self, kept: httpx.AsyncClient, until_s: float) -> None:
        kinds = [self._kept, self._kept, self._new, self._leaves, self._half_a_head, self._half_a_body, self._nonsense, self._idles]
        while asyncio.get_running_loop().time() < until_s:
            kind = self.rng.choice(kinds)
            self.did[kind.__name__] += 1
            await kind(kept)

    def _request(self) -> dict[str, Any]:
        return body(self.rng.choice(PROMPTS), stream=self.rng.random() < 0.6, max_tokens=self.rng.randint(1, 40))

    async def _kept(self, kept: httpx.AsyncClient) -> None:
        """A request on a connection that is used again."""
        self.outcomes.append(await ask(kept, self.url, self._request()))

    async def _new(self, kept: httpx.AsyncClient) -> None:
        """A request on a connection of its own."""
        async with client() as http:
            self.outcomes.append(await ask(http, self.url, self._request()))

    async def _leaves(self, kept: httpx.AsyncClient) -> None:
        """A client that is gone before its answer is complete."""
        content = json.dumps({**self._request(), "max_tokens": 400, "ignore_eos": True}).encode()
        await self._raw(b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(content), content))

    async def _half_a_head(self, kept: httpx.AsyncClient) -> None:
        await self._raw(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-ha")

    async def _half_a_body(self, kept: httpx.AsyncClient) -> None:
        await self._raw(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n{")

    async def _nonsense(self, kept: httpx.AsyncClient) -> None:
        await self._raw(b"\x16\x03\x01 this is no http\r\n\r\n")

    async def _idles(self, kept: httpx.AsyncClient) -> None:
        await self._raw(b"")

    async def _raw(self, data: bytes) -> None:
        """Send something, wait a little, and leave: by FIN or by RST."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(data)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(2000), self.rng.uniform(0.0, 0.08))
        if self.rng.random() < 0.5:
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def at_rest(gateway: GatewayProcess, engines: list[EngineProcess]) -> dict[str, float]:
    """Wait until nobody has anything in flight or open; returns what was waited for."""

    async def busy() -> dict[str, float]:
        metrics = await gateway.metrics()
        states = [await engine.state() for engine in engines]
        return {
            "in flight at workers": total(metrics, "smg_worker_requests_active"),
            "in flight": metrics["smg_scheduler_inflight"],
            "waiting": metrics["smg_scheduler_waiting"],
            "connections of clients": metrics["smg_http_connections_active"],
            "connections to workers": total(metrics, "smg_worker_connections_active"),
            "engines work": sum(state["running"] + state["waiting"] for state in states),
            "engines hold": sum(state["connections"] for state in states) - len(states),  # the one that asks
        }

    return await until(busy, lambda found: not any(value > 0 for value in found.values()), 10.0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
async def test_churn_leaves_nothing_behind(tmp_path: pathlib.Path, processes: int) -> None:
    """Kept and new connections, streams, clients that leave in every state, engines that fail: sockets, threads and memory come back."""
    config: dict[str, Any] = {
        "upstream": {"keep_alive_s": 0.5, "slow_start_s": 0},
        "admission": {"max_concurrent_requests": 64},
        "breaker": {"failure_ratio": 0.9, "open_s": 0.2},
        "server": {"header_timeout_s": 1.0, "body_timeout_s": 1.0},
        "health": {"interval_s": 1.0},
    }
    async with engine_processes(tmp_path, 2, "--step-ms", "1") as engines:
        config["workers"] = [{"url": engine.url} for engine in engines]
        async with gateway_process(tmp_path, config, processes=processes) as gateway:
            for engine in engines:
                await engine.faults(kind="error", rate=0.03)
                await engine.faults(kind="reset", after_events=2, rate=0.02)
            watched = [psutil.Process(gateway.pid), *(one for one in gateway.serving() if one.pid != gateway.pid)]
            await at_rest(gateway, engines)
            fds_before = [one.num_fds() for one in watched]
            memory: list[int] = []
            did: Counter[str] = Counter()
            outcomes: list[Outcome] = []
            threads: list[list[int]] = []
            for number in range(ROUNDS):
                churn = Churn(gateway, number)
                await churn.run()
                did += churn.did
                outcomes += churn.outcomes
                await at_rest(gateway, engines)
                memory.append(sum(one.memory_info().rss for one in watched))
                threads.append([one.num_threads() for one in watched])

            async def fds() -> list[int]:
                return [one.num_fds() for one in watched]

            await until(fds, lambda now: all(new <= old + 1 for new, old in zip(now, fds_before, strict=True)), 5.0)
            assert threads[-1] == threads[WARM - 1]
            grown = [(now - before) / MIB for before, now in zip(memory[WARM - 1 :], memory[WARM:], strict=False)]
            assert sum(grown) < 0.75 * len(watched), f"MiB a round: {[round(one, 2) for one in grown]}"
            assert min(grown) < 0.5, f"it grows with every round: {[round(one, 2) for one in grown]}"

            assert all(count > 10 for count in did.values()) and len(did) == 7, did
            assert not [one for one in outcomes if one.broken], [one for one in outcomes if one.broken][:3]
            odd = [one for one in outcomes if not one.ok and not (one.stream and one.error == "stream_broken")]
            assert odd == [], odd[:3]
            assert len(outcomes) > 200 and any(not one.ok for one in outcomes)
            metrics = await gateway.metrics()
            assert metrics.get("smg_process_restarts_total", 0) == 0
            assert total(metrics, "smg_http_responses_total", error_code="internal") == 0
            async with AsyncClient(gateway.url) as control:
                assert [one.load for one in (await control.workers()).workers] == [0, 0]
        assert "Traceback" not in gateway.log and " ERROR " not in gateway.log, gateway.log[-3000:]
