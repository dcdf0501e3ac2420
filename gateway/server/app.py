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
from gateway.pipeline.endpoints import ENDPOINTS, dialect_of
from gateway.protocol.dialect import Dialect
from gateway.protocol.error_body import error_body
from gateway.protocol.request_id import request_id
from gateway.runtime import Runtime
from gateway.server.models import model_list, model_object


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def error_response(error: GatewayError, dialect: Dialect | None = None, given_id: bytes | None = None) -> Response:
    """An error of the gateway as an answer."""
    id_ = request_id(dialect, given_id)
    headers = {"x-request-id": id_.decode(), "x-smg-error-code": str(error.code)}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return Response(error_body(dialect, error, id_), error.status, headers, media_type="application/json")


def data_plane(rt: Runtime, more: Sequence[BaseRoute] = ()) -> Starlette:
    """Make the ASGI application: the routes here, and the control plane's in `more`."""

    def refusal(request: Request, error: GatewayError) -> Response:
        """An error in the client's dialect, with the client's id."""
        dialect = dialect_of(request.url.path.encode())
        if dialect is None and "anthropic-version" in request.headers:
            dialect = Dialect.MESSAGES
        given = next((request.headers[name] for name in rt.config.server.request_id_headers if name in request.headers), None)
        return error_response(error, dialect, given.encode("latin-1") if given is not None else None)

    def may_read_models(request: Request) -> GatewayError | None:
        identity = rt.keyring.identify(bearer_of(request), None)
        if not isinstance(identity, Identity):
            return identity
        if Role.DATA not in identity.roles:
            return ClientError(Code.FORBIDDEN, "this api key may not be used for inference")
        return None

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
        refused = may_read_models(request)
        return refusal(request, refused) if refused is not None else json_response(model_list(rt.router, rt.started_unix_s))

    async def model(request: Request) -> Response:
        refused = may_read_models(request)
        if refused is not None:
            return refusal(request, refused)
        name = request.path_params["name"]
        for listed in rt.router.listed():
            if listed.name == name:
                return json_response(model_object(listed, rt.started_unix_s))
        return refusal(request, ClientError(Code.MODEL_NOT_FOUND, "this model is not served here, see /v1/models", param="model"))

    async def wrong_method(request: Request) -> Response:
        response = refusal(request, ClientError(Code.METHOD_NOT_ALLOWED, "use POST here"))
        response.headers["allow"] = "POST"
        return response

    async def not_found(request: Request, exc: Exception) -> Response:
        code = exc.status_code if isinstance(exc, HTTPException) else 404
        if code == 405:
            response = refusal(request, ClientError(Code.METHOD_NOT_ALLOWED, "this path does not take that method"))
            if isinstance(exc, HTTPException) and exc.headers:
                response.headers.update(exc.headers)
            return response
        return refusal(request, ClientError(Code.NOT_FOUND, "this path is not served here"))

    async def broken(request: Request, exc: Exception) -> Response:
        return refusal(request, GatewayError(Code.INTERNAL, "the gateway failed, see its log"))

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
