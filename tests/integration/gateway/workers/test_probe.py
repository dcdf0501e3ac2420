"""Probes of servers that are odd, broken, closed or slow."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.model import Engine, HealthConfig, WorkerConfig
from gateway.workers import probe
from tests.support import wire
from tests.support.fleet import Script, listing, scripted, whole

HEALTH = HealthConfig(timeout_s=0.3)


async def joined(server: Script, **spec: Any) -> probe.Outcome:
    return await probe.join(WorkerConfig(url=server.url, **spec), HEALTH)


@pytest.mark.parametrize("folder", ["vllm-0.32-http", "sglang-0.5.23-http", "llamacpp-http"])
async def test_recorded_engines(folder: str) -> None:
    """The recorded answers of each real engine, header and all, make it that engine and ready."""
    names = {"/v1/models": "models", "/health": "health", "/version": "version", "/load": "load", "/v1/loads": "loads"}
    async with scripted() as server:
        for path, name in names.items():
            if (wire.FOLDER / folder / f"{name}.txt").exists():
                recording = wire.load(folder, name)
                headers = [f"{key}: {value}" for key, value in recording.headers if key.lower() == "server"]
                server.answers[path] = whole(recording.status, recording.body, *headers)
        outcome = await joined(server)
    assert outcome.ok, outcome.reason
    assert outcome.found is not None
    engine, version, cheap = {
        "vllm-0.32-http": (Engine.VLLM, "0.32.0", "/health"),
        "sglang-0.5.23-http": (Engine.SGLANG, "0.5.23", "/v1/loads"),
        "llamacpp-http": (Engine.LLAMACPP, "", "/health"),
    }[folder]
    assert (outcome.found.engine, outcome.found.version, outcome.found.cheap_path) == (engine, version, cheap)
    assert [(model.name, model.context_length) for model in outcome.found.models] == [("tiny-chat", 2048)]


async def test_a_server_that_answers_models_alone() -> None:
    """Any server with `/v1/models` is an OpenAI-compatible one, and its health is that route."""
    async with scripted(models=listing("m")) as server:
        outcome = await joined(server)
        assert outcome.ok
        assert outcome.found is not None
        assert (outcome.found.engine, outcome.found.full_path) == (Engine.OPENAI, "/v1/models")
        assert server.paths() == {"/v1/models": 1, "/health": 1}


async def test_a_server_whose_models_fail() -> None:
    """transformers serve answers 500 to `/v1/models`: it serves any name, or those that the configuration gives."""
    async with scripted(models=(500, {}), health=(200, {"status": "ok"})) as server:
        outcome = await joined(server)
        assert outcome.ok
        assert outcome.found is not None
        assert outcome.found.models == ()
        named = await joined(server, models=("a", "b"))
        assert named.found is not None
        assert [model.name for model in named.found.models] == ["a", "b"]


async def test_a_server_without_any_known_route_needs_configured_models() -> None:
    """A proxy that has chat alone is there if it answers; without configured models it cannot be told from a wrong URL."""
    async with scripted() as server:
        assert not (await joined(server)).ok
        outcome = await joined(server, models=("m",))
        assert outcome.ok
        assert outcome.found is not None
        assert outcome.found.below_500
        assert (await probe.look(WorkerConfig(url=server.url), HEALTH, outcome.found.full_path, below_500=True)).ok
        server.answers["/v1/models"] = (502, {})
        assert not (await joined(server, models=("m",))).ok


async def test_an_engine_that_is_loading_is_not_ready() -> None:
    """503 of a health route is no absence of one."""
    async with scripted(models=listing("m"), health=(503, {"error": {"message": "Loading model"}})) as server:
        outcome = await joined(server)
    assert (outcome.ok, outcome.reason, outcome.refused) == (False, "/health answered 503", False)


async def test_the_configured_health_path_decides() -> None:
    """It is asked instead of the engine's own, and must be 2xx."""
    async with scripted(models=listing("m"), health=(503, {}), well=(204, b"")) as server:
        health = HealthConfig(path="/well", timeout_s=0.3)
        assert (await probe.join(WorkerConfig(url=server.url), health)).ok
        server.answers["/well"] = (302, {})
        assert (await probe.join(WorkerConfig(url=server.url), health)).reason == "/well answered 302"


@pytest.mark.parametrize(
    ("models", "health", "reason"),
    [
        (None, (200, {}), "/v1/models did not answer within 0.3 s"),
        (listing("m"), None, "/health did not answer within 0.3 s"),
        (None, None, "/health did not answer within 0.3 s"),
        ((200, b"x" * (2 << 20)), (200, {}), "the answer is larger than 1 MiB"),
        (listing("m"), (200, b"x" * (2 << 20)), "the answer is larger than 1 MiB"),
        (b"SSH-2.0-nonsense\r\n\r\n", (200, {}), "the worker's answer is not valid http"),
        ((401, {}), (200, {}), "/v1/models answered 401: give the worker its api_key"),
    ],
)
async def test_broken_servers_are_said_to_be_so(models: Any, health: Any, reason: str) -> None:
    """Silence, floods, garbage and locked doors keep a worker out, with a reason for the operator, in bounded time and memory."""
    async with scripted(models=models, health=health) as server:
        outcome = await joined(server)
    assert (outcome.ok, outcome.reason, outcome.refused) == (False, reason, False)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'{"data":{}}', b'{"data":[[],5,{"id":[]}]}', b"[" * 100_000])
async def test_odd_json_is_no_failure(body: bytes) -> None:
    """A healthy worker whose model list cannot be read is ready, with no names of its own."""
    async with scripted(models=(200, body), health=(200, {})) as server:
        outcome = await joined(server)
    assert outcome.ok
    assert outcome.found is not None
    assert (outcome.found.engine, outcome.found.models) == (Engine.OPENAI, ())


async def test_an_engine_is_known_by_its_routes_where_no_list_tells_it() -> None:
    """A SGLang whose model list fails is still a SGLang, if it has SGLang's routes."""
    async with scripted(models=(500, {}), health=(200, {}), server_info=(200, {"model_path": "m", "context_length": 77})) as server:
        server.answers["/v1/loads"] = (200, {"version": "9"})
        outcome = await joined(server, models=("m",))
    assert outcome.found is not None
    assert (outcome.found.engine, outcome.found.version) == (Engine.SGLANG, "9")
    assert outcome.found.models[0].context_length == 77


async def test_nobody_there() -> None:
    """A refused connection is told from a slow or a broken answer."""
    server = Script()
    await server.start()
    await server.stop()
    outcome = await joined(server)
    assert (outcome.ok, outcome.refused, outcome.reason) == (False, True, "the worker refuses connections")
    looked = await probe.look(WorkerConfig(url=server.url), HEALTH, "/health")
    assert looked.refused


async def test_the_bearer_token_goes_with_every_question_and_cannot_break_the_request() -> None:
    """The worker's key is sent on each route; a line break in it makes no further header."""
    async with scripted(models=listing("m", owner="vllm"), health=(200, {}), version=(200, {"version": "1"})) as server:
        assert (await joined(server, api_key="k\r\nx-evil: 1")).ok
    assert {headers["authorization"] for _, headers in server.seen} == {"Bearer kx-evil: 1"}
    assert not any("x-evil" in headers for _, headers in server.seen)
    assert set(server.paths()) == {"/v1/models", "/health", "/version"}


async def test_a_worker_below_a_path() -> None:
    """A prefix in the URL goes before every route."""
    async with scripted() as server:
        server.answers = {"/engine/v1/models": listing("m"), "/engine/health": (200, {})}
        outcome = await probe.join(WorkerConfig(url=server.url + "/engine/"), HEALTH)
    assert outcome.ok
