"""After a mixed run the metrics say what clients saw and what the engines did: counted once each, by the same names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from harness.sim import FLAVOURS, SimEngine, running
from tests.support.gateway_process import GatewayProcess, gateway_process, total, until, until_holds
from tests.support.outcomes import client

CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES = (
    f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "messages", "responses")
)
SPEAKS = {
    "vllm": (CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES),
    "sglang": (CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES),
    "trtllm": (CHAT, COMPLETIONS, RESPONSES),
}
COUNTING = {"/v1/messages/count_tokens": "/v1/messages/count_tokens", "/v1/tokenize": "/tokenize"}
"""What uses no tokens, and its path at vLLM."""
AT_ENGINE = {*SPEAKS["vllm"], *COUNTING.values()}


@dataclass
class Seen:
    """What clients saw, all of them together."""

    requests: Counter[str] = field(default_factory=Counter)
    """path -> requests."""
    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(path, status, error code) -> answers."""
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(model, input or output) -> tokens, as the answers told them."""

    def told(self, model: str, usage: dict[str, Any]) -> None:
        """Add the usage of an answer, in whichever dialect."""
        cached = usage.get("cache_read_input_tokens") or 0
        read = usage.get("prompt_tokens") or (usage.get("input_tokens") or 0) + cached
        self.tokens[model, "input"] += read
        self.tokens[model, "output"] += usage.get("completion_tokens") or usage.get("output_tokens") or 0


def request(path: str, model: str, number: int, stream: bool) -> dict[str, Any]:
    """A request for one path; every stream asks for usage where it can."""
    text = f"request {number} says something of its own"
    match path:
        case "/v1/embeddings":
            return {"model": model, "input": text}
        case "/v1/completions":
            asked: dict[str, Any] = {"model": model, "prompt": text, "max_tokens": 12}
        case "/v1/responses":
            return {"model": model, "input": text, "max_output_tokens": 12, "stream": stream}
        case _:
            asked = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 12}
    if stream:
        asked["stream"] = True
        if path != MESSAGES:
            asked["stream_options"] = {"include_usage": True}
    return asked


async def ask(http: httpx.AsyncClient, gateway: GatewayProcess, seen: Seen, path: str, body: dict[str, Any]) -> None:
    """Send a request and note what came."""
    model = body["model"]
    seen.requests[path] += 1
    answer = await http.post(gateway.url + path, json=body)
    code = answer.headers.get("x-smg-error-code", "")
    if answer.headers["content-type"].startswith("text/event-stream"):
        usage: dict[str, Any] = {}
        for line in answer.text.splitlines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            for holder in (event, event.get("message") or {}, event.get("response") or {}):
                usage |= {name: count for name, count in (holder.get("usage") or {}).items() if count is not None}
            if "error" in event:
                code = (event["error"] or {}).get("code") or "stream_broken"
        seen.told(model, usage)
    elif answer.status_code == 200:
        seen.told(model, answer.json().get("usage") or {})
    seen.answers[path, str(answer.status_code), code] += 1


def ledger(engines: list[SimEngine], name: str) -> int:
    return sum(getattr(engine.state(), name) for engine in engines)


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_mixed_run(tmp_path: pathlib.Path, processes: int) -> None:
    """Requests, answers by status and code, tokens by model, attempts, retries, answers of each worker: gateway, clients, engines agree."""
    seen = Seen()
    async with contextlib.AsyncExitStack() as stack:
        engines = {
            flavour: [await stack.enter_async_context(running(flavour=flavour, model=f"sim-{flavour}", seed=at)) for at in range(2)]
            for flavour in FLAVOURS
        }
        every = [engine for pair in engines.values() for engine in pair]
        config = {
            "workers": [{"url": engine.url} for engine in every],
            "breaker": {"enabled": False},
            "retry": {"max_attempts": 3, "initial_backoff_s": 0, "budget_ratio": 10},
            "routing": {"policy": "round_robin"},
        }
        gateway = await stack.enter_async_context(gateway_process(tmp_path, config, processes=processes))
        http = await stack.enter_async_context(client())
        await until(gateway.metrics, lambda page: total(page, "smg_worker_health") == len(every))

        for round_ in range(3):
            asked = [
                ask(http, gateway, seen, path, request(path, f"sim-{flavour}", number, number % 2 == 1 and path != EMBEDDINGS))
                for flavour, paths in SPEAKS.items()
                for path in paths
                for number in range(round_ * 4, round_ * 4 + 4)
            ]
            for pair in engines.values():  # an error each: a retry on the other engine, which nobody sees
                for engine in pair:
                    engine.faults(kind="error", times=1)
            asked += [ask(http, gateway, seen, CHAT, request(CHAT, "nobody", number, number % 2 == 1)) for number in range(2)]
            asked += [ask(http, gateway, seen, CHAT, {"model": 7}) for _ in range(2)]
            asked += [ask(http, gateway, seen, CHAT, {**request(CHAT, "sim-vllm", 0, False), "max_tokens": -1}) for _ in range(2)]
            asked += [ask(http, gateway, seen, MESSAGES, request(MESSAGES, "sim-trtllm", 0, False)) for _ in range(2)]
            asked += [ask(http, gateway, seen, path, request(MESSAGES, "sim-vllm", 0, False)) for path in COUNTING]
            await asyncio.gather(*asked)
        assert sum(engine.state().fault_hits for engine in every) == 3 * len(every)
        for engine in engines["sglang"]:  # nobody can answer: three attempts, and the engine's own 500 for the client
            engine.faults(kind="error", path=COMPLETIONS, status=500)
        for _ in range(3):
            await ask(http, gateway, seen, COMPLETIONS, request(COMPLETIONS, "sim-sglang", 0, False))

        page = await gateway.metrics()
        assert total(page, "smg_http_requests_total") == sum(seen.requests.values())
        for path, count in seen.requests.items():
            assert (
                total(page, "smg_http_requests_total", path=path)
                == count
                == total(page, "smg_http_request_duration_seconds_count", path=path)
            )
        for (path, status, code), count in seen.answers.items():
            assert total(page, "smg_http_responses_total", path=path, status_code=status, error_code=code) == count, (path, status, code)
        assert total(page, "smg_http_responses_total") == sum(seen.answers.values()) == sum(seen.requests.values())
        assert {status for _, status, _ in seen.answers} == {"200", "400", "404", "500"}

        for (model, kind), count in seen.tokens.items():
            assert total(page, "smg_router_tokens_total", model=model, token_type=kind) == count, (model, kind)
        assert total(page, "smg_router_tokens_total", token_type="input") == ledger(every, "prompt_tokens")
        steps = seen.requests[EMBEDDINGS]  # a simulated engine takes one step for an embedding, and counts it as a token
        assert total(page, "smg_router_tokens_total", token_type="output") == ledger(every, "generated_tokens") - steps
        assert total(page, "smg_router_usage_missing_total") == 0

        posts = {engine.url: sum(count for path, count in engine.state().paths.items() if path in AT_ENGINE) for engine in every}
        for engine in every:
            assert total(page, "smg_worker_selection_total", worker=engine.url) == posts[engine.url]
            assert total(page, "smg_router_upstream_responses_total", worker=engine.url) == posts[engine.url]
            assert total(page, "smg_router_upstream_responses_total", worker=engine.url, status_code="500") == engine.state().fault_hits
        routed = sum(seen.requests.values()) - sum(
            n for (_, _, code), n in seen.answers.items() if code in ("model_not_found", "invalid_request")
        )
        assert total(page, "smg_router_requests_total") == routed
        assert sum(posts.values()) == routed + total(page, "smg_worker_retries_total")
        assert total(page, "smg_worker_retries_exhausted_total") == 3
        for gauge in ("smg_worker_requests_active", "smg_scheduler_inflight", "smg_scheduler_waiting"):
            assert total(page, gauge) == 0


async def test_clients_that_leave(tmp_path: pathlib.Path) -> None:
    """What was abandoned is counted as 499 and nothing else, and its tokens are no more than the engine generated."""
    async with running(decode_base_ms=10.0) as engine, client() as http, contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(gateway_process(tmp_path, {"workers": [{"url": engine.url}]}))
        body = {**request(CHAT, "sim-model", 1, True), "max_tokens": 3000, "ignore_eos": True}
        for _ in range(5):
            async with http.stream("POST", gateway.url + CHAT, json=body) as answer:
                await anext(answer.aiter_lines())
        quiet = {name: value for name, value in body.items() if not name.startswith("stream")}
        whole = [asyncio.ensure_future(http.post(gateway.url + CHAT, json=quiet)) for _ in range(5)]
        await until_holds(lambda: engine.state().running >= 5)
        for one in whole:
            one.cancel()
        await asyncio.gather(*whole, return_exceptions=True)
        await until_holds(lambda: engine.state().running == 0)
        page = await until(gateway.metrics, lambda page: total(page, "smg_http_requests_total") == 10)
        assert total(page, "smg_http_responses_total", status_code="499", error_code="client_gone") == 10
        assert total(page, "smg_http_responses_total") == 10 == engine.state().aborted
        assert total(page, "smg_router_request_errors_total", error_type="client_gone") == 10
        assert 0 < total(page, "smg_router_tokens_total", token_type="output") <= engine.state().generated_tokens + 10
        assert total(page, "smg_worker_errors_total") == total(page, "smg_worker_requests_active") == 0
