"""Which engine gets a request: priority and cost, changed while it runs, and the routing key of a client."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.sdk import AsyncClient
from harness.sim import SimEngine, running
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.outcomes import CHAT, ask, body, client

KEY = "x-smg-routing-key"


@contextlib.asynccontextmanager
async def engines_behind(
    folder: pathlib.Path, count: int, policy: str, *, processes: int = 1
) -> AsyncIterator[tuple[GatewayProcess, list[SimEngine]]]:
    async with contextlib.AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(running(decode_base_ms=1.0, history=500)) for _ in range(count)]
        config: dict[str, Any] = {"routing": {"policy": policy}, "workers": [{"url": engine.url} for engine in engines]}
        yield await stack.enter_async_context(gateway_process(folder, config, processes=processes)), engines


async def shares(gateway: GatewayProcess, engines: list[SimEngine], requests: int) -> list[int]:
    """How many of so many requests, ten at once, each engine gets."""
    before = [engine.state().paths.get(CHAT, 0) for engine in engines]
    async with client() as http:
        for _ in range(requests // 10):
            assert all(one.ok for one in await asyncio.gather(*(ask(http, gateway.url, body(f"{n}")) for n in range(10))))
    return [engine.state().paths.get(CHAT, 0) - old for engine, old in zip(engines, before, strict=True)]


async def test_priority_and_cost_have_effect_as_soon_as_they_are_changed(tmp_path: pathlib.Path) -> None:
    """The highest priority gets everything; among equals a worker of cost 3 gets a third of what one of cost 1 gets."""
    async with engines_behind(tmp_path, 2, "round_robin") as (gateway, engines), AsyncClient(gateway.url) as control:
        assert await shares(gateway, engines, 40) == [20, 20]
        first, second = [(await control.find_worker(engine.url)).id for engine in engines]
        await control.patch_worker(first, priority=90)
        assert await shares(gateway, engines, 40) == [40, 0]
        engines[0].faults(kind="error", times=2)
        assert await shares(gateway, engines, 10) == [10, 2], "a lower tier is there when the higher one fails"
        await control.patch_worker(second, priority=90, cost=3.0)
        assert await shares(gateway, engines, 40) == [30, 10]
        await control.drain_worker(first)
        assert await shares(gateway, engines, 20) == [0, 20]
        shown = await control.worker(second)
        assert (shown.priority, shown.cost, shown.status) == (90, 3.0, "ready")


@pytest.mark.parametrize(("policy", "processes"), [("sticky", 1), ("consistent_hashing", 2)])
async def test_a_routing_key_stays_with_its_engine(tmp_path: pathlib.Path, policy: str, processes: int) -> None:
    """All requests of a key meet one engine, the keys spread over all, and a key whose engine leaves goes on elsewhere."""
    async with engines_behind(tmp_path, 3, policy, processes=processes) as (gateway, engines):
        keys = [f"session-{n}" for n in range(24)]
        async with AsyncClient(gateway.url) as control:
            for _ in range(4):
                async with client() as http:  # new connections: with two processes both see each key
                    for key in keys:
                        assert (await ask(http, gateway.url, body(key), {KEY: key})).ok
            homes = _homes(engines)
            assert sorted(homes) == sorted(keys) and all(len(places) == 1 for places in homes.values()), homes
            used = [sum(places == {at} for places in homes.values()) for at in range(3)]
            assert all(count >= 2 for count in used), used
            gone = (await control.find_worker(engines[0].url)).id
            await control.drain_worker(gone)
            before = engines[0].state().paths[CHAT]
            async with client() as http:
                for key in keys:
                    assert (await ask(http, gateway.url, body(key), {KEY: key})).ok
            assert engines[0].state().paths[CHAT] == before
            for key, places in _homes(engines).items():
                assert len(places) == (2 if 0 in homes[key] else 1), "only the keys of the engine that left have moved"


def _homes(engines: list[SimEngine]) -> dict[str, set[int]]:
    """Routing key -> the engines that have seen it."""
    homes: dict[str, set[int]] = {}
    for at, engine in enumerate(engines):
        for request in engine.state().last:
            key = request.header(KEY)
            if key is not None:
                homes.setdefault(key, set()).add(at)
    return homes
