"""Every call to a gateway as a value: what is sent, and how the answer is read. No I/O: both clients run these."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from gateway.sdk.errors import SmgApiError
from gateway.sdk.values import Accepted, ApplyResult, ConfigView, GatewayStatus, Health, Worker, WorkerList

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:30000"
YAML = "application/yaml"
MAX_ANSWER_BYTES = 64 << 20
"""Largest answer that is read: a gateway with thousands of workers answers a few MiB."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and what becomes of its answer."""

    method: str
    path: str
    read: Callable[[int, bytes], T]
    """Turns status and body into the result; raises `ValueError` where the body is something else."""
    params: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    content_type: str = "application/json"
    also_ok: frozenset[int] = frozenset()
    """Statuses beyond 2xx that are an answer and no error."""
    slow: bool = False
    """An engine works on it: it has the inference timeout."""

    def body(self) -> bytes | None:
        """Return the bytes to send."""
        return self.content if self.content is not None else None if self.json is None else msgspec.json.encode(self.json)


def list_workers(model: str | None = None) -> Call[WorkerList]:
    """`GET /workers`."""
    return Call("GET", "/workers", _reader(WorkerList), params={} if model is None else {"model": model})


def get_worker(worker_id: str) -> Call[Worker]:
    """`GET /workers/{id}`."""
    return Call("GET", _worker(worker_id), _reader(Worker))


def add_worker(spec: Mapping[str, Any]) -> Call[Accepted]:
    """`POST /workers`."""
    return Call("POST", "/workers", _accepted, json=dict(spec))


def replace_worker(worker_id: str, spec: Mapping[str, Any]) -> Call[Accepted]:
    """`PUT /workers/{id}`."""
    return Call("PUT", _worker(worker_id), _accepted, json=dict(spec))


def patch_worker(worker_id: str, patch: Mapping[str, Any]) -> Call[Accepted]:
    """`PATCH /workers/{id}`."""
    return Call("PATCH", _worker(worker_id), _accepted, json=dict(patch))


def drain_worker(worker_id: str) -> Call[Accepted]:
    """`POST /workers/{id}/drain`."""
    return Call("POST", f"{_worker(worker_id)}/drain", _accepted, json={})


def remove_worker(worker_id: str) -> Call[Accepted]:
    """`DELETE /workers/{id}`."""
    return Call("DELETE", _worker(worker_id), _accepted)


def show_config() -> Call[ConfigView]:
    """`GET /config`."""
    return Call("GET", "/config", _reader(ConfigView))


def apply_config(text: str, *, dry_run: bool) -> Call[ApplyResult]:
    """`PUT /config` with a YAML body."""
    params = {"dry_run": "true" if dry_run else "false"}
    return Call("PUT", "/config", _reader(ApplyResult), params=params, content=text.encode(), content_type=YAML)


def rollback_config() -> Call[ApplyResult]:
    """`POST /config/rollback`."""
    return Call("POST", "/config/rollback", _reader(ApplyResult), json={})


def status() -> Call[GatewayStatus]:
    """`GET /status`."""
    return Call("GET", "/status", _reader(GatewayStatus))


def health(path: str) -> Call[Health]:
    """`GET /health`, `/readiness` or `/liveness`: 503 is an answer too."""
    return Call("GET", path, _health, also_ok=frozenset({503}))


def models() -> Call[list[dict[str, Any]]]:
    """`GET /v1/models`."""
    return Call("GET", "/v1/models", _models)


def inference(path: str, body: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """`POST` a request that an engine answers whole."""
    return Call("POST", path, _reader(dict[str, Any]), json={**body, "stream": False} if body.get("stream") else dict(body), slow=True)


def stream(path: str, body: Mapping[str, Any]) -> Call[None]:
    """`POST` a request that an engine answers in events."""
    return Call("POST", path, lambda status, body: None, json={**body, "stream": True}, slow=True)


def matches(worker: Worker, reference: str) -> bool:
    """Tell whether a person who wrote `reference` means this worker: its id, its URL, or its URL without the scheme."""
    plain = reference.rstrip("/")
    url = worker.url.rstrip("/")
    return plain in (worker.id, url, url.partition("://")[2])


def not_found(reference: str) -> SmgApiError:
    """Make the error for a worker that is not in the list."""
    return SmgApiError(404, "worker_not_found", f"no worker has the id or url {reference}")


def is_loopback(url: str) -> bool:
    """Tell whether a gateway's URL stays on this machine, so that no proxy of the environment stands between."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _worker(worker_id: str) -> str:
    return f"/workers/{quote(worker_id, safe='')}"


def _reader(kind: type[T]) -> Callable[[int, bytes], T]:
    decoder = msgspec.json.Decoder(kind)
    return lambda status, body: decoder.decode(body)


def _accepted(status: int, body: bytes) -> Accepted:
    value = msgspec.json.decode(body) if body else {}
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if "worker_id" not in value and "id" in value:
        value["worker_id"] = value["id"]
    return msgspec.convert(value, Accepted)


def _health(status: int, body: bytes) -> Health:
    try:
        value = msgspec.json.decode(body)
    except ValueError:
        value = None
    return Health(ok=status == 200, detail=value if isinstance(value, dict) else {})


def _models(status: int, body: bytes) -> list[dict[str, Any]]:
    class Models(msgspec.Struct):
        data: list[dict[str, Any]]

    return msgspec.json.decode(body, type=Models).data
