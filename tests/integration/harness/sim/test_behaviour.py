"""Load, cache, cancellation and connections of a simulated engine, over sockets."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from harness.sim import SimEngine, running
from tests.support.rawhttp import Ended, ask
from tests.support.wire import event_shapes, load

PATH = "/v1/chat/completions"


def chat(content: str, **more: Any) -> dict[str, Any]:
    """Return a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


async def until(condition: Any) -> None:
    """Wait for a condition, for five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def metric(text: str, name: str) -> float:
    """Return the value of a metric without more labels than its engine's."""
    match = re.search(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.M)
    assert match is not None, name
    return float(match[1])


async def test_streams_without_logprobs_have_the_recorded_events() -> None:
    """The short way of plain text tokens writes what the recordings show, but for the logprobs that it leaves null."""
    for flavour, folder in (("vllm", "vllm-0.32-http"), ("sglang", "sglang-0.5.23-http")):
        recorded = [
            (name, re.sub(r'"logprobs":\{"content":\[.*\]\},"finish', '"logprobs":null,"finish', data))
            for name, data in load(folder, "chat-stream").events
        ]
        async with running(flavour=flavour, model="m", decode_base_ms=0.1) as engine:
            seen = await ask(engine.url, PATH, chat("hi", stream=True, max_tokens=4, stream_options={"include_usage": True}))
        events = [(None, chunk.decode().removeprefix("data: ").strip()) for chunk in seen.chunks[0]]
        assert event_shapes(events) == event_shapes(recorded)


async def test_same_seed_same_answer() -> None:
    """Two engines with a seed say the same to the same prompt; another seed says something else."""
    answers = []
    for seed in (1, 1, 2):
        async with running(model="m", seed=seed, decode_base_ms=0.1) as engine, httpx.AsyncClient(base_url=engine.url) as client:
            answers.append((await client.post(PATH, json=chat("hello"))).json()["choices"][0]["message"]["content"])
    assert answers[0] == answers[1] != answers[2]


async def test_a_full_batch_makes_requests_wait() -> None:
    """With one slot the second request waits, and load shows in state, metrics and SGLang's loads."""
    async with running(flavour="sglang", model="m", max_running=1, decode_base_ms=3) as engine:
        client = httpx.AsyncClient(base_url=engine.url, timeout=10)
        async with client:
            long = asyncio.ensure_future(client.post(PATH, json=chat("a", max_tokens=60, ignore_eos=True)))
            await until(lambda: engine.state().running == 1)
            short = asyncio.ensure_future(client.post(PATH, json=chat("b", max_tokens=1)))
            await until(lambda: engine.state().waiting == 1)
            loads = (await client.get("/v1/loads")).json()["loads"][0]
            assert (loads["num_running_reqs"], loads["num_waiting_reqs"]) == (1, 1)
            text = (await client.get("/metrics")).text
            assert (metric(text, "sglang:num_running_reqs"), metric(text, "sglang:num_queue_reqs")) == (1.0, 1.0)
            assert metric(text, "sglang:gen_throughput") > 0
            await short
            assert long.done()
            assert (await long).status_code == 200


async def test_time_to_first_token_grows_with_the_prompt() -> None:
    """A long prompt takes prefill time; the same prompt again comes out of the prefix cache."""
    prompt = " ".join(f"word{place}" for place in range(2_000))
    async with running(model="m", prefill_tps=20_000, decode_base_ms=1) as engine, httpx.AsyncClient(base_url=engine.url) as client:
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(2):
            started = loop.time()
            answer = await client.post(PATH, json=chat(prompt, max_tokens=1))
            times.append(loop.time() - started)
        assert answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 3_000
        assert times[0] > 0.15 > times[1]
        text = (await client.get("/metrics")).text
        assert metric(text, "vllm:prefix_cache_hits_total") == engine.state().cached_tokens > 3_000
        assert metric(text, "vllm:time_to_first_token_seconds_count") == 2
        assert metric(text, "vllm:generation_tokens_total") == 2


async def test_adapters_have_caches_of_their_own() -> None:
    """What the base model cached is not the adapter's."""
    prompt = "x" * 600
    async with running(model="m", loras=("tuned",), decode_base_ms=0.1) as engine, httpx.AsyncClient(base_url=engine.url) as client:
        cached = []
        for model in ("m", "m", "tuned", "tuned"):
            answer = await client.post(PATH, json={**chat(prompt, max_tokens=1), "model": model})
            cached.append(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 0)
        assert cached == [False, True, False, True]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_slot(stream: bool) -> None:
    """A client that closes its connection is noticed at once: the request leaves the batch."""
    async with running(model="m", decode_base_ms=5) as engine:
        body = chat("a", max_tokens=5_000, ignore_eos=True, stream=stream)
        seen = asyncio.ensure_future(ask(engine.url, PATH, body, quiet_s=5))
        await until(lambda: engine.state().generated_tokens > 2)
        seen.cancel()
        await until(lambda: engine.state().running == 0)
        state = engine.state()
        assert (state.aborted, state.finished, state.kv_used_tokens) == (1, 0, 0)


async def test_a_slow_client_is_seen_and_held_back() -> None:
    """A client that does not read stops the writing; the engine keeps serving others."""
    async with running(model="m", decode_base_ms=0.05, decode_per_req_ms=0, prefill_tps=0) as engine:
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.port, limit=1_024)
        body = b'{"model":"m","messages":[{"role":"user","content":"a"}],"stream":true,"ignore_eos":true,"max_tokens":32000}'
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: engine.state().slow_clients == 1)
        assert (await ask(engine.url, PATH, chat("b", max_tokens=2))).status == 200
        received = 0
        while b"data: [DONE]" not in (piece := await reader.read(65_536)):
            received += len(piece)
        assert received > 32_000 * 100
        assert engine.state().slow_clients == 0
        writer.close()
        await writer.wait_closed()


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests that come before the answer to the first are answered one after the other."""
    async with running(model="m", decode_base_ms=1) as engine:
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
        for path in (b"/version", b"/nope", b"/health"):
            last = b"connection: close\r\n" if path == b"/health" else b""
            writer.write(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n" + last + b"\r\n")
        text = (await reader.read(-1)).decode()
        writer.close()
        await writer.wait_closed()
    assert re.findall(r"HTTP/1.1 (\d+)", text) == ["200", "404", "200"]


async def test_idle_connections_are_closed() -> None:
    """A connection that is idle past the keep-alive time is closed by the engine."""
    async with running(model="m", keep_alive_s=0.05) as engine:
        seen = await ask(engine.url, "/health", headers={"connection": "keep-alive"}, quiet_s=2)
        assert (seen.status, seen.ended) == (200, Ended.CLOSED)
        assert seen.seconds >= 0.05


async def test_state_tells_what_came() -> None:
    """State has the requests byte for byte, with header names as sent, and counts by path and status."""
    async with running(model="m", decode_base_ms=0.1) as engine:
        await ask(engine.url, PATH + "?a=1", chat("hi", max_tokens=1), headers={"X-Odd-Case": "v"})
        await ask(engine.url, "/nope")
        state = engine.state()
        assert (state.requests, state.paths, state.statuses) == (2, {PATH: 1, "/nope": 1}, {"200": 1, "404": 1})
        first = state.last[0]
        assert (first.method, first.target, first.header("x-odd-case")) == ("POST", PATH + "?a=1", "v")
        assert ("X-Odd-Case", "v") in first.headers
        async with httpx.AsyncClient(base_url=engine.url) as client:
            told = (await client.get("/_sim/state")).json()
        assert (told["requests"], told["flavour"], told["last"][1]["target"]) == (2, "vllm", "/nope")


async def test_nothing_is_left_behind() -> None:
    """Leaving `running` ends streams, connections and timers."""
    before = len(asyncio.all_tasks())
    async with running(model="m", decode_base_ms=50) as engine:
        streams = [asyncio.ensure_future(ask(engine.url, PATH, chat("a", stream=True), quiet_s=5)) for _ in range(5)]
        await until(lambda: engine.state().running == 5)
        kept: SimEngine = engine
    results = await asyncio.gather(*streams)
    assert {seen.ended for seen in results} <= {Ended.CLOSED, Ended.RESET}
    assert kept.connections == set()
    assert len(asyncio.all_tasks()) == before
