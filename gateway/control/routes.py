"""The routes of the control plane, each behind the guard: `view` to read, `admin` to change."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.config.model import Role
from gateway.control.answers import refusal
from gateway.control.config import Configuration
from gateway.control.guard import Guard
from gateway.control.workers import Workers
from gateway.errors import GatewayError
from gateway.processes.port import LeaderPort

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


def routes(
    port: LeaderPort,
    guard: Guard,
    *,
    load_of: Callable[[int], int],
    breaker_of: Callable[[str], str | None],
) -> list[Route]:
    """Make the routes of the control plane.

    Args:
        port: who answers.
        guard: who may ask.
        load_of: slot of a worker -> requests in flight on it, over all processes.
        breaker_of: id of a worker -> state of its breaker in this process.
    """
    workers = Workers(port, load_of, breaker_of)
    config = Configuration(port)
    view, admin = Role.VIEW, Role.ADMIN
    return [
        _route("/workers", guard, GET=(view, workers.list), POST=(admin, workers.add)),
        _route(
            "/workers/{worker_id}",
            guard,
            GET=(view, workers.show),
            PUT=(admin, workers.replace),
            PATCH=(admin, workers.patch),
            DELETE=(admin, workers.remove),
        ),
        _route("/workers/{worker_id}/drain", guard, POST=(admin, workers.drain)),
        _route("/config", guard, GET=(view, config.show), PUT=(admin, config.apply)),
        _route("/config/rollback", guard, POST=(admin, config.rollback)),
        _route("/status", guard, GET=(view, config.status)),
    ]


def _route(path: str, guard: Guard, **methods: tuple[Role, Handler]) -> Route:
    async def endpoint(request: Request) -> Response:
        role, handler = methods["GET" if request.method == "HEAD" else request.method]
        refused = guard(request, role)
        if refused is not None:
            answer = refusal(refused)
        else:
            try:
                answer = await handler(request)
            except GatewayError as error:
                answer = refusal(error)
        if role is Role.ADMIN:
            client = request.client.host if request.client is not None else "unknown"
            log.info("%s %r from %s: %d", request.method, request.url.path, client, answer.status_code)
        return answer

    return Route(path, endpoint, methods=list(methods))
