"""A control plane in memory that answers as the gateway's does, for tests of its clients without a socket.

It keeps workers and versions of the configuration, loads and compares configurations with the gateway's own code, and
remembers what it was asked. `transport()` makes it the far side of an httpx client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.config.compare import compare
from gateway.config.load import ConfigSource
from gateway.config.mask import masked
from gateway.config.model import GatewayConfig
from gateway.errors import ConfigError


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ControlPlane:
    """The state of the gateway, and every request that it got."""

    api_key: str | None = None
    workers: list[dict[str, Any]] = field(default_factory=list)
    versions: list[GatewayConfig] = field(default_factory=lambda: [GatewayConfig()])
    asked: list[Asked] = field(default_factory=list)
    after_each: Any = None
    """Called after every request, so that workers can move on while a client waits."""

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def add(self, url: str, **more: Any) -> dict[str, Any]:
        """Put a worker in, ready unless told otherwise."""
        worker = {
            "id": f"w{len(self.workers) + 1}",
            "url": url,
            "status": "ready",
            "engine": "vllm",
            "version": "0.32.0",
            "models": [{"name": "m", "context_length": 8192}],
            "priority": 50,
            "cost": 1.0,
            "labels": {},
            "load": 0,
            "breaker": "closed",
            "source": "config",
            "reason": "",
            "is_healthy": True,
            "added_by_a_newer_gateway": 1,
            **more,
        }
        self.workers.append(worker)
        return worker

    def _answer(self, request: httpx.Request) -> httpx.Response:
        asked = Asked(request.method, request.url.path, dict(request.url.params), dict(request.headers), request.read())
        self.asked.append(asked)
        try:
            status, value = self._route(asked)
        finally:
            if self.after_each is not None:
                self.after_each()
        return httpx.Response(status, json=value)

    def _route(self, asked: Asked) -> tuple[int, Any]:
        if self.api_key is not None and asked.headers.get("authorization") != f"Bearer {self.api_key}":
            return _error(401, "unauthenticated", "give a key with the role view or admin")
        match asked.method, asked.path.strip("/").split("/"):
            case "GET", ["workers"]:
                wanted = asked.params.get("model")
                found = [w for w in self.workers if wanted is None or wanted in [model["name"] for model in w["models"]]]
                return 200, {"workers": found, "total": len(found), "stats": {"ready": len(found)}}
            case "POST", ["workers"]:
                return self._add(asked.json)
            case method, ["workers", worker_id, *rest]:
                return self._worker(method, worker_id, rest, asked)
            case "GET", ["config"]:
                return 200, {"version": len(self.versions), "source": "start", "applied_s": 0, "config": masked(self.versions[-1])}
            case "PUT", ["config"]:
                return self._apply(asked)
            case "POST", ["config", "rollback"]:
                if len(self.versions) == 1:
                    return _error(409, "conflict", "there is no version before 1 to go back to")
                return self._change(self.versions[-2])
            case "GET", ["status"]:
                return 200, {
                    "state": "serving",
                    "started_s": 1_700_000_000.0,
                    "config_version": len(self.versions),
                    "config_source": "start",
                    "workers": {"ready": len(self.workers), "failed": 0},
                    "processes": [
                        {"index": -1, "pid": 100, "state": "ready", "restarts": 0, "since_s": 1_700_000_000.0, "version": 1},
                        {"index": 0, "pid": 101, "state": "restarting", "restarts": 2, "since_s": 0, "version": 1, "reason": "killed"},
                    ],
                }
            case "GET", ["readiness"]:
                ready = any(worker["status"] == "ready" for worker in self.workers)
                return (200, {"status": "ready"}) if ready else (503, {"status": "not ready", "reason": "no healthy workers"})
            case "GET", ["health"]:
                return 200, {"status": "ok"}
            case "GET", ["v1", "models"]:
                return 200, {"object": "list", "data": [{"id": "m", "object": "model"}]}
        return _error(404, "not_found", f"there is no route {asked.path}")

    def _add(self, spec: dict[str, Any]) -> tuple[int, Any]:
        if any(worker["url"] == spec["url"] for worker in self.workers):
            return _error(409, "WORKER_ALREADY_EXISTS", f"the worker {spec['url']} exists already")
        added = self.add(spec["url"], status="pending", is_healthy=False, source="api")
        added.update({key: spec[key] for key in ("priority", "cost", "labels") if key in spec})
        location = f"/workers/{added['id']}"
        return 202, {"status": "accepted", "worker_id": added["id"], "url": added["url"], "location": location, "message": "added"}

    def _worker(self, method: str, worker_id: str, rest: list[str], asked: Asked) -> tuple[int, Any]:
        worker = next((worker for worker in self.workers if worker["id"] == worker_id), None)
        if worker is None:
            return _error(404, "WORKER_NOT_FOUND", f"there is no worker {worker_id}")
        match method, rest:
            case "GET", []:
                return 200, worker
            case (("PUT" | "PATCH"), []):
                worker.update({key: value for key, value in asked.json.items() if key != "url"})
                return 202, {"status": "accepted", "worker_id": worker_id, "url": worker["url"]}
            case ("POST", ["drain"]) | ("DELETE", []):
                worker.update(status="draining", is_healthy=False)
                return 202, {"status": "accepted", "worker_id": worker_id, "url": worker["url"]}
        return _error(405, "method_not_allowed", f"{method} is not for {asked.path}")

    def _apply(self, asked: Asked) -> tuple[int, Any]:
        try:
            config = ConfigSource().load_text(asked.body.decode())
        except ConfigError as error:
            status, value = _error(400, "config_invalid", error.message)
            value["error"]["problems"] = list(error.problems)
            return status, value
        if asked.params["dry_run"] == "true":
            changes = _changes(self.versions[-1], config)
            return 200, {"version": len(self.versions), "applied": False, "changes": changes}
        return self._change(config)

    def _change(self, config: GatewayConfig) -> tuple[int, Any]:
        changes = _changes(self.versions[-1], config)
        if changes:
            self.versions.append(config)
        return 200, {"version": len(self.versions), "applied": bool(changes), "changes": changes}


def _changes(before: GatewayConfig, after: GatewayConfig) -> list[dict[str, Any]]:
    return [{"path": change.path, "before": change.before, "after": change.after} for change in compare(before, after)]


def _error(status: int, code: str, message: str) -> tuple[int, Any]:
    return status, {"error": {"type": "error", "code": code, "message": message, "param": None}}
