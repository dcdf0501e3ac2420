"""Both clients say the same and read the same; every test runs with each."""

import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.sdk import AsyncClient, Client, SmgApiError, Unreachable
from tests.support.control_plane import ControlPlane

Ask = Callable[..., Awaitable[Any]]


class Both:
    """One client of either kind, asked in the same words."""

    def __init__(self, awaits: bool, transport: httpx.MockTransport, **options: Any) -> None:
        self.client: Client | AsyncClient = (AsyncClient if awaits else Client)("http://gateway:1", transport=transport, **options)

    async def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        result = getattr(self.client, method)(*arguments, **named)
        if isinstance(result, AsyncIterator):
            return [event async for event in result]
        if isinstance(result, Iterator):
            return list(result)
        return await result if inspect.isawaitable(result) else result

    async def close(self) -> None:
        if isinstance(self.client, AsyncClient):
            await self.client.aclose()
        else:
            self.client.close()


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


@pytest.fixture(params=[False, True], ids=["blocks", "awaits"])
def awaits(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def ask(plane: ControlPlane, awaits: bool) -> AsyncIterator[Ask]:
    both = Both(awaits, plane.transport(), api_key="k")
    yield both.ask
    await both.close()


@pytest.mark.parametrize(
    ("method", "arguments", "named", "sent"),
    [
        ("workers", (), {}, ("GET", "/workers", {}, None)),
        ("workers", (), {"model": "a b"}, ("GET", "/workers", {"model": "a b"}, None)),
        ("worker", ("w1",), {}, ("GET", "/workers/w1", {}, None)),
        (
            "add_worker",
            ("http://n:1",),
            {"priority": 3, "labels": {"a": "b"}},
            ("POST", "/workers", {}, {"url": "http://n:1", "priority": 3, "labels": {"a": "b"}}),
        ),
        ("replace_worker", ("w1", {"url": "http://a:1", "cost": 2}), {}, ("PUT", "/workers/w1", {}, {"url": "http://a:1", "cost": 2})),
        ("patch_worker", ("w1",), {"cost": 3.5}, ("PATCH", "/workers/w1", {}, {"cost": 3.5})),
        ("drain_worker", ("w1",), {}, ("POST", "/workers/w1/drain", {}, {})),
        ("remove_worker", ("w1",), {}, ("DELETE", "/workers/w1", {}, None)),
        ("config", (), {}, ("GET", "/config", {}, None)),
        ("rollback_config", (), {}, ("POST", "/config/rollback", {}, {})),
        ("status", (), {}, ("GET", "/status", {}, None)),
        ("health", (), {}, ("GET", "/health", {}, None)),
        ("readiness", (), {}, ("GET", "/readiness", {}, None)),
        ("models", (), {}, ("GET", "/v1/models", {}, None)),
    ],
)
async def test_a_method_is_one_request(
    ask: Ask, plane: ControlPlane, method: str, arguments: tuple[Any, ...], named: dict[str, Any], sent: tuple[Any, ...]
) -> None:
    """Method, path, query, JSON body, content type and key are those of the control plane."""
    plane.add("http://a:1")
    plane.versions.append(plane.versions[0].model_copy(update={"model_path": "x"}))
    await ask(method, *arguments, **named)
    (asked,) = plane.asked
    assert (asked.method, asked.path, asked.params, asked.json if asked.body else None) == sent
    assert asked.headers["authorization"] == "Bearer k"
    assert asked.headers.get("content-type") == ("application/json" if asked.body else None)


async def test_workers_are_values(ask: Ask, plane: ControlPlane) -> None:
    """Fields that an older client does not know are left out; names of models are read in both shapes."""
    plane.add("http://a:1", load=3, labels={"zone": "a"}, models=[{"name": "m"}, "n", {"id": "o"}])
    listed = await ask("workers")
    (worker,) = listed.workers
    assert (listed.total, listed.stats) == (1, {"ready": 1})
    assert (worker.id, worker.url, worker.status, worker.load, worker.labels) == ("w1", "http://a:1", "ready", 3, {"zone": "a"})
    assert worker.model_names == ["m", "n", "o"]
    assert (await ask("worker", "w1")) == worker


@pytest.mark.parametrize("reference", ["w2", "http://b:1", "http://b:1/", "b:1"])
async def test_a_worker_is_found_by_id_or_url(ask: Ask, plane: ControlPlane, reference: str) -> None:
    """The scheme and a trailing slash may be left out or added."""
    plane.add("http://a:1")
    plane.add("http://b:1")
    assert (await ask("find_worker", reference)).id == "w2"


async def test_a_worker_that_is_not_there(ask: Ask) -> None:
    """Looked for by URL or asked for by id, the error is a 404."""
    with pytest.raises(SmgApiError) as caught:
        await ask("find_worker", "http://a:1")
    assert (caught.value.status, caught.value.message) == (404, "no worker has the id or url http://a:1")
    with pytest.raises(SmgApiError) as caught:
        await ask("worker", "../config")
    assert caught.value.status == 404


async def test_an_accepted_change_is_a_value(ask: Ask) -> None:
    """A new worker comes with its id and where it is."""
    accepted = await ask("add_worker", "http://n:1")
    assert (accepted.worker_id, accepted.url, accepted.status, accepted.location) == ("w1", "http://n:1", "accepted", "/workers/w1")


async def test_a_configuration_is_sent_as_yaml(ask: Ask, plane: ControlPlane) -> None:
    """The text goes as it is, and changes come back."""
    text = "retry: {max_attempts: 2}  # ü\n"
    tried = await ask("apply_config", text, dry_run=True)
    applied = await ask("apply_config", text)
    assert [(asked.body, asked.params["dry_run"]) for asked in plane.asked] == [(text.encode(), "true"), (text.encode(), "false")]
    assert plane.asked[0].headers["content-type"] == "application/yaml"
    assert (tried.version, tried.applied, applied.version, applied.applied) == (1, False, 2, True)
    (change,) = applied.changes
    assert (change.path, change.before, change.after) == ("retry.max_attempts", 4, 2)
    assert (await ask("rollback_config")).changes[0].after == 4


async def test_a_wrong_configuration_is_refused_with_its_mistakes(ask: Ask) -> None:
    """Every mistake comes along."""
    with pytest.raises(SmgApiError) as caught:
        await ask("apply_config", "a: 1\nretry: {max_attempts: 0}")
    error = caught.value
    assert (error.status, error.code, len(error.problems)) == (400, "config_invalid", 2)


async def test_readiness_is_an_answer_also_when_it_is_no(ask: Ask, plane: ControlPlane) -> None:
    """503 of a health route is no error."""
    no = await ask("readiness")
    plane.add("http://a:1")
    yes = await ask("readiness")
    assert (no.ok, no.detail["reason"], yes.ok) == (False, "no healthy workers", True)


async def test_the_state_of_the_gateway_is_a_value(ask: Ask) -> None:
    """Processes come with what is known of each."""
    state = await ask("status")
    assert (state.state, state.config_version, len(state.processes)) == ("serving", 1, 2)
    assert (state.processes[1].reason, state.processes[1].restarts) == ("killed", 2)


async def test_waiting_for_a_worker_ends_with_its_status(plane: ControlPlane, awaits: bool) -> None:
    """It is asked again until it has one of the statuses, has left, or the time is over."""
    now_s = 0.0

    def blocks(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    async def sleeps(seconds: float) -> None:
        blocks(seconds)

    worker = plane.add("http://a:1", status="pending")
    plane.after_each = lambda: worker.update(status="ready" if now_s >= 2 else "pending")
    both = Both(awaits, plane.transport())
    timing = {"clock": lambda: now_s, "sleep": sleeps if awaits else blocks, "interval_s": 1.0}
    assert (await both.ask("wait_for_worker", "w1", {"ready"}, 10, **timing)).status == "ready"
    assert now_s == 2.0
    plane.after_each = None
    assert (await both.ask("wait_for_worker", "w1", {"failed"}, 2, **timing)).status == "ready"
    assert now_s == 4.0
    plane.workers.clear()
    assert await both.ask("wait_for_worker", "w1", {"failed"}, 2, **timing) is None
    await both.close()


async def answer_with(awaits: bool, answer: Callable[[httpx.Request], httpx.Response], method: str, *arguments: Any) -> Any:
    both = Both(awaits, httpx.MockTransport(answer))
    try:
        return await both.ask(method, *arguments)
    finally:
        await both.close()


async def test_whole_answers_of_engines(awaits: bool) -> None:
    """Chat and completions take and give plain dicts, and never ask for a stream."""
    seen: list[tuple[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, json.loads(request.content)))
        return httpx.Response(200, json={"id": "x"})

    assert await answer_with(awaits, answer, "chat", {"model": "m", "stream": True}) == {"id": "x"}
    assert await answer_with(awaits, answer, "complete", {"model": "m"}) == {"id": "x"}
    assert await answer_with(awaits, answer, "post", "/v1/embeddings", {"input": "a"}) == {"id": "x"}
    assert seen == [
        ("/v1/chat/completions", {"model": "m", "stream": False}),
        ("/v1/completions", {"model": "m"}),
        ("/v1/embeddings", {"input": "a"}),
    ]


async def test_streams_of_engines(awaits: bool) -> None:
    """Events come one by one, and a stream is asked for."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content)["stream"] is True
        return httpx.Response(200, content=b'data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n')

    for method in ("stream_chat", "stream_complete"):
        assert await answer_with(awaits, answer, method, {"model": "m"}) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (httpx.Response(200, content=b'data: {"n":1}\n\n'), 200, "stream_broken"),
        (httpx.Response(200, content=b'data: {"n":1}\n\ndata: {"error":{"code":"upstream_failed"}}\n\n'), 200, "upstream_failed"),
        (httpx.Response(429, json={"error": {"code": "rate_limited", "message": "m"}}, headers={"retry-after": "2"}), 429, "rate_limited"),
    ],
)
async def test_a_stream_that_fails_is_an_error(awaits: bool, answer: httpx.Response, status: int, code: str) -> None:
    """Refused, cut, or ended by an error event: it never looks complete."""
    with pytest.raises(SmgApiError) as caught:
        await answer_with(awaits, lambda request: httpx.Response(answer.status_code, headers=answer.headers, content=answer.content),
                          "stream_chat", {"model": "m"})  # fmt: skip
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "connection refused"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "[Errno -2] Name or service not known"),
        (httpx.ConnectTimeout("x"), "no connection within the time limit"),
        (httpx.ReadTimeout("x"), "no answer within the time limit"),
        (httpx.PoolTimeout("x"), "no answer within the time limit"),
        (httpx.RemoteProtocolError("peer closed"), "the connection broke off: peer closed"),
        (httpx.ReadError(""), "the connection broke off: ReadError"),
    ],
)
async def test_no_answer_is_unreachable(awaits: bool, error: Exception, reason: str) -> None:
    """What httpx raises gets one name, the URL, and a reason in words; whole calls and streams alike."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    for method in ("status", "stream_chat"):
        with pytest.raises(Unreachable) as caught:
            await answer_with(awaits, answer, method, *([{"model": "m"}] if method == "stream_chat" else []))
        assert (caught.value.url, caught.value.reason) == ("http://gateway:1", reason)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'{"workers": 3}', b""])
async def test_what_is_no_gateway_is_unreachable(awaits: bool, body: bytes) -> None:
    """Another server on the port answers 200 with something else."""
    with pytest.raises(Unreachable, match="what answers there is no gateway"):
        await answer_with(awaits, lambda request: httpx.Response(200, content=body), "workers")


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("127.0.0.1:30000", {}, "the url of the gateway must begin with http:// or https://, not '127.0.0.1:30000'"),
        ("http://", {}, "the url of the gateway names no host: 'http://'"),
        ("http://a:b", {}, "the url of the gateway is not valid: invalid port: 'b'"),
        ("http://a", {"api_key": "ü"}, "the API key holds a character that no header may carry"),
        ("http://a", {"api_key": "a\nb"}, "the API key holds a character that no header may carry"),
        ("https://a", {"ca_file": "/nonexistent"}, "the CA file /nonexistent cannot be used: No such file or directory"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_is_not_made_for_nothing(kind: Any, url: str, options: dict[str, Any], said: str) -> None:
    """What cannot be a gateway's URL, key or authority is refused before anything is sent."""
    with pytest.raises(ValueError) as caught:
        kind(url, **options)
    assert str(caught.value) == said


def test_both_clients_have_the_same_methods() -> None:
    """Names, parameters and defaults are the same, but for how they wait."""

    def surface(kind: type) -> dict[str, list[tuple[str, Any]]]:
        found = {}
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_") and name not in ("close", "aclose"):
                parameters = inspect.signature(method).parameters.values()
                found[name] = [(p.name, p.default if p.name != "sleep" else None) for p in parameters]
        return found

    assert surface(Client) == surface(AsyncClient)
    assert len(surface(Client)) >= 20
