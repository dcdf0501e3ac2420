"""Several processes behind one port: what is common to them, and what the death of one costs."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import psutil

from gateway.sdk import AsyncClient
from harness.sim import running
from tests.support.gateway_process import GatewayProcess, gateway_process, total, until, until_holds
from tests.support.outcomes import CHAT, Outcome, ask, body, client


@dataclass(slots=True)
class Tied:
    """A client with one connection, and the process that serves it."""

    http: httpx.AsyncClient
    pid: int


@contextlib.asynccontextmanager
async def tied_clients(gateway: GatewayProcess, at_least: int) -> AsyncIterator[list[Tied]]:
    """Clients with one connection each, at least so many at each process."""
    async with contextlib.AsyncExitStack() as stack:
        tied: list[Tied] = []
        pids = {one.pid for one in gateway.serving()}
        for _ in range(64):
            if pids and all(sum(one.pid == pid for one in tied) >= at_least for pid in pids):
                break
            http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=1)))
            answer = await http.get(f"{gateway.url}/liveness")
            port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
            tied.append(Tied(http, _owner(gateway, port)))
        yield tied


def _owner(gateway: GatewayProcess, client_port: int) -> int:
    for one in gateway.serving():
        if any(connection.raddr and connection.raddr.port == client_port for connection in one.net_connections("tcp")):
            return one.pid
    raise AssertionError(f"no process has the connection from port {client_port}")


async def test_a_worker_and_the_counts_of_all_processes_are_common(tmp_path: pathlib.Path) -> None:
    """A worker added over one process serves all, in-flight counts and metrics are those of the whole whoever answers."""
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(running(decode_base_ms=20.0))
        gateway = await stack.enter_async_context(gateway_process(tmp_path, {}, processes=2, ready=False))
        async with tied_clients(gateway, 3) as clients:
            assert len({one.pid for one in clients}) == 2
            assert [(await ask(one.http, gateway.url, body())).error for one in clients] == ["no_candidate"] * len(clients)
            added = await clients[0].http.post(f"{gateway.url}/workers", json={"url": engine.url, "models": ["sim-model"]})
            assert added.status_code == 202
            for one in clients:

                async def ready(http: httpx.AsyncClient = one.http) -> int:
                    return (await http.get(f"{gateway.url}/readiness")).status_code

                await until(ready, lambda status: status == 200, 3.0)
            outcomes = await asyncio.gather(*(ask(one.http, gateway.url, body(max_tokens=2)) for one in clients))
            assert all(one.ok for one in outcomes)

            work = [asyncio.ensure_future(ask(one.http, gateway.url, body(stream=True, max_tokens=60, ignore_eos=True))) for one in clients]
            await until_holds(lambda: engine.state().running == len(clients))
            async with AsyncClient(gateway.url) as control, tied_clients(gateway, 1) as askers:
                loads = [(await one.http.get(f"{gateway.url}/workers")).json()["workers"][0]["load"] for one in askers]
                assert loads == [len(clients)] * len(askers)
                status = await control.status()
                assert sorted(one.index for one in status.processes) == [-1, 0, 1]
                assert {one.pid for one in status.processes if one.index >= 0} == {one.pid for one in gateway.serving()}
            metrics = await gateway.metrics()
            assert total(metrics, "smg_worker_requests_active", worker=engine.url) == len(clients)
            assert total(metrics, "smg_worker_pool_size") == 1 and metrics["smg_processes"] == 2
            assert all(one.ok for one in await asyncio.gather(*work))
            metrics = await gateway.metrics()
            assert metrics[f'smg_http_requests_total{{method="POST",path="{CHAT}"}}'] == 3 * len(clients)
            assert total(metrics, "smg_worker_requests_active") == total(metrics, "smg_scheduler_inflight") == 0
            removed = await clients[-1].http.delete(f"{gateway.url}{added.headers['location']}")
            assert removed.status_code == 202
            for one in clients:
                await until(lambda http=one.http: ask(http, gateway.url, body()), lambda outcome: outcome.error == "no_candidate", 3.0)


async def test_a_killed_process_costs_its_own_clients_alone(tmp_path: pathlib.Path) -> None:
    """Under load a process dies: the clients of the other notice nothing, it is replaced, no count falls and none stays behind."""
    async with running(decode_base_ms=5.0) as engine:
        config = {"workers": [{"url": engine.url}], "admission": {"max_concurrent_requests": 64}}
        async with gateway_process(tmp_path, config, processes=2) as gateway, tied_clients(gateway, 4) as clients:
            stop = asyncio.Event()
            outcomes: list[tuple[int, Outcome]] = []
            fallen: list[str] = []
            pages = 0

            async def load(one: Tied) -> None:
                at = 0
                while not stop.is_set():
                    at += 1
                    outcome = await ask(one.http, gateway.url, body(f"{at}", stream=at % 2 == 0))
                    outcomes.append((one.pid, outcome))
                    if outcome.broken:
                        return

            async def watch() -> None:
                nonlocal pages
                before: dict[str, float] = {}
                while not stop.is_set():
                    now = await gateway.metrics()
                    fallen.extend(f"{name}: {was} -> {now.get(name)}" for name, was in before.items() if now.get(name, -1.0) < was)
                    before = {name: value for name, value in now.items() if _counts(name)}
                    pages += 1
                    await asyncio.sleep(0.05)

            async with asyncio.TaskGroup() as running_:
                for one in clients:
                    running_.create_task(load(one))
                running_.create_task(watch())
                await asyncio.sleep(1.0)
                victim = clients[0].pid
                psutil.Process(victim).send_signal(signal.SIGKILL)
                await asyncio.sleep(0.5)
                async with AsyncClient(gateway.url) as control:
                    status = await until(
                        control.status, lambda status: all(one.state == "ready" and one.pid != victim for one in status.processes)
                    )
                assert sum(one.restarts for one in status.processes) == 1
                await asyncio.sleep(0.5)
                async with tied_clients(gateway, 2) as later:
                    assert len({one.pid for one in later}) == 2 and victim not in {one.pid for one in later}
                    assert all([(await ask(one.http, gateway.url, body(max_tokens=2))).ok for one in later])
                stop.set()
            hurt = [outcome for pid, outcome in outcomes if pid == victim and not outcome.ok]
            assert len(hurt) == sum(one.pid == victim for one in clients) and all(one.broken for one in hurt)
            others = [outcome for pid, outcome in outcomes if pid != victim]
            assert len(others) > 50 and all(one.ok for one in others), [one for one in others if not one.ok]
            assert pages > 10 and fallen == []
            metrics = await gateway.metrics()
            assert metrics["smg_process_restarts_total"] == 1
            assert total(metrics, "smg_worker_requests_active") == total(metrics, "smg_scheduler_inflight") == 0
            async with client() as http:
                assert (await http.get(f"{gateway.url}/workers")).json()["workers"][0]["load"] == 0
            await until_holds(lambda: engine.state().running == 0 and engine.state().aborted > 0, 2.0)


def _counts(series: str) -> bool:
    """A counter of the gateway: what a process says of itself ends with the process."""
    name = series.partition("{")[0]
    return name.endswith(("_total", "_count", "_sum", "_bucket")) and not name.startswith("smg_process_cpu")
