"""A whole gateway before simulated engines in this process, as an outsider meets it: `smgctl serve` with a configuration."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import yaml

from harness.fleet.child import Child
from harness.fleet.ports import free_ports
from harness.sim import SimEngine, running

READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running gateway."""

    url: str
    metrics_url: str
    engine: SimEngine
    child: Child


@contextlib.asynccontextmanager
async def served(folder: pathlib.Path, config: dict[str, object], *, processes: int = 1, **engine: object) -> AsyncIterator[Served]:
    """Start `smgctl serve` with a configuration before one simulated engine, and stop both at the end."""
    port, metrics_port = free_ports(2)
    async with running(**engine) as sim:  # type: ignore[arg-type]
        server = {"port": port, "metrics_port": metrics_port, "processes": processes}
        file = folder / "smg.yaml"
        file.write_text(yaml.safe_dump({**config, "server": server, "workers": [{"url": sim.url}]}))
        url = f"http://127.0.0.1:{port}"
        with Child("gateway", [sys.executable, "-P", "-m", "smgctl", "serve", "--config", str(file)], folder / "gateway.log") as child:
            await child.async_wait_healthy(f"{url}/readiness", READY_S)
            yield Served(url, f"http://127.0.0.1:{metrics_port}/metrics", sim, child)
