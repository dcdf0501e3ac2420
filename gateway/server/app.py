"""The ASGI side of the data plane: health, models, and the errors of paths that nobody serves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.admission.keyring import Identity
from gateway.config.model import Role
from gateway.errors import ClientError, Code, GatewayError
from gateway.pipeline.endpoints import ENDPOINTS
from gateway.protocol.dialect import Dialect
from gateway.protocol.error_body import error_body
from gateway.protocol.request_id import new_request_id
from gateway.runtime import Runtime
from gateway.server.models import model_list, model_object

_DIALECTS = {endpoint.path: endpoint.dialect for endpoint in ENDPOINTS}


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def error_response(error: GatewayError, dialect: Dialect | None = None) -> Response:
    """An error of the gateway as an answer."""
    request_id = new_request_id()
    headers = {"x-request-id": request_id.decode(), "x-smg-error-code": str(error.code)}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return Response(error_body(dialect, error, request_id), error.status, headers, media_type="application/json")


def data_plane(rt: Runtime, more: Sequence[BaseRoute] = ()) -> Starlette:
    """Make the ASGI application: the routes here, and the control plane's in `more`."""

    async def liveness(request: Request) -> Response:
        return json_response({"status": "ok"})

    async def readiness(request: Request) -> Response:
        workers = rt.registry.workers.values()
        ready = sum(1 for worker in workers if worker.ready)
        if rt.draining:
            return json_response({"status": "not ready", "reason": "draining"}, 503)
        if not ready:
            return json_response({"status": "not ready", "reason": "no worker is ready", "total_workers": len(workers)}, 503)
        return json_response({"status": "ready", "healthy_workers": ready, "total_workers": len(workers)})

    async def models(request: Request) -> Response:
        refused = _may_read_models(request, rt)
        return refused if refused is not None else json_response(model_list(rt.router, rt.started_unix_s))

    async def model(request: Request) -> Response:
        refused = _may_read_models(request, rt)
        if refused is not None:
            return refused
        name = request.path_params["name"]
        for listed in rt.router.listed():
            if listed.name == name:
                return json_response(model_object(listed, rt.started_unix_s))
        return error_response(ClientError(Code.MODEL_NOT_FOUND, "this model is not served here, see /v1/models", param="model"))

    async def wrong_method(request: Request) -> Response:
        response = error_response(ClientError(Code.METHOD_NOT_ALLOWED, "use POST here"), _DIALECTS.get(request.url.path))
        response.headers["allow"] = "POST"
        return response

    async def not_found(request: Request, exc: Exception) -> Response:
        code = exc.status_code if isinstance(exc, HTTPException) else 404
        if code == 405:
            response = error_response(ClientError(Code.METHOD_NOT_ALLOWED, "this path does not take that method"))
            if isinstance(exc, HTTPException) and exc.headers:
                response.headers.update(exc.headers)
            return response
        return error_response(ClientError(Code.NOT_FOUND, "this path is not served here"))

    async def broken(request: Request, exc: Exception) -> Response:
        return error_response(GatewayError(Code.INTERNAL, "the gateway failed, see its log"))

    every = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(
        routes=[
            Route("/health", liveness),
            Route("/liveness", liveness),
            Route("/readiness", readiness),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            *(Route(endpoint.path, wrong_method, methods=every) for endpoint in ENDPOINTS),
            *more,
        ],
        exception_handlers={404: not_found, 405: not_found, 500: broken},
    )


def bearer_of(request: Request) -> bytes | None:
    """The client's credential: a bearer token, or Anthropic's `x-api-key`."""
    given = request.headers.get("authorization", "")
    if given[:7].lower() == "bearer ":
        return given[7:].strip().encode("latin-1")
    key = request.headers.get("x-api-key")
    return key.encode("latin-1") if key is not None else None


def _may_read_models(request: Request, rt: Runtime) -> Response | None:
    identity = rt.keyring.identify(bearer_of(request), None)
    if not isinstance(identity, Identity):
        return error_response(identity)
    if Role.DATA not in identity.roles:
        return error_response(ClientError(Code.FORBIDDEN, "this api key may not be used for inference"))
    return None
