"""The routes that no worker answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import Code, GatewayError
from gateway.server.app import data_plane, error_response
from gateway.workers.state import Status
from tests.support.exchange import Rig, state


async def _fails(request: Request) -> Response:
    raise RuntimeError("a secret")


def client_of(rig: Rig) -> httpx.AsyncClient:
    app = data_plane(rig.rt, [Route("/more", _fails), Route("/get-only", _fails, methods=["GET"])])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with Rig(2) as one:
        yield one


async def test_health(rig: Rig) -> None:
    """Liveness says ok while the process lives; readiness wants a ready worker, and ends with the drain."""
    async with client_of(rig) as client:
        for path in ("/health", "/liveness"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        answer = await client.get("/readiness")
        assert (answer.status_code, answer.json()) == (200, {"status": "ready", "healthy_workers": 2, "total_workers": 2})
        rig.tell([state(0, status=Status.NOT_READY)])
        answer = await client.get("/readiness")
        assert (answer.status_code, answer.json()["reason"]) == (503, "no worker is ready")
        rig.tell([state(0)])
        rig.rt.draining = True
        answer = await client.get("/readiness")
        assert (answer.status_code, answer.json()["reason"]) == (503, "draining")
        assert (await client.get("/liveness")).status_code == 200


async def test_models(rig: Rig) -> None:
    """The list and each model; a name may hold slashes; an unknown one is 404."""
    rig.tell([state(0, models=("org/m",))])
    async with client_of(rig) as client:
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["org/m"]
        assert (await client.get("/v1/models/org/m")).json()["id"] == "org/m"
        answer = await client.get("/v1/models/other")
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found" == answer.headers["x-smg-error-code"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m"])
async def test_models_need_a_key_where_there_are_keys(path: str) -> None:
    """Bearer token or `x-api-key`, with the data role."""
    keys = [
        {"id": "data", "sha256": sha256(b"d").hexdigest()},
        {"id": "admin", "sha256": sha256(b"a").hexdigest(), "roles": ["admin"]},
    ]
    with Rig(1, {"auth": {"keys": keys}}) as rig:
        async with client_of(rig) as client:
            cases: list[tuple[dict[str, str], int]] = [
                ({}, 401), ({"authorization": "Bearer x"}, 401), ({"authorization": "Basic d"}, 401), ({"authorization": "bearer d"}, 200),
                ({"x-api-key": "d"}, 200), ({"authorization": "Bearer a"}, 403),
            ]  # fmt: skip
            for headers, status in cases:
                assert (await client.get(path, headers=headers)).status_code == status, headers
            assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
async def test_hot_paths_take_post_alone(rig: Rig, method: str) -> None:
    """Any other method is 405 with `Allow`, in the dialect of the path."""
    async with client_of(rig) as client:
        answer = await client.request(method, "/v1/messages")
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"
        if method != "HEAD":
            assert answer.json()["type"] == "error"
        answer = await client.request(method, "/v1/chat/completions")
        assert answer.status_code == 405 and answer.headers["x-smg-error-code"] == "method_not_allowed"


async def test_unknown_paths_and_methods(rig: Rig) -> None:
    """404 and 405 are the gateway's own errors, with a request id."""
    async with client_of(rig) as client:
        answer = await client.get("/nothing")
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
        assert answer.headers["x-request-id"].startswith("req-")
        answer = await client.post("/get-only")
        assert answer.status_code == 405 and answer.json()["error"]["code"] == "method_not_allowed" and "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/v1/messages/batches", {}, 404),
        ("TRACE", "/v1/messages", {}, 405),
        ("GET", "/v1/models/other", {"anthropic-version": "2023-06-01"}, 404),
        ("GET", "/nothing", {"anthropic-version": "2023-06-01"}, 404),
    ],
)
async def test_errors_speak_the_clients_dialect(rig: Rig, method: str, path: str, headers: dict[str, str], status: int) -> None:
    """Anthropic's shape where its paths or its version header are used, with the client's own request id."""
    async with client_of(rig) as client:
        answer = await client.request(method, path, headers={**headers, "x-request-id": "mine"})
        assert answer.status_code == status and answer.json()["type"] == "error" and answer.json()["request_id"] == "mine"
        assert answer.headers["x-request-id"] == "mine"
        answer = await client.get("/nothing", headers={"x-request-id": "not mine"})
        assert answer.headers["x-request-id"].startswith("req-") and answer.json()["error"]["code"] == "not_found"


async def test_a_failing_route_tells_nothing(rig: Rig) -> None:
    """A defect is 500 and keeps its words for the log."""
    async with client_of(rig) as client:
        answer = await client.get("/more")
        assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal" and "secret" not in answer.text


@pytest.mark.parametrize(("after_s", "expected"), [(None, None), (0.1, "1"), (1.2, "2"), (3.0, "3")])
def test_retry_after_is_rounded_up(after_s: float | None, expected: Any) -> None:
    """A client that comes back when told to must not come too early."""
    response = error_response(GatewayError(Code.OVERLOADED, "x", retry_after_s=after_s))
    assert response.headers.get("retry-after") == expected
