"""One gateway before an engine of every simulated flavour, all of them processes: what client libraries are tried against."""

from __future__ import annotations

import base64
import contextlib
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from harness.sim import FLAVOURS
from tests.support.processes import Started, engines, gateway
from tests.support.served import free_ports

_POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/generate")
MESSAGES_FLAVOURS = ("vllm", "sglang")
"""Those that speak Anthropic's dialect, and embeddings."""
ABSENT = "sim-absent"
"""A model whose only worker never answers."""


def model_of(flavour: str) -> str:
    """The model that the engine of a flavour serves."""
    return f"sim-{flavour}"


class Engine:
    """A simulated engine, as far as a test steers and reads it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/_sim", trust_env=False, timeout=10)

    def fault(self, **fault: Any) -> None:
        """Arm a fault."""
        self._client.post("/faults", json=fault).raise_for_status()

    def clear(self) -> None:
        """Disarm all faults."""
        self._client.delete("/faults").raise_for_status()

    def state(self) -> dict[str, Any]:
        """Its ledger."""
        found: dict[str, Any] = self._client.get("/state").json()
        return found

    def last(self, path: str) -> dict[str, Any]:
        """The last request of a path."""
        found: list[dict[str, Any]] = self.state()["last"]
        return [one for one in found if one["target"] == path][-1]

    def last_body(self, path: str) -> bytes:
        """Its body as it arrived."""
        return base64.b64decode(self.last(path)["body"])

    def posts(self) -> int:
        """Requests for an answer of a model that it has received."""
        return sum(count for path, count in self.state()["paths"].items() if path in _POSTS)

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True, slots=True)
class Flavours:
    """A running gateway and the engines behind it, by flavour."""

    folder: pathlib.Path
    gateway: Started
    metrics_url: str
    engines: dict[str, Engine]

    @property
    def url(self) -> str:
        return self.gateway.url


@contextlib.contextmanager
def flavours(folder: pathlib.Path) -> Iterator[Flavours]:
    """Start an engine of every flavour and a gateway that asks a second time at most, without breakers; stop them at the end."""
    metrics_port, nobody = free_ports(2)
    with contextlib.ExitStack() as stack:
        urls: dict[str, str] = {}
        for flavour in FLAVOURS:
            names = ("--model", model_of(flavour), "--alias", f"lab/{model_of(flavour)}")
            started = engines(folder / flavour, 1, "--flavour", flavour, *names, "--output-tokens", "12")
            urls[flavour] = stack.enter_context(started).url
        config = {
            "workers": [*({"url": url} for url in urls.values()), {"url": f"http://127.0.0.1:{nobody}", "models": [ABSENT]}],
            "retry": {"max_attempts": 2, "initial_backoff_s": 0},
            "breaker": {"enabled": False},
        }
        file = folder / "smg.yaml"
        file.write_text(yaml.safe_dump(config), "utf-8")
        started = stack.enter_context(gateway(folder, "--config", str(file), metrics_port=metrics_port))
        wanted = {model_of(flavour) for flavour in FLAVOURS}
        with httpx.Client(base_url=started.url, trust_env=False, timeout=10) as client:
            while not wanted <= {model["id"] for model in client.get("/v1/models").json()["data"]}:
                assert started.child.running, started.child.tail()
        found = {flavour: stack.enter_context(contextlib.closing(Engine(url))) for flavour, url in urls.items()}
        yield Flavours(folder, started, f"http://127.0.0.1:{metrics_port}/metrics", found)
