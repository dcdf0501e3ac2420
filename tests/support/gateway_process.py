"""A whole gateway as a process on a free port, and engines as processes: for tests that look at it from outside alone."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import re
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import psutil
import yaml

from harness.fleet.child import Child
from tests.support.served import free_ports

PATIENCE_S = 30.0
_READY = re.compile(r"ready on (https?://[^\s,\"]+)")
_LISTENING = re.compile(r"listening (https?://\S+)")
Config = Mapping[str, Any]
T = TypeVar("T")


@dataclass(slots=True)
class GatewayProcess:
    """A running `smgctl serve`; with several processes `child` is their supervisor."""

    url: str
    metrics_url: str
    file: pathlib.Path
    child: Child
    server: dict[str, Any]

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def log(self) -> str:
        """All that it has written so far."""
        return self.child.log.read_text("utf-8", "replace")

    def serving(self) -> list[psutil.Process]:
        """The processes that serve: the children of the supervisor, or the only one there is."""
        whole = psutil.Process(self.pid)
        return [one for one in whole.children() if one.status() != psutil.STATUS_ZOMBIE] or [whole]

    def text(self, config: Config) -> str:
        """A configuration as YAML, with the ports that this gateway has."""
        return yaml.safe_dump({**config, "server": {**self.server, **config.get("server", {})}})

    def write(self, config: Config) -> None:
        """Give its file another content; it reads it at SIGHUP."""
        self.file.write_text(self.text(config), "utf-8")

    async def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return the exit code."""
        return await asyncio.to_thread(self.child.wait, timeout_s)

    async def metrics(self) -> dict[str, float]:
        """Every line of its metrics page, by name and labels."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return parsed((await client.get(self.metrics_url)).text)


def parsed(page: str) -> dict[str, float]:
    """Every line of a metrics page, by name and labels."""
    lines = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def total(metrics: Mapping[str, float], name: str, **labels: str) -> float:
    """The sum of all series of a name with these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(value for series, value in metrics.items() if series.partition("{")[0] == name and all(label in series for label in wanted))


async def until(ask: Callable[[], Awaitable[T]], holds: Callable[[T], object] = bool, timeout_s: float = PATIENCE_S) -> T:
    """Ask again until the answer holds, and return it."""
    value = await ask()
    try:
        async with asyncio.timeout(timeout_s):
            while not holds(value):
                await asyncio.sleep(0.02)
                value = await ask()
    except TimeoutError:
        raise AssertionError(f"still {value!r} after {timeout_s:g} s") from None
    return value


async def until_holds(holds: Callable[[], object], timeout_s: float = PATIENCE_S, what: Callable[[], object] = lambda: "") -> None:
    """Wait until something in this process holds."""

    async def ask() -> bool:
        return bool(holds())

    try:
        await until(ask, bool, timeout_s)
    except AssertionError:
        raise AssertionError(f"did not hold within {timeout_s:g} s: {what()}") from None


SETTLED_S = 1.0
"""Time that the workers behind the first ready one are waited for: news of the fleet goes out in batches."""


@contextlib.asynccontextmanager
async def gateway_process(
    folder: pathlib.Path,
    config: Config,
    *flags: str,
    processes: int = 1,
    ready: bool = True,
    tls: ssl.SSLContext | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "gateway",
) -> AsyncIterator[GatewayProcess]:
    """Run `smgctl serve --config` until the block is left.

    Args:
        folder: for the configuration and the log.
        config: without ports; workers are `[{"url": ...}]`.
        flags: of the command line.
        processes: how many serve.
        ready: wait until the workers are ready (all of them, or one and a while), not only until it listens.
        tls: how its readiness is asked where it speaks HTTPS.
        env: environment variables it gets besides those of the tests.
        name: of its files.
    """
    port, metrics_port = free_ports(2)
    server = {"port": port, "metrics_port": metrics_port, "processes": processes, **config.get("server", {})}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**config, "server": server}), "utf-8")
    command = [sys.executable, "-P", "-m", "smgctl", "serve", "--config", str(file), *flags]
    with Child(name, command, folder / f"{name}.log", env=env) as child:
        url = (await _said(child, _READY, 1))[0].replace("0.0.0.0", "127.0.0.1")
        gateway = GatewayProcess(url, f"http://127.0.0.1:{metrics_port}/metrics", file, child, server)
        if ready:
            async with httpx.AsyncClient(trust_env=False, timeout=5, verify=tls if tls is not None else True) as client:

                async def readiness() -> httpx.Response:
                    return await client.get(f"{url}/readiness")

                async def every_worker() -> bool:
                    said = (await readiness()).json()
                    return bool(said.get("healthy_workers") == said.get("total_workers"))

                await until(readiness, lambda answer: answer.status_code == 200)
                with contextlib.suppress(AssertionError):  # a worker that is meant to be dead never is
                    await until(every_worker, bool, SETTLED_S)
        yield gateway


@dataclass(slots=True)
class EngineProcess:
    """A simulated engine that is a process of its own, so that it can be killed, stopped and started again."""

    child: Child
    url: str
    command: list[str]
    log: pathlib.Path

    async def state(self) -> dict[str, Any]:
        """What `/_sim/state` says; `last` is left out, for it is long."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            state: dict[str, Any] = (await client.get(f"{self.url}/_sim/state")).json()
        state.pop("last")
        return state

    async def faults(self, **fault: Any) -> None:
        """Arm a fault."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            (await client.post(f"{self.url}/_sim/faults", json=fault)).raise_for_status()

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        self.child.signal(signal.SIGKILL)
        self.child.wait(PATIENCE_S)

    async def restart(self) -> None:
        """Start it again on its port, after it has ended."""
        self.child = Child("engine", self.command, self.log)
        await _said(self.child, _LISTENING, 1)


@contextlib.asynccontextmanager
async def engine_processes(folder: pathlib.Path, count: int, *flags: str) -> AsyncIterator[list[EngineProcess]]:
    """Run `count` engines, each a process, until the block is left."""
    engines: list[EngineProcess] = []
    try:
        for number, port in enumerate(free_ports(count)):
            command = [sys.executable, "-P", "-m", "smgctl", "sim", "engine", "--port", str(port), *flags]
            log = folder / f"engine-{number}.log"
            engines.append(EngineProcess(Child(f"engine {number}", command, log), f"http://127.0.0.1:{port}", command, log))
        for engine in engines:
            await _said(engine.child, _LISTENING, 1)
        yield engines
    finally:
        for engine in engines:
            engine.child.signal(signal.SIGCONT)  # one that a test has stopped hears no SIGTERM
            engine.child.stop()


async def _said(child: Child, says: re.Pattern[str], count: int) -> list[str]:
    """Wait until a process has said something so many times."""

    def found() -> list[str]:
        return says.findall(child.log.read_text("utf-8", "replace"))

    await until_holds(lambda: len(found()) >= count or not child.running, PATIENCE_S, child.tail)
    assert child.running, f"{child!r} ended:\n{child.tail()}"
    return found()
