"""What real engines put on the wire, played again behind a whole gateway: the client gets those bytes, and the gateway counts right."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.support.gateway_process import GatewayProcess, gateway_process, total, until
from tests.support.rawhttp import Ended, Seen, ask
from tests.support.replay import BY_EVENT, EVENTS, JSON, Replay, replaying
from tests.support.wire import Recording

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENGINES = {"vllm": "vllm-0.32-http", "sglang": "sglang-0.5.23-http", "llamacpp": "llamacpp-http", "transformers": "transformers-serve-5.19"}
ROUTES = {
    "chat": "/v1/chat/completions",
    "json-schema": "/v1/chat/completions",
    "tool-required": "/v1/chat/completions",
    "err-len": "/v1/chat/completions",
    "err-json": "/v1/chat/completions",
    "err-model": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
    "tokenize": "/v1/tokenize",
    "responses": "/v1/responses",
}
STREAMS = {
    "chat-stream": "/v1/chat/completions",
    "completions-stream": "/v1/completions",
    "messages-stream": "/v1/messages",
    "tool-named-stream": "/v1/chat/completions",
    "generate-stream": "/generate",
}
HIDDEN = {"connection", "keep-alive", "transfer-encoding", "content-length", "x-request-id"}
USAGE_ALONE = re.compile(rb'data: \{[^\n]*"choices":\[\][^\n]*"usage":\{[^\n]*\n\n')
NEITHER = {("transformers", "err-len"), ("transformers", "responses")}
"""Nothing came within 60 seconds when it was recorded; and a stream that was asked for as a whole answer, below."""


def recorded_of(routes: dict[str, str]) -> list[tuple[str, str, str]]:
    """(engine, name, path) of what was recorded."""
    return [
        (engine, name, path)
        for engine, folder in ENGINES.items()
        for name, path in routes.items()
        if (engine, name) not in NEITHER and Replay(folder).exists(name)
    ]


@dataclass(frozen=True)
class Stage:
    """A gateway before the recordings of every engine."""

    gateway: GatewayProcess
    replays: dict[str, Replay]

    async def play(
        self,
        engine: str,
        name: str,
        path: str,
        *,
        chunk_bytes: int = BY_EVENT,
        more: bytes = b"",
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> tuple[Seen, Recording]:
        """Ask for what an engine once said; return what the client saw, and the recording."""
        replay = self.replays[engine]
        replay.name, replay.chunk_bytes, replay.more = name, chunk_bytes, more
        given = {**BODIES.get(path, CHAT), "model": f"recorded-{engine}", **body}
        return await ask(self.gateway.url, path, given, headers=headers, quiet_s=5.0), replay.recording()


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hello"},
    "/v1/embeddings": {"input": "hello"},
    "/v1/tokenize": {"prompt": "hello"},
    "/v1/responses": {"input": "hello"},
    "/generate": {"text": "hello"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        replays = {name: await stack.enter_async_context(replaying(folder)) for name, folder in ENGINES.items()}
        config = {
            "workers": [{"url": replay.url, "models": [f"recorded-{name}"]} for name, replay in replays.items()],
            "retry": {"max_attempts": 1},
            "breaker": {"enabled": False},
        }
        gateway = await stack.enter_async_context(gateway_process(tmp_path_factory.mktemp("recordings"), config))
        await until(gateway.metrics, lambda page: total(page, "smg_worker_health") == len(replays))
        yield Stage(gateway, replays)


def plain(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The header lines that a proxy passes on, in order."""
    return [(name.lower(), value) for name, value in headers if name.lower() not in HIDDEN]


def lines(seen: Seen) -> list[tuple[str, str]]:
    """The header lines that the client saw."""
    parts = (line.partition(":") for line in seen.head.split("\r\n")[1:])
    return [(name, value.strip()) for name, _, value in parts if not name.startswith("x-smg-")]


async def test_engines_are_known_by_what_they_say(stage: Stage) -> None:
    """Every engine is told by its own answers, and one that is none of them is any other OpenAI server, `/v1/models` 500 or not."""
    async with httpx.AsyncClient(trust_env=False) as client:
        listed = (await client.get(f"{stage.gateway.url}/workers")).json()["workers"]
    engines = {worker["url"]: (worker["status"], worker["engine"]) for worker in listed}
    assert {name: engines[replay.url] for name, replay in stage.replays.items()} == {
        "vllm": ("ready", "vllm"),
        "sglang": ("ready", "sglang"),
        "llamacpp": ("ready", "llamacpp"),
        "transformers": ("ready", "openai"),
    }


@pytest.mark.parametrize(("engine", "name", "path"), recorded_of(ROUTES))
async def test_whole_answers_come_as_they_were_sent(stage: Stage, engine: str, name: str, path: str) -> None:
    """Status, header lines in their order, and every byte of the body: errors in whatever shape, odd fields, key order and all."""
    seen, recorded = await stage.play(engine, name, path)
    assert (seen.status, seen.rest) == (recorded.status, recorded.body)
    assert seen.header("content-length") == str(len(recorded.body)) and seen.header("x-request-id")
    found = [(line, value) for line, value in lines(seen) if line not in HIDDEN]
    assert found == (plain(recorded.headers) or [JSON])
    assert seen.header("x-smg-error-code") == (
        None if seen.status < 400 else "upstream_failed" if seen.status > 499 else "upstream_rejected"
    )


@pytest.mark.parametrize("chunk_bytes", [BY_EVENT, 1000, 3])
@pytest.mark.parametrize(("engine", "name", "path"), recorded_of(STREAMS))
async def test_streams_come_as_they_were_sent(stage: Stage, engine: str, name: str, path: str, chunk_bytes: int) -> None:
    """Every byte of a stream, however it is cut, and its end, whether the engine writes an end mark or not."""
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    seen, recorded = await stage.play(engine, name, path, chunk_bytes=chunk_bytes, **asked)
    if recorded.status != 200:
        assert (seen.status, seen.rest) == (recorded.status, recorded.body)
        return
    pieces, ended = seen.chunks
    assert b"".join(pieces) == recorded.body and ended and seen.ended is Ended.CLOSED
    assert [line for line in lines(seen) if line[0] not in HIDDEN] == (plain(recorded.headers) or [EVENTS])
    if chunk_bytes == BY_EVENT:
        *events, rest = recorded.body.split(b"\n\n")
        assert rest == b"" and pieces[-3:] == [event + b"\n\n" for event in events[-3:]], "events are passed on one by one"


@pytest.mark.parametrize("chunk_bytes", [BY_EVENT, 3])
@pytest.mark.parametrize("name", ["chat-stream", "completions-stream", "tool-named-stream"])
@pytest.mark.parametrize("engine", ENGINES)
async def test_usage_that_nobody_asked_for_is_taken_out(stage: Stage, engine: str, name: str, chunk_bytes: int) -> None:
    """The chunk with usage alone is gone, and not one other byte; the engine was asked for it all the same."""
    seen, recorded = await stage.play(engine, name, STREAMS[name], chunk_bytes=chunk_bytes, stream=True)
    pieces, ended = seen.chunks
    assert b"".join(pieces) == USAGE_ALONE.sub(b"", recorded.body) and ended
    assert json.loads(stage.replays[engine].heard[-1].body)["stream_options"] == {"include_usage": True}
    if name == "chat-stream" and engine != "transformers":  # it has usage on its last finish chunk, which cannot be left out
        assert USAGE_ALONE.search(recorded.body) and b'"usage":{' not in b"".join(pieces)


@pytest.mark.parametrize(
    ("engine", "name", "path"),
    recorded_of(
        {name: (ROUTES | STREAMS)[name] for name in ("chat", "json-schema", "chat-stream", "completions-stream", "messages-stream")}
    ),
)
async def test_tokens_are_counted_as_the_engine_told_them(stage: Stage, engine: str, name: str, path: str) -> None:
    """Whatever the place of usage in an answer, the metrics count exactly it; nothing is estimated."""
    recorded = Replay(ENGINES[engine], name=name).recording()
    before = await stage.gateway.metrics()
    await stage.play(engine, name, path, stream="stream" in name)
    after = await stage.gateway.metrics()

    def grown(series: str, **labels: str) -> float:
        return total(after, series, **labels) - total(before, series, **labels)

    told = usage_of(recorded) if recorded.status == 200 else dict.fromkeys(("input", "output", "cached"), 0)
    counted = {
        kind: grown("smg_router_tokens_total", token_type=kind, model=f"recorded-{engine}") for kind in ("input", "output", "cached")
    }
    assert counted == told
    assert grown("smg_router_usage_missing_total") == 0


def usage_of(recorded: Recording) -> dict[str, float]:
    """The last usage that an answer told, in the gateway's words."""
    if "event-stream" in (recorded.header("content-type") or ""):
        values = [json.loads(data) for _, data in recorded.events if data.startswith("{")]
    else:
        values = [recorded.json]
    told: dict[str, Any] = {}
    for value in values:
        told |= (value.get("message") or {}).get("usage") or {}
        told |= value.get("usage") or {}
    cached = told.get("cache_read_input_tokens") or (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    if "input_tokens" in told:
        made = told.get("cache_creation_input_tokens") or 0
        return {"input": told["input_tokens"] + cached + made, "output": told["output_tokens"], "cached": cached}
    return {"input": told["prompt_tokens"], "output": told["completion_tokens"], "cached": cached}


async def test_a_stream_that_nobody_asked_for(stage: Stage) -> None:
    """transformers streams Responses to a client that asked for a whole one: the client gets the events, checked like any stream."""
    end = b'data: {"response":{"status":"completed","usage":{"input_tokens":3,"output_tokens":2}},"type":"response.completed"}\n\n'
    seen, recorded = await stage.play("transformers", "responses", "/v1/responses", more=end)
    pieces, ended = seen.chunks
    assert (seen.status, b"".join(pieces), ended) == (200, recorded.body + end, True)
    assert (seen.header("content-type") or "").startswith("text/event-stream")
    seen, recorded = await stage.play("transformers", "responses", "/v1/responses")
    pieces, ended = seen.chunks
    stream = b"".join(pieces)
    assert stream.startswith(recorded.body) and ended
    error = stream.removeprefix(recorded.body)
    assert error.startswith(b"event: error\ndata: ") and b'"stream_broken"' in error, "the recording breaks off: so does the answer"


async def test_models_are_listed_although_an_engine_cannot(stage: Stage) -> None:
    """An engine whose `/v1/models` answers 500 serves the model that the configuration says."""
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key="none", max_retries=0) as client:
        assert {model.id async for model in client.models.list()} == {f"recorded-{name}" for name in ENGINES}
        assert (await client.models.retrieve("recorded-transformers")).owned_by == "openai"


@pytest.mark.parametrize("engine", ["sglang", "llamacpp"])
async def test_an_unknown_model_is_unknown_although_the_engine_would_answer(stage: Stage, engine: str) -> None:
    """SGLang and llama.cpp answer 200 to any name; the gateway does not ask them."""
    heard = len(stage.replays[engine].heard)
    seen = await ask(stage.gateway.url, "/v1/chat/completions", {**CHAT, "model": "nope"})
    assert seen.status == 404 and json.loads(seen.rest)["error"]["code"] == "model_not_found"
    assert not [one for one in stage.replays[engine].heard[heard:] if one.method == "POST"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["chat", "chat-stream"])
async def test_the_client_gets_one_request_id(stage: Stage, engine: str, name: str) -> None:
    """One x-request-id reaches the client, its own, whether the engine echoes it (vLLM), makes another, or has none (SGLang)."""
    replay = stage.replays[engine]
    replay.echoes_id = engine == "vllm"
    seen, _ = await stage.play(engine, name, "/v1/chat/completions", headers={"x-request-id": "my-own-7"}, stream="stream" in name)
    assert [value for line, value in lines(seen) if line == "x-request-id"] == ["my-own-7"]
    assert replay.heard[-1].headers["x-request-id"] == "my-own-7"


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_sdk_reads_what_engines_wrote(stage: Stage, engine: str) -> None:
    """OpenAI's SDK reads each engine's stream to its end: null content, `timings`, a finish chunk of its own, no end mark."""
    stage.replays[engine].name = "chat-stream"
    recorded = stage.replays[engine].recording()
    said = "".join(
        choice["delta"].get("content") or ""
        for _, data in recorded.events
        if data.startswith("{")
        for choice in json.loads(data)["choices"]
    )
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=f"recorded-{engine}", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == said != ""
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "length"
