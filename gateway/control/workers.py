"""`/workers`: see, add, replace, change, drain and remove workers; in all processes, with the shapes and codes of smg.

Changes are answered by 202 at once: a new worker is `pending` until it has answered, one that is removed drains first. API
keys of workers are taken and never shown.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.control.answers import WORKER_ALREADY_EXISTS, WORKER_NOT_FOUND, answer, refusal
from gateway.control.body import read_object, worker_of
from gateway.errors import ClientError, Code, GatewayError
from gateway.processes.port import LeaderPort
from gateway.workers.state import Status, WorkerState


class Workers:
    """The handlers of `/workers`. Each raises `GatewayError`, or returns an answer."""

    def __init__(self, port: LeaderPort, load_of: Callable[[int], int], breaker_of: Callable[[str], str | None]) -> None:
        self._port = port
        self._load_of = load_of
        self._breaker_of = breaker_of

    async def list(self, request: Request) -> Response:
        """`GET /workers`, all or those of `?model=`."""
        model = request.query_params.get("model")
        states = await self._port.workers()
        if model is not None:
            states = [state for state in states if any(one.name == model for one in state.models)]
        workers = [self._shown(state) for state in states]
        stats = {
            "regular_count": len(workers),
            "prefill_count": 0,
            "decode_count": 0,
            "healthy_count": sum(1 for worker in workers if worker["is_healthy"]),
            "load": sum(worker["load"] for worker in workers),
            "by_status": Counter(str(state.status) for state in states),
        }
        return answer({"workers": workers, "total": len(workers), "stats": stats})

    async def add(self, request: Request) -> Response:
        """`POST /workers`."""
        spec = worker_of(await read_object(request))
        try:
            state = await self._port.add_worker(spec)
        except GatewayError as error:
            if error.code is Code.CONFLICT:
                return refusal(error, WORKER_ALREADY_EXISTS)
            raise
        return _accepted(state, "added; it gets requests once it has answered")

    async def show(self, request: Request) -> Response:
        """`GET /workers/{id}`."""
        return await self._of(request, self._port.worker, lambda state: answer(self._shown(state)))

    async def replace(self, request: Request) -> Response:
        """`PUT /workers/{id}`: what the body does not say gets its default, but for the URL."""
        fields = await read_object(request)

        async def replaced(worker_id: str) -> WorkerState:
            if "url" not in fields:
                fields["url"] = (await self._port.worker(worker_id)).url
            return await self._port.replace_worker(worker_id, worker_of(fields))

        return await self._of(request, replaced, lambda state: _accepted(state, "replaced"))

    async def patch(self, request: Request) -> Response:
        """`PATCH /workers/{id}`."""
        fields = await read_object(request)
        return await self._of(
            request, lambda worker_id: self._port.patch_worker(worker_id, fields), lambda state: _accepted(state, "changed")
        )

    async def drain(self, request: Request) -> Response:
        """`POST /workers/{id}/drain`."""
        await read_object(request)
        return await self._of(
            request, self._port.drain_worker, lambda state: _accepted(state, "drains; it gets no new requests and stays in the list")
        )

    async def remove(self, request: Request) -> Response:
        """`DELETE /workers/{id}`."""
        return await self._of(
            request, self._port.remove_worker, lambda state: _accepted(state, "drains; it leaves when its requests have ended")
        )

    async def _of(self, request: Request, ask: Callable[[str], Any], shown: Callable[[WorkerState], Response]) -> Response:
        """Ask for one worker, and say it in the API's words if there is none."""
        worker_id = request.path_params["worker_id"]
        try:
            worker_id = str(uuid.UUID(worker_id))
        except ValueError:
            raise ClientError(Code.INVALID_REQUEST, "the id of a worker is a uuid, see GET /workers", param="worker_id") from None
        try:
            return shown(await ask(worker_id))
        except GatewayError as error:
            if error.code is Code.NOT_FOUND:
                return refusal(error, WORKER_NOT_FOUND)
            raise

    def _shown(self, state: WorkerState) -> dict[str, Any]:
        return {
            "id": state.id,
            "url": state.url,
            "model_id": state.models[0].name if state.models else None,
            "models": state.models,
            "worker_type": "regular",
            "connection_mode": "grpc" if state.url.startswith("grpc:") else "http",
            "runtime_type": state.engine,
            "engine": state.engine,
            "version": state.version,
            "priority": state.priority,
            "cost": state.cost,
            "labels": state.labels,
            "has_api_key": state.api_key is not None,
            "verify_tls": state.verify_tls,
            "max_connections": state.max_connections,
            "ask_usage": state.ask_usage,
            "status": state.status,
            "is_healthy": state.status is Status.READY,
            "reason": state.reason,
            "since_s": state.since_s,
            "load": self._load_of(state.slot),
            "breaker": self._breaker_of(state.id),
            "source": state.source,
            "job_status": None,
        }


def _accepted(state: WorkerState, message: str) -> Response:
    location = f"/workers/{state.id}"
    body = {"status": "accepted", "worker_id": state.id, "url": state.url, "location": location, "message": message}
    return answer(body, 202, {"location": location})
