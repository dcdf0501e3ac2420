"""How a gateway ends: what SIGTERM lets finish, and what a second one cuts off."""

from __future__ import annotations

import asyncio
import pathlib
import signal

import httpx
import pytest

from harness.sim import running
from tests.support.gateway_process import GatewayProcess, gateway_process, until_holds
from tests.support.outcomes import Outcome, ask, body, client


async def readiness(gateway: GatewayProcess) -> int:
    """The answer on a new connection; 0 where it is refused."""
    try:
        async with client() as http:
            return (await http.get(f"{gateway.url}/readiness")).status_code
    except httpx.TransportError:
        return 0


def mixed(http: httpx.AsyncClient, gateway: GatewayProcess, *, max_tokens: int) -> list[asyncio.Future[Outcome]]:
    """Four whole requests and four streams, of exactly so many tokens."""
    requests = [body(f"{n}", stream=n % 2 == 0, max_tokens=max_tokens, ignore_eos=True) for n in range(8)]
    return [asyncio.ensure_future(ask(http, gateway.url, request)) for request in requests]


@pytest.mark.parametrize("processes", [1, 2])
async def test_sigterm_drains(tmp_path: pathlib.Path, processes: int) -> None:
    """Readiness turns 503 while the port still serves, then nobody connects; what is in flight ends whole; the exit code is 0."""
    async with running(decode_base_ms=40.0, decode_per_req_ms=0) as engine:
        config = {"workers": [{"url": engine.url}], "server": {"drain_settle_s": 0.7, "drain_timeout_s": 30}}
        async with gateway_process(tmp_path, config, processes=processes) as gateway, client() as http, client() as idle:
            assert (await ask(idle, gateway.url, body(max_tokens=1))).ok
            work = [
                asyncio.ensure_future(ask(http, gateway.url, body(f"{n}", stream=n % 2 == 0, max_tokens=50, ignore_eos=True)))
                for n in range(8)
            ]
            await until_holds(lambda: engine.state().running == 8)
            gateway.child.signal(signal.SIGTERM)
            seen: list[int] = []
            async with asyncio.timeout(10):
                while not seen or seen[-1] != 0:
                    seen.append(await readiness(gateway))
                    if seen[-1] == 503 and seen.count(503) == 1:
                        late = await ask(client_of_its_own := client(), gateway.url, body(max_tokens=1))
                        await client_of_its_own.aclose()
                        assert late.ok, "load balancers send requests until they have noticed"
                        assert late.headers["connection"] == "close", "who keeps connections hears that this one ends"
                    await asyncio.sleep(0.02)
            assert seen.count(503) >= 3 and seen == sorted(seen, key=[200, 503, 0].index), seen
            assert not any(one.done() for one in work), "the port closed while they were in flight"
            outcomes = await asyncio.gather(*work)
            assert all(one.ok for one in outcomes), [one for one in outcomes if not one.ok]
            assert all(one.events == 51 for one in outcomes if one.stream)
            assert await gateway.ended(5) == 0
            assert engine.state().aborted == 0
            await until_holds(lambda: engine.state().connections == 0, 1.0)


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_drain_under_load_loses_nobody(tmp_path: pathlib.Path, processes: int) -> None:
    """Clients that ask on and on, over kept connections, are answered until they are refused: no connection breaks under a request."""
    async with running(decode_base_ms=1.0) as engine:
        config = {"workers": [{"url": engine.url}], "server": {"drain_settle_s": 0.5}}
        async with gateway_process(tmp_path, config, processes=processes) as gateway:

            async def until_refused() -> list[Outcome]:
                outcomes: list[Outcome] = []
                async with client() as http:
                    while not outcomes or "ConnectError" not in outcomes[-1].broken:
                        outcomes.append(await ask(http, gateway.url, body(stream=len(outcomes) % 2 == 0, max_tokens=2)))
                return outcomes

            work = [asyncio.ensure_future(until_refused()) for _ in range(24)]
            await until_holds(lambda: engine.state().requests > 100)
            gateway.child.signal(signal.SIGTERM)
            outcomes = [one for each in await asyncio.gather(*work) for one in each[:-1]]
            assert all(one.ok for one in outcomes), [one for one in outcomes if not one.ok]
            assert len(outcomes) > 200 and await gateway.ended(5) == 0


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_second_sigterm_stops_at_once(tmp_path: pathlib.Path, processes: int) -> None:
    """What is in flight is cut off, the engine hears of it, and no process stays behind."""
    async with running(decode_base_ms=40.0) as engine:
        config = {"workers": [{"url": engine.url}], "server": {"drain_timeout_s": 60}}
        async with gateway_process(tmp_path, config, processes=processes) as gateway, client() as http:
            work = [
                asyncio.ensure_future(ask(http, gateway.url, body(f"{n}", stream=n % 2 == 0, max_tokens=2000, ignore_eos=True)))
                for n in range(8)
            ]
            await until_holds(lambda: engine.state().running == 8)
            serving = gateway.serving()
            gateway.child.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert gateway.child.running and not any(one.done() for one in work)
            gateway.child.signal(signal.SIGTERM)
            assert await gateway.ended(5) == 0
            assert not any(one.is_running() for one in serving)
            outcomes = await asyncio.gather(*work)
            assert not any(one.ok for one in outcomes)
            await until_holds(lambda: engine.state().aborted == 8 and engine.state().connections == 0, 1.0, engine.state)


async def test_the_drain_time_is_kept(tmp_path: pathlib.Path) -> None:
    """What has not ended within `server.drain_timeout_s` is cut off."""
    async with running(decode_base_ms=40.0) as engine:
        config = {"workers": [{"url": engine.url}], "server": {"drain_timeout_s": 0.5}}
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            work = asyncio.ensure_future(ask(http, gateway.url, body(stream=True, max_tokens=2000, ignore_eos=True)))
            await until_holds(lambda: engine.state().running == 1)
            begun_s = asyncio.get_running_loop().time()
            gateway.child.signal(signal.SIGTERM)
            assert await gateway.ended(5) == 0
            assert 0.4 < asyncio.get_running_loop().time() - begun_s < 2.5
            assert not (await work).ok
