"""Replays the requests of the recordings against simulated engines: where the two differ, the simulated one is wrong.

Compared are status, header names (order and case), content type, keys in their order and the types behind them, the order of
events, error bodies, and names, kinds, labels and bounds of metrics. Texts, ids, times and counts are each engine's own. A tool
call that a random model ran into its token limit is cut short in the simulated engine by a smaller limit.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from harness.sim import SimEngine, running
from tests.support.wire import Recording, event_shapes, families, load, shape

VLLM, SGLANG = "vllm-0.32-http", "sglang-0.5.23-http"
FLAVOURS = {VLLM: "vllm", SGLANG: "sglang"}
MODEL = "tiny-chat"
USER = [{"role": "user", "content": "Say hello to everybody"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}},
}
CHAT = {"model": MODEL, "messages": USER}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
USAGE = {"include_usage": True}


@dataclass(frozen=True)
class Case:
    """A request, by the name of the recording of its answer."""

    name: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


WHOLE = [
    Case("chat", "/v1/chat/completions", {**CHAT, "max_tokens": 8}, {"x-request-id": "gw-123"}),
    Case("json-schema", "/v1/chat/completions", {**CHAT, "response_format": SCHEMA, "max_tokens": 64}),
    Case("tool-required", "/v1/chat/completions", {**CHAT, "tools": [TOOL], "tool_choice": "required", "max_tokens": 3}),
    Case("responses", "/v1/responses", {"model": MODEL, "input": "hi", "max_output_tokens": 5}),
    Case("tokenize", "/tokenize", {"model": MODEL, "prompt": "hello world"}),
    Case("models", "/v1/models"),
    Case("health", "/health"),
    Case("version", "/version"),
    Case("load", "/load"),
    Case("embeddings", "/v1/embeddings", {"model": MODEL, "input": "hi"}),
]
SGLANG_WHOLE = [
    Case("loads", "/v1/loads"),
    Case("model_info", "/get_model_info"),
]
STREAMS = [
    Case(
        "chat-stream",
        "/v1/chat/completions",
        {**CHAT, "stream": True, "stream_options": USAGE, "logprobs": True, "top_logprobs": 2, "max_tokens": 4},
    ),
    Case(
        "completions-stream",
        "/v1/completions",
        {"model": MODEL, "prompt": "hello world", "stream": True, "stream_options": USAGE, "max_tokens": 4},
    ),
    Case(
        "tool-named-stream",
        "/v1/chat/completions",
        {**CHAT, "stream": True, "tools": [TOOL], "tool_choice": NAMED, "max_tokens": 4},
    ),
    Case("messages-stream", "/v1/messages", {"model": MODEL, "messages": USER, "stream": True, "max_tokens": 5}),
]
SGLANG_STREAMS = [
    Case("generate-stream", "/generate", {"text": "hello world", "sampling_params": {"max_new_tokens": 3}, "stream": True}),
]
ERRORS = [
    Case("err-len", "/v1/chat/completions", {**CHAT, "max_tokens": 999_999}),
    Case("err-json", "/v1/chat/completions", raw=b'{"model":"tiny-chat"'),
]


def cases(common: list[Case], sglang_only: list[Case]) -> list[Any]:
    """Return every case with every engine that has it."""
    found = [(engine, case) for engine in FLAVOURS for case in common] + [(SGLANG, case) for case in sglang_only]
    return [pytest.param(engine, case, id=f"{FLAVOURS[engine]}-{case.name}") for engine, case in found]


@pytest.fixture
async def engines() -> AsyncIterator[dict[str, SimEngine]]:
    """Engines with the settings under which the real ones were recorded."""
    settings: dict[str, Any] = {
        "model": MODEL,
        "max_model_len": 2048,
        "tasks": ("generate",),
        "prefill_tps": 0,
        "decode_base_ms": 0.1,
        "decode_per_req_ms": 0,
    }
    async with running(flavour="vllm", **settings) as vllm, running(flavour="sglang", **settings) as sglang:
        yield {VLLM: vllm, SGLANG: sglang}


async def ask(engine: SimEngine, case: Case) -> Recording:
    """Send the request of a case."""
    async with httpx.AsyncClient(base_url=engine.url, timeout=10) as client:
        content = case.raw if case.raw is not None else json.dumps(case.body).encode()
        if case.body is None and case.raw is None:
            answer = await client.get(case.path, headers=case.headers)
        else:
            answer = await client.post(case.path, content=content, headers={"content-type": "application/json", **case.headers})
    return Recording(
        answer.status_code, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers.raw], answer.content
    )


def header_names(recording: Recording) -> list[str]:
    """Return the names of headers as written, without the mark of a simulated engine."""
    return [name for name, _ in recording.headers if name != "x-smg-sim"]


def check_head(found: Recording, recorded: Recording) -> None:
    """Compare status, header names, and the values that do not depend on the answer."""
    assert found.status == recorded.status
    assert found.header("x-smg-sim") == "1"
    if recorded.headers:
        assert header_names(found) == header_names(recorded)
        for name in ("server", "content-type", "vary", "transfer-encoding"):
            assert found.header(name) == recorded.header(name)


@pytest.mark.parametrize(("engine", "case"), cases(WHOLE, SGLANG_WHOLE))
async def test_whole_answers_have_the_recorded_shape(engines: dict[str, SimEngine], engine: str, case: Case) -> None:
    """A whole answer has the recorded status, headers, keys and types."""
    recorded = load(engine, case.name)
    found = await ask(engines[engine], case)
    check_head(found, recorded)
    if not recorded.body:
        assert found.body == b""
        return
    if recorded.status >= 400:
        assert found.json == recorded.json
        return
    assert shape(found.json) == shape(recorded.json)
    if "choices" in recorded.json:
        fixed = ("object", "model")
        assert [found.json[key] for key in fixed] == [recorded.json[key] for key in fixed]
        assert found.json["choices"][0]["finish_reason"] == recorded.json["choices"][0]["finish_reason"]
        assert found.json["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize(("engine", "case"), cases(STREAMS, SGLANG_STREAMS))
async def test_streams_have_the_recorded_events(engines: dict[str, SimEngine], engine: str, case: Case) -> None:
    """A stream has the recorded headers, and events of the recorded shapes in the recorded order."""
    recorded = load(engine, case.name)
    found = await ask(engines[engine], case)
    check_head(found, recorded)
    assert event_shapes(found.events) == event_shapes(recorded.events)
    assert [data for _, data in found.events if not data.startswith("{")] == [
        data for _, data in recorded.events if not data.startswith("{")
    ]


@pytest.mark.parametrize(("engine", "case"), cases(ERRORS, []))
async def test_errors_are_the_recorded_ones(engines: dict[str, SimEngine], engine: str, case: Case) -> None:
    """An error body is the recorded one to the word, but for the source line that SGLang gives away."""
    recorded = load(engine, case.name)
    found = await ask(engines[engine], case)
    check_head(found, recorded)
    assert list(found.json) == list(recorded.json)
    split = "\n\n  File "
    if split in recorded.body.decode().replace("\\n", "\n"):
        ours, theirs = found.json, recorded.json
        assert split in ours["message"]
        ours["message"], theirs["message"] = ours["message"].split(split)[0], theirs["message"].split(split)[0]
        assert ours == theirs
    else:
        assert found.json == recorded.json


async def test_unknown_model(engines: dict[str, SimEngine]) -> None:
    """vLLM answers 404 for a model that it does not serve; SGLang answers as if it had the name."""
    case = Case("err-model", "/v1/chat/completions", {"model": "nope", "messages": USER})
    recorded, found = load(VLLM, case.name), await ask(engines[VLLM], case)
    check_head(found, recorded)
    assert found.json == recorded.json
    recorded, found = load(SGLANG, case.name), await ask(engines[SGLANG], case)
    check_head(found, recorded)
    assert shape(found.json) == shape(recorded.json)
    assert found.json["model"] == recorded.json["model"] == "nope"
    assert found.json["choices"][0]["finish_reason"] == recorded.json["choices"][0]["finish_reason"]


async def test_server_info_begins_as_recorded(engines: dict[str, SimEngine]) -> None:
    """SGLang's server info has the recorded keys; the recording is cut, so what is whole in it is compared."""
    text = load(SGLANG, "server_info").body.decode()
    recorded = json.loads(text[: text.rindex(",")] + "}")
    found = await ask(engines[SGLANG], Case("server_info", "/get_server_info"))
    assert found.json | recorded == found.json
    assert list(found.json)[: len(recorded)] == list(recorded)


async def test_request_id_is_echoed_by_vllm_alone(engines: dict[str, SimEngine]) -> None:
    """vLLM answers with the client's request id, in the header and in the id of the answer; SGLang does neither."""
    case = WHOLE[0]
    found = await ask(engines[VLLM], case)
    assert found.header("x-request-id") == load(VLLM, "chat").header("x-request-id") == "gw-123"
    assert found.json["id"] == load(VLLM, "chat").json["id"] == "chatcmpl-gw-123"
    assert (await ask(engines[SGLANG], case)).header("x-request-id") is None


async def test_orca_header_is_the_recorded_one(engines: dict[str, SimEngine]) -> None:
    """Asked for JSON load metrics, an idle vLLM answers with the header that was recorded."""
    case = Case("chat", "/v1/chat/completions", {**CHAT, "max_tokens": 2}, {"endpoint-load-metrics-format": "json"})
    found = await ask(engines[VLLM], case)
    recorded = 'JSON {"named_metrics": {"num_requests_waiting": 0.0, "kv_cache_usage_perc": 0.0}}'
    assert found.header("endpoint-load-metrics") == recorded
    assert (await ask(engines[SGLANG], case)).header("endpoint-load-metrics") is None


@pytest.mark.parametrize(
    ("engine", "name"), [(VLLM, "metrics"), (VLLM, "metrics-after-load"), (SGLANG, "metrics")], ids=["vllm", "vllm-loaded", "sglang"]
)
async def test_metrics_have_the_recorded_families(engines: dict[str, SimEngine], engine: str, name: str) -> None:
    """Every recorded metric is offered with the recorded kind, label names and bounds."""
    for case in (WHOLE[0], Case("err-model", "/v1/chat/completions", {"model": "nope", "messages": USER, "max_tokens": 2})):
        await ask(engines[engine], case)
    recorded = load(engine, name)
    found = await ask(engines[engine], Case(name, "/metrics"))
    check_head(found, recorded)
    ours, theirs = families(found.body.decode()), families(recorded.body.decode())
    assert theirs.keys() - ours.keys() == set()
    empty = {family for family, found_family in theirs.items() if not found_family.labels and not found_family.bounds}
    different = {family: (ours[family], theirs[family]) for family in theirs if ours[family] != theirs[family] and family not in empty}
    assert different == {}
    assert {family: ours[family].kind for family in empty} == {family: theirs[family].kind for family in empty}
