"""Which key opens what, on every route; and whom the control plane answers where no key opens it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
from typing import Any

import httpx
import pytest

from gateway.pipeline.endpoints import ENDPOINTS
from harness.sim import running
from tests.support.gateway_process import gateway_process
from tests.support.keys import bearer, key
from tests.support.outcomes import ask, body, client

UNKNOWN_WORKER = "/workers/00000000-0000-5000-8000-000000000000"
OPEN = (("GET", "/health"), ("GET", "/liveness"), ("GET", "/readiness"))
DATA = (("GET", "/v1/models"), ("GET", "/v1/models/sim-model"), *(("POST", endpoint.path) for endpoint in ENDPOINTS))
VIEW = (("GET", "/workers"), ("GET", UNKNOWN_WORKER), ("GET", "/config"), ("GET", "/status"), ("HEAD", "/workers"))
ADMIN = (
    ("POST", "/workers"),
    ("PUT", UNKNOWN_WORKER),
    ("PATCH", UNKNOWN_WORKER),
    ("DELETE", UNKNOWN_WORKER),
    ("POST", f"{UNKNOWN_WORKER}/drain"),
    ("PUT", "/config?dry_run=true"),
    ("POST", "/config/rollback"),
)


async def status(http: httpx.AsyncClient, url: str, method: str, path: str, headers: dict[str, str]) -> int:
    content = None if method in ("GET", "HEAD") else b"{}"
    answer = await http.request(method, url + path, content=content, headers={"content-type": "application/json", **headers})
    if answer.status_code in (401, 403) and method != "HEAD":
        code = {401: "unauthenticated", 403: "forbidden"}[answer.status_code]
        assert answer.headers["x-smg-error-code"] == code, (method, path, answer.text)
    return answer.status_code


@pytest.mark.parametrize("processes", [1, 2])
async def test_every_route_asks_for_its_role(tmp_path: pathlib.Path, processes: int) -> None:
    """None and a wrong key are 401 everywhere but at health; a key without the role is 403; one with it gets through."""
    keys = [key("data", "data"), key("view", "view"), key("admin", "admin"), key("both", "data", "view")]
    async with running() as engine:
        config = {"auth": {"keys": keys}, "workers": [{"url": engine.url}]}
        async with gateway_process(tmp_path, config, processes=processes) as gateway, client() as http:
            sent: dict[str, dict[str, str]] = {
                "nobody": {},
                "wrong": {"authorization": "Bearer key-of-dat"},
                "empty": {"authorization": "Bearer"},
                "basic": {"authorization": "Basic a2V5LW9mLWFkbWlu"},
                **{name: bearer(name) for name in ("data", "view", "admin", "both")},
                "data by x-api-key": {"x-api-key": "key-of-data"},
            }
            allowed = {
                OPEN: set(sent),
                DATA: {"data", "both", "data by x-api-key"},
                VIEW: {"view", "admin", "both"},
                ADMIN: {"admin"},
            }
            strangers = {"nobody", "wrong", "empty", "basic"}
            for routes, names in allowed.items():
                for method, path in routes:
                    for name, headers in sent.items():
                        got = await status(http, gateway.url, method, path, headers)
                        if name in names:
                            assert got not in (401, 403), (method, path, name, got)
                        else:
                            assert got == (401 if name in strangers else 403), (method, path, name, got)
            answered = engine.state().paths
            assert sum(answered.get(path, 0) for _, path in DATA if path.startswith("/v1/chat")) <= 3, "refusals reach no worker"


async def test_the_control_plane_is_closed_beyond_loopback(tmp_path: pathlib.Path) -> None:
    """On 0.0.0.0 without a key for it nobody may look at or change anything, from this machine either; inference goes on."""
    async with running() as engine:
        config: dict[str, Any] = {"server": {"host": "0.0.0.0"}, "workers": [{"url": engine.url}]}
        for name, auth, headers in (
            ("open", {}, {}),
            ("data-key", {"auth": {"keys": [key("data", "data")]}}, bearer("data")),
        ):
            async with gateway_process(tmp_path, {**config, **auth}, name=name) as gateway, client() as http:
                addresses = [gateway.url]
                with contextlib.suppress(OSError):
                    own = socket.gethostbyname(socket.gethostname())
                    addresses.append(gateway.url.replace("127.0.0.1", own))
                for url in addresses:
                    for method, path in (*VIEW, *ADMIN):
                        assert await status(http, url, method, path, headers) == 403, (url, method, path)
                    assert (await ask(http, url, body(), headers)).ok
        async with gateway_process(tmp_path, {**config, "auth": {"keys": [key("view", "view")]}}, name="key") as gateway, client() as http:
            assert await status(http, gateway.url, "GET", "/workers", bearer("view")) == 200
            assert await status(http, gateway.url, "POST", "/workers", bearer("view")) == 403


async def test_a_web_page_cannot_reach_an_open_control_plane(tmp_path: pathlib.Path) -> None:
    """On loopback without keys: other names in `host` (DNS rebinding) and bodies that a form can send are refused."""
    async with running() as engine, gateway_process(tmp_path, {"workers": [{"url": engine.url}]}) as gateway, client() as http:
        port = gateway.url.rpartition(":")[2]
        for host, expected in (
            (f"localhost:{port}", 200),
            (f"127.0.0.1:{port}", 200),
            (f"evil.example:{port}", 403),
            ("127.0.0.1.evil", 403),
        ):
            assert await status(http, gateway.url, "GET", "/workers", {"host": host}) == expected, host
        for sent in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            got = await status(http, gateway.url, "POST", "/workers", {"content-type": sent})
            assert got == 415, sent
        assert await status(http, gateway.url, "POST", "/config/rollback", {"content-type": "text/plain"}) == 415
        workers = (await http.get(f"{gateway.url}/workers")).json()
        assert workers["total"] == 1


async def test_keys_can_be_changed_while_it_runs(tmp_path: pathlib.Path) -> None:
    """A key that is taken out of the configuration is refused by every process with the next request, on open connections too."""
    async with running() as engine:
        config: dict[str, Any] = {"workers": [{"url": engine.url}], "auth": {"keys": [key("admin", "admin"), key("old", "data")]}}
        async with gateway_process(tmp_path, config, processes=2) as gateway:
            https = [client() for _ in range(8)]
            old = bearer("old")
            assert all([(await ask(http, gateway.url, body(), old)).ok for http in https])
            config["auth"] = {"keys": [key("admin", "admin"), key("new", "data")]}
            applied = await https[0].put(
                f"{gateway.url}/config",
                content=gateway.text(config),
                headers={"authorization": "Bearer key-of-admin", "content-type": "application/yaml"},
            )
            assert applied.status_code == 200, applied.text
            assert [(await ask(http, gateway.url, body(), old)).status for http in https] == [401] * 8
            new = bearer("new")
            assert all([(await ask(http, gateway.url, body(), new)).ok for http in https])
            await asyncio.gather(*(http.aclose() for http in https))
