"""The real Prometheus and promtool, where they are installed (Debian's package `prometheus`)."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "docs" / "observability"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: that Prometheus accepts our files is not shown"
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed: that it scrapes the metrics port is not shown"
)


def promtool(*arguments: str, text: bytes | None = None) -> tuple[int, str]:
    """Run promtool; return its exit code and all that it said."""
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


class Prometheus:
    """A running Prometheus."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query; one that Prometheus refuses fails."""
        answer = await self._client.get("/api/v1/query", params={"query": expression})
        body = answer.json()
        assert body["status"] == "success", f"{expression}: {body}"
        return body["data"]["result"] if body["data"]["resultType"] == "vector" else [body["data"]["result"]]

    async def until(self, expression: str, within_s: float = 30.0) -> list[dict[str, Any]]:
        """Ask until there is a result."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            with contextlib.suppress(httpx.TransportError):
                if result := await self.query(expression):
                    return result
            await asyncio.sleep(0.1)
        raise AssertionError(f"no result within {within_s} s: {expression}")

    async def get(self, path: str) -> Any:
        """Return the data of another API route."""
        return (await self._client.get(path)).json()["data"]


@contextlib.asynccontextmanager
async def running_prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Run Prometheus with our rules on a target, scraped five times a second."""
    config = folder / "prometheus.yaml"
    config.write_text(
        f"global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 1s}}\n"
        f"rule_files: [{ASSETS / 'alerts.yaml'}]\n"
        f"scrape_configs: [{{job_name: smg, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=10.0, trust_env=False) as client:
            yield Prometheus(client)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20.0)
