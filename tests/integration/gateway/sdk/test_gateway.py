"""The clients before a real gateway and a simulated engine, over real sockets."""

import pathlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.sdk import AsyncClient, Client, SmgApiError, Unreachable
from tests.support.processes import Started, engines, gateway

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with engines(tmp_path_factory.mktemp("engine"), 1, "--model", "m") as started:
        yield started


@pytest.fixture(scope="module")
def served(engine: Started, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    flags = ("--worker-url", engine.url, "--api-key", "secret")
    with gateway(tmp_path_factory.mktemp("gateway"), *flags) as started, Client(started.url, api_key="secret") as client:
        (worker,) = client.workers().workers
        ready = client.wait_for_worker(worker.id, {"ready"}, 30)
        assert ready is not None
        assert ready.status == "ready", ready
        yield started


@pytest.fixture
def client(served: Started) -> Iterator[Client]:
    with Client(served.url, api_key="secret") as client:
        yield client


def test_the_worker_is_known(client: Client, engine: Started) -> None:
    """The list says what the engine is and serves, and finds it by URL."""
    listed = client.workers(model="m")
    (worker,) = listed.workers
    assert listed.total == 1
    assert (worker.url, worker.status, worker.engine, worker.model_names) == (engine.url, "ready", "vllm", ["m"])
    assert worker.is_healthy
    assert client.find_worker(engine.url.removeprefix("http://")).id == worker.id
    assert client.worker(worker.id).url == engine.url
    assert client.workers(model="other").workers == []


def test_health_and_models(client: Client) -> None:
    """A gateway with a ready worker is ready, and lists its model."""
    assert client.health().ok
    assert client.readiness().ok
    assert [model["id"] for model in client.models()] == ["m"]


def test_a_whole_answer_and_a_stream_say_the_same(client: Client) -> None:
    """The engine gives the same text to the same prompt, whole and in events."""
    whole = client.chat(ASK)["choices"][0]["message"]["content"]
    events = list(client.stream_chat(ASK))
    streamed = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    assert whole
    assert streamed == whole
    assert client.complete({"model": "m", "prompt": "hi", "max_tokens": 4})["choices"][0]["text"]


async def test_the_awaiting_client_does_the_same(served: Started, client: Client) -> None:
    """Control plane and inference, awaited."""
    async with AsyncClient(served.url, api_key="secret") as other:
        assert (await other.workers()).total == 1
        assert (await other.chat(ASK))["choices"][0]["message"] == client.chat(ASK)["choices"][0]["message"]
        events = [event async for event in other.stream_chat(ASK)]
        assert len(events) > 2
        assert (await other.status()).state == "serving"


def test_a_stream_that_breaks_is_an_error(client: Client, engine: Started) -> None:
    """An engine that resets its connection half-way does not look like a short answer."""
    httpx.post(f"{engine.url}/_sim/faults", json={"kind": "reset", "after_events": 3, "times": 1}).raise_for_status()
    with pytest.raises(SmgApiError) as caught:
        list(client.stream_chat(ASK))
    assert caught.value.status == 200
    assert caught.value.code in ("stream_broken", "upstream_failed")


def test_leaving_a_stream_ends_it(client: Client) -> None:
    """After the iterator is closed the client can be used again."""
    stream = client.stream_chat({**ASK, "max_tokens": 400})
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert client.chat(ASK)["choices"]


def test_refusals_have_codes(client: Client, served: Started) -> None:
    """No key, an unknown model, an unknown worker and a second worker of one URL are told apart."""
    with Client(served.url) as stranger:
        for ask in (stranger.workers, lambda: stranger.chat(ASK)):
            with pytest.raises(SmgApiError) as caught:
                ask()
            assert (caught.value.status, caught.value.code) == (401, "unauthenticated")
    with pytest.raises(SmgApiError) as caught:
        client.chat({**ASK, "model": "nobody"})
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    with pytest.raises(SmgApiError) as caught:
        client.worker("00000000-0000-0000-0000-000000000000")
    assert (caught.value.status, caught.value.code) == (404, "WORKER_NOT_FOUND")
    with pytest.raises(SmgApiError) as caught:
        client.add_worker(client.workers().workers[0].url)
    assert (caught.value.status, caught.value.code) == (409, "WORKER_ALREADY_EXISTS")


def test_a_configuration_is_applied_and_taken_back(client: Client) -> None:
    """Dry run, apply, and rollback; flags still win."""
    before = client.config()
    text = "retry: {max_attempts: 2}\nserver: {port: 1}\n"
    tried = client.apply_config(text, dry_run=True)
    assert [(change.path, change.after) for change in tried.changes] == [("retry.max_attempts", 2)]
    applied = client.apply_config(text)
    assert (applied.applied, applied.version) == (True, before.version + 1)
    assert client.config().config["retry"]["max_attempts"] == 2
    assert client.rollback_config().applied
    assert client.config().config == before.config
    with pytest.raises(SmgApiError) as caught:
        client.apply_config("retry: {max_attempts: 0}\nfoo: 1\n")
    assert (caught.value.code, len(caught.value.problems)) == ("config_invalid", 2)


def test_nobody_there(tmp_path: pathlib.Path) -> None:
    """A gateway that ended is unreachable, at once."""
    with gateway(tmp_path) as started:
        url = started.url
    with Client(url) as client, pytest.raises(Unreachable) as caught:
        client.status()
    assert caught.value.reason == "connection refused"
