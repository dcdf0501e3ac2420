"""The HTTP surface of each simulated engine, asked by plain clients and by the SDKs that applications use."""

from __future__ import annotations

import base64
import json
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import trustme

from harness.sim import FLAVOURS, SimEngine, running

FAST: dict[str, Any] = {"decode_base_ms": 0.2, "decode_per_req_ms": 0, "prefill_tps": 0}
USER = [{"role": "user", "content": "hi"}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ROUTES = {
    "vllm": {"/health": 200, "/ping": 200, "/version": 200, "/load": 200, "/v1/models": 200, "/metrics": 200, "/v1/loads": 404},
    "sglang": {
        "/health": 200,
        "/health_generate": 200,
        "/get_model_info": 200,
        "/model_info": 200,
        "/get_server_info": 200,
        "/server_info": 200,
        "/v1/loads": 200,
        "/v1/models": 200,
        "/metrics": 200,
        "/version": 404,
        "/load": 404,
    },
    "trtllm": {
        "/health": 200,
        "/health_generate": 200,
        "/version": 200,
        "/v1/models": 200,
        "/metrics": 200,
        "/prometheus/metrics": 200,
        "/server_info": 200,
        "/v1/loads": 404,
    },
}
POSTS = {
    "vllm": {"/v1/messages": 200, "/v1/responses": 200, "/v1/rerank": 200, "/rerank": 200, "/generate": 404, "/v1/tokenize": 404},
    "sglang": {"/v1/messages": 200, "/v1/responses": 200, "/v1/rerank": 200, "/rerank": 404, "/generate": 200, "/v1/tokenize": 200},
    "trtllm": {"/v1/messages": 404, "/v1/responses": 200, "/v1/rerank": 404, "/generate": 404, "/tokenize": 404, "/v1/embeddings": 404},
}
ANY = {"model": "m", "messages": USER, "max_tokens": 4, "input": "hi", "prompt": "hi", "query": "q", "documents": ["d"]}


@pytest.fixture(params=FLAVOURS)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[SimEngine]:
    """A fast engine of each flavour."""
    async with running(flavour=request.param, model="m", aliases=("also-m",), loras=("tuned",), **FAST) as made:
        yield made


@pytest.fixture
async def client(engine: SimEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that engine."""
    async with httpx.AsyncClient(base_url=engine.url, timeout=10) as made:
        yield made


async def test_each_flavour_has_its_own_routes(engine: SimEngine, client: httpx.AsyncClient) -> None:
    """An engine has the routes of its flavour and no others, and marks every answer as simulated."""
    for path, status in ROUTES[engine.settings.flavour].items():
        answer = await client.get(path)
        assert (path, answer.status_code, answer.headers["x-smg-sim"]) == (path, status, "1")
    for path, status in POSTS[engine.settings.flavour].items():
        answer = await client.post(path, json=ANY | ({"text": "hi"} if path == "/generate" else {}))
        assert (path, answer.status_code, answer.headers["x-smg-sim"]) == (path, status, "1")
    wrong = await client.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"], wrong.json()) == (405, "POST", {"detail": "Method Not Allowed"})


async def test_answers_say_that_they_are_simulated(engine: SimEngine, client: httpx.AsyncClient) -> None:
    """A free answer begins by saying what it is."""
    answer = (await client.post("/v1/chat/completions", json={"model": "m", "messages": USER})).json()
    opening = f"This is a simulated answer of a simulated {engine.settings.flavour} engine:"
    assert answer["choices"][0]["message"]["content"].startswith(opening)


async def test_models_aliases_and_adapters(engine: SimEngine, client: httpx.AsyncClient) -> None:
    """The model list has the model, its aliases, and adapters with the model as parent where the engine says so."""
    cards = (await client.get("/v1/models")).json()["data"]
    assert [card["id"] for card in cards] == ["m", "also-m", "tuned"]
    if engine.settings.flavour != "trtllm":
        assert [card["parent"] for card in cards] == [None, None, "m"]
        assert cards[0]["max_model_len"] == 32_768
    for name in ("m", "also-m", "tuned"):
        answer = await client.post("/v1/chat/completions", json={"model": name, "messages": USER, "max_tokens": 2})
        assert (answer.status_code, answer.json()["model"]) == (200, name)


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_api_key(flavour: str) -> None:
    """With a key, inference without it is 401 and health stays open."""
    async with running(flavour=flavour, model="m", api_key="secret", **FAST) as engine, httpx.AsyncClient(base_url=engine.url) as client:
        assert (await client.get("/health")).status_code == 200
        refused = await client.post("/v1/chat/completions", json={"model": "m", "messages": USER})
        assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
        allowed = {"authorization": "Bearer secret"}
        assert (await client.post("/v1/chat/completions", json={"model": "m", "messages": USER}, headers=allowed)).status_code == 200


async def test_https(tmp_path: Path) -> None:
    """With a certificate an engine speaks HTTPS, and resets and crashes work there too."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    for place, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(cert, append=place > 0)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with running(model="m", tls_cert=str(cert), tls_key=str(key), **FAST) as engine:
        assert engine.url.startswith("https://127.0.0.1:")
        async with httpx.AsyncClient(base_url=engine.url, verify=context) as client:
            answer = await client.post("/v1/chat/completions", json={"model": "m", "messages": USER})
            assert answer.status_code == 200
            engine.faults(kind="reset", times=1)
            with pytest.raises(httpx.TransportError):
                await client.post("/v1/chat/completions", json={"model": "m", "messages": USER})


async def test_tokenize_and_back() -> None:
    """Tokens of a text give the text again; a chat is tokenized as it will be prompted."""
    text = "Grüße, 世界! 1234\n\tend"
    for flavour, path, name in (("vllm", "", "prompt"), ("sglang", "/v1", "text")):
        async with running(flavour=flavour, model="m", **FAST) as engine, httpx.AsyncClient(base_url=engine.url) as client:
            found = (await client.post(f"{path}/tokenize", json={"model": "m", "prompt": text})).json()
            assert found["count"] == len(found["tokens"]) > 5
            back = (await client.post(f"{path}/detokenize", json={"model": "m", "tokens": found["tokens"]})).json()
            assert back == {name: text}
            chat = (await client.post(f"{path}/tokenize", json={"model": "m", "messages": USER})).json()
            answer = (await client.post("/v1/chat/completions", json={"model": "m", "messages": USER, "max_tokens": 1})).json()
            assert answer["usage"]["prompt_tokens"] == chat["count"]


@pytest.mark.parametrize("flavour", ["vllm", "sglang"])
async def test_embeddings(flavour: str) -> None:
    """Like texts have like vectors, base64 carries the same numbers, and dimensions are as asked."""
    async with running(flavour=flavour, model="m", **FAST) as engine, httpx.AsyncClient(base_url=engine.url) as client:
        texts = ["the cat sat on the mat", "the cat sat on a mat", "quarterly revenue forecast"]
        found = (await client.post("/v1/embeddings", json={"model": "m", "input": texts, "dimensions": 32})).json()
        cat, near, far = (item["embedding"] for item in found["data"])
        assert len(cat) == 32
        assert sum(a * b for a, b in zip(cat, near, strict=True)) > sum(a * b for a, b in zip(cat, far, strict=True)) + 0.2
        packed = {"model": "m", "input": texts[0], "dimensions": 32, "encoding_format": "base64"}
        coded = (await client.post("/v1/embeddings", json=packed)).json()["data"][0]["embedding"]
        assert struct.unpack("<32f", base64.b64decode(coded)) == pytest.approx(cat, abs=1e-6)
        wrong = await client.post("/v1/embeddings", json={"model": "m", "input": texts, "dimensions": 0})
        assert wrong.status_code == 400


async def test_rerank() -> None:
    """The document that shares most with the query comes first, in each engine's own shape."""
    body = {"model": "m", "query": "cats that sleep", "documents": ["tax law", "cats that sleep all day", "dogs"], "top_n": 2}
    async with running(flavour="vllm", model="m", **FAST) as engine, httpx.AsyncClient(base_url=engine.url) as client:
        found = (await client.post("/v1/rerank", json=body)).json()
        assert found["results"][0]["index"] == 1
        assert len(found["results"]) == 2
        assert found["results"][0]["document"]["text"] == "cats that sleep all day"
    async with running(flavour="sglang", model="m", **FAST) as engine, httpx.AsyncClient(base_url=engine.url) as client:
        bare = (await client.post("/v1/rerank", json=body)).json()
        assert bare[0]["index"] == 1
        assert bare[0]["document"] == "cats that sleep all day"


async def test_orca_header_on_request() -> None:
    """vLLM and Triton tell their load in a header where asked, as JSON or text, in their own names; not on streams."""
    for flavour, name in (("vllm", "kv_cache_usage_perc"), ("trtllm", "kv_cache_utilization")):
        async with running(flavour=flavour, model="m", **FAST) as engine, httpx.AsyncClient(base_url=engine.url) as client:
            body = {"model": "m", "messages": USER, "max_tokens": 2}
            plain = await client.post("/v1/chat/completions", json=body)
            assert "endpoint-load-metrics" not in plain.headers
            asked = await client.post("/v1/chat/completions", json=body, headers={"endpoint-load-metrics-format": "JSON"})
            told = asked.headers["endpoint-load-metrics"]
            assert name in json.loads(told.removeprefix("JSON "))["named_metrics"]
            asked = await client.post("/v1/chat/completions", json=body, headers={"endpoint-load-metrics-format": "text"})
            assert asked.headers["endpoint-load-metrics"].startswith("TEXT named_metrics.")


async def test_openai_sdk(engine: SimEngine) -> None:
    """The OpenAI SDK reads whole answers, streams with usage, tool calls, structured output and errors."""
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as sdk:
        whole = await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "echo: well said"}])
        assert whole.choices[0].message.content == "well said"
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 0
        stream = await sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "echo: well said"}], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "well said"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
        tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
        called = await sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "use get_weather"}], tools=[tool], tool_choice="auto"
        )
        calls = called.choices[0].message.tool_calls or []
        assert [json.loads(call.function.arguments) for call in calls if call.type == "function"] == [{"city": "simulated"}]
        assert called.choices[0].finish_reason == "tool_calls"
        format_: Any = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}
        filled = await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], response_format=format_)
        assert json.loads(filled.choices[0].message.content or "") == {"city": "simulated"}
        with pytest.raises(openai.BadRequestError):
            await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], max_tokens=999_999)
        text = await sdk.completions.create(model="m", prompt="echo: plain")
        assert text.choices[0].text == "plain"
        response = await sdk.responses.create(model="m", input="echo: in response")
        assert (response.output_text, response.status) == ("in response", "completed")
        async with await sdk.responses.create(model="m", input="echo: in response", stream=True) as events:
            kinds = [event.type async for event in events]
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


@pytest.mark.parametrize("flavour", ["vllm", "sglang"])
async def test_anthropic_sdk(flavour: str) -> None:
    """The Anthropic SDK reads whole answers, streams and tool uses."""
    async with running(flavour=flavour, model="m", **FAST) as engine:
        sdk = anthropic.AsyncAnthropic(base_url=engine.url, api_key="none", max_retries=0)
        async with sdk:
            whole = await sdk.messages.create(model="m", max_tokens=50, messages=[{"role": "user", "content": "echo: well said"}])
            assert (whole.content[0].type, whole.stop_reason) == ("text", "end_turn")
            async with sdk.messages.stream(model="m", max_tokens=50, messages=[{"role": "user", "content": "echo: well said"}]) as stream:
                assert "".join([text async for text in stream.text_stream]) == "well said"
            tool: Any = {"name": "get_weather", "input_schema": WEATHER}
            async with sdk.messages.stream(
                model="m", max_tokens=50, messages=[{"role": "user", "content": "x"}], tools=[tool], tool_choice={"type": "any"}
            ) as stream:
                final = await stream.get_final_message()
            assert final.stop_reason == "tool_use"
            assert [block.input for block in final.content if block.type == "tool_use"] == [{"city": "simulated"}]
