"""The eight bugs that users of other gateways report again and again, one test each: none of them is here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import signal
import socket
from collections import Counter
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import openai
import psutil

from harness.sim import FLAVOURS, SimEngine, running
from tests.support.collector import Collector
from tests.support.gateway_process import GatewayProcess, gateway_process, total, until, until_holds
from tests.support.outcomes import CHAT, MODEL, ask, body, client

MIB = 1 << 20
ECHOED = "one two three four five six seven eight"


def idle(*engines: SimEngine) -> bool:
    """No engine works on anything."""
    return all(one.state().running == one.state().waiting == 0 for one in engines)


async def test_1_a_truncated_answer_is_never_a_success(tmp_path: pathlib.Path) -> None:
    """Broken before its first event it comes from another engine, broken later the client is told so; whole answers always come."""
    faults: list[tuple[dict[str, Any], bool, bool]] = [  # fault, streamed, repaired
        ({"kind": kind, "after_events": after}, True, after == 0)
        for kind in ("reset", "truncated_chunk", "no_done", "broken_event")
        for after in (0, 1, 5)
        if (kind, after) != ("no_done", 0)  # that one is the end mark alone, see below
    ]
    faults += [({"kind": kind, "after_events": 2}, False, True) for kind in ("reset", "short_body", "wrong_json", "truncated_chunk")]
    async with running() as bad, running() as good, client() as http:
        config = {"workers": [{"url": bad.url, "priority": 90}, {"url": good.url}], "breaker": {"enabled": False}}
        async with gateway_process(tmp_path, config) as gateway:
            await until(gateway.metrics, lambda page: total(page, "smg_worker_health") == 2)
            broken = 0
            for fault, stream, repaired in faults:
                bad.faults(**fault, times=1)
                seen = await ask(http, gateway.url, body(f"echo: {ECHOED}", stream=stream))
                if repaired:
                    assert seen.ok and seen.text == ECHOED, (fault, seen)
                else:
                    broken += 1
                    assert not seen.ok and seen.error == "stream_broken" and not seen.done, (fault, seen)
                    assert ECHOED.startswith(seen.text) and seen.text != ECHOED, "nothing comes twice, nothing is made up"
            assert bad.state().fault_hits == len(faults)
            bad.faults(kind="no_done", times=1)
            seen = await ask(http, gateway.url, body(f"echo: {ECHOED}", stream=True))
            assert (seen.status, seen.text, seen.error) == (200, ECHOED, ""), "every choice has its finish: nothing is missing"
            page = await gateway.metrics()
            assert total(page, "smg_worker_streams_broken_total", worker=bad.url) == broken
            assert total(page, "smg_http_responses_total", error_code="stream_broken") == broken


async def test_2_tool_calls_come_in_one_piece(tmp_path: pathlib.Path) -> None:
    """Parallel calls of several choices at once keep their index, id, name and every byte of their arguments."""
    names = ["get_weather", "get_time", "get_news"]
    tools: list[Any] = [
        {
            "type": "function",
            "function": {"name": name, "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
        }
        for name in names
    ]
    messages: list[Any] = [{"role": "user", "content": "call get_weather, get_time and get_news"}]

    async def streamed(api: openai.AsyncOpenAI, model: str) -> dict[tuple[int, int], list[str]]:
        joined: dict[tuple[int, int], list[str]] = {}
        stream = await api.chat.completions.create(model=model, messages=messages, tools=tools, n=2, stream=True)
        async for chunk in stream:
            for choice in chunk.choices:
                for piece in choice.delta.tool_calls or []:
                    call = joined.setdefault((choice.index, piece.index), ["", "", ""])
                    for at, part in enumerate(
                        (piece.id, piece.function and piece.function.name, piece.function and piece.function.arguments)
                    ):
                        call[at] += part or ""
        return joined

    async with contextlib.AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(running(flavour=flavour, model=f"sim-{flavour}")) for flavour in FLAVOURS]
        gateway = await stack.enter_async_context(gateway_process(tmp_path, {"workers": [{"url": one.url} for one in engines]}))
        await until(gateway.metrics, lambda page: total(page, "smg_worker_health") == len(engines))
        api = await stack.enter_async_context(openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0))
        for flavour, engine in zip(FLAVOURS, engines, strict=True):
            straight = await stack.enter_async_context(openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0))
            wanted = {at: call[1:] for at, call in (await streamed(straight, f"sim-{flavour}")).items()}
            assert sorted(wanted) == [(choice, index) for choice in (0, 1) for index in (0, 1, 2)]
            for joined in await asyncio.gather(*(streamed(api, f"sim-{flavour}") for _ in range(8))):
                assert {at: call[1:] for at, call in joined.items()} == wanted
                assert len({call[0] for call in joined.values()}) == len(joined) and all(call[0] for call in joined.values())
                assert [joined[choice, 0][1] for choice in (0, 1)] == names[:1] * 2
                assert all(json.loads(call[2]).keys() == {"a"} for call in joined.values())


async def test_3_usage_is_counted_once_whatever_happens(tmp_path: pathlib.Path) -> None:
    """Tokens of whole answers, of streams with and without usage, of retries, broken and abandoned streams: what the engines generated."""
    async with running() as first, running() as second, client() as http:
        config = {"workers": [{"url": first.url, "priority": 90}, {"url": second.url}], "breaker": {"enabled": False}}
        async with gateway_process(tmp_path, config) as gateway:
            await until(gateway.metrics, lambda page: total(page, "smg_worker_health") == 2)

            async def counted() -> tuple[float, float]:
                page = await gateway.metrics()
                return total(page, "smg_router_tokens_total", token_type="input"), total(
                    page, "smg_router_tokens_total", token_type="output"
                )

            def made() -> tuple[int, int]:
                states = [one.state() for one in (first, second)]
                return sum(state.prompt_tokens for state in states), sum(state.generated_tokens for state in states)

            for stream in (False, True):
                for number in range(5):
                    options = {"stream_options": {"include_usage": True}} if number % 2 and stream else {}
                    assert (await ask(http, gateway.url, body(f"ask {number}", stream=stream, **options))).ok
            assert await counted() == made(), "complete answers"

            for stream in (False, True):
                first.faults(kind="error", times=1)  # nothing is generated for it: the retry alone counts
                assert (await ask(http, gateway.url, body("again", stream=stream))).ok
            assert await counted() == made(), "retries"

            before, ours = made(), await counted()
            first.faults(kind="reset", after_events=6, times=1)
            assert not (await ask(http, gateway.url, body("cut off half-way", stream=True, max_tokens=30))).ok
            cut, now = made(), await counted()
            assert 0 < now[1] - ours[1] <= cut[1] - before[1] and now[1] - ours[1] >= 5, "a broken stream counts as far as it got"

            before, ours = cut, now
            async with http.stream(
                "POST", gateway.url + CHAT, json=body("left alone", stream=True, max_tokens=2000, ignore_eos=True)
            ) as answer:
                seen = 0
                async for line in answer.aiter_lines():
                    seen += line.startswith("data: ")
                    if seen == 10:
                        break
            await until_holds(lambda: idle(first, second))
            now = await until(counted, lambda value: value[1] > ours[1])
            assert 9 <= now[1] - ours[1] <= made()[1] - before[1] + 1 < 1000, "so does one whose client left"
            page = await gateway.metrics()
            assert total(page, "smg_router_usage_missing_total") == 2, "both are marked as estimates"


async def test_4_memory_does_not_grow_under_streams(tmp_path: pathlib.Path) -> None:
    """Readers that stop hold a bounded amount each, and hundreds of streams later the gateway has the memory it had."""
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(running(decode_base_ms=0, decode_per_req_ms=0, max_model_len=300_000, kv_tokens=4_000_000))
        gateway = await stack.enter_async_context(gateway_process(tmp_path, {"workers": [{"url": engine.url}]}))
        async with client() as http:
            memory = psutil.Process(gateway.pid).memory_info
            short = body(f"echo: {ECHOED}", stream=True)

            async def round_of(count: int) -> int:
                for _ in range(count // 50):
                    assert all(seen.ok for seen in await asyncio.gather(*(ask(http, gateway.url, short) for _ in range(50))))
                return memory().rss

            settled = await round_of(200)
            made = engine.state().generated_tokens
            slow = []
            for _ in range(4):
                reader, writer = await _connect(gateway, small=True)
                await _send(writer, body("never read", stream=True, max_tokens=100_000, ignore_eos=True))
                slow.append((reader, writer))
            await until_holds(lambda: engine.state().generated_tokens - made == 4 * 100_000, 60, lambda: engine)
            held = memory().rss
            assert held - settled < 4 * MIB, "of 70 MB that wait for a reader, less than 1 MiB a reader waits in the gateway"
            await asyncio.sleep(0.5)
            assert memory().rss - held < 2 * MIB
            for _, writer in slow:
                await _cut(writer)
            await until_holds(lambda: idle(engine), 20, lambda: engine)
            after = await round_of(200)
            assert await round_of(400) - after < 4 * MIB


async def test_5_an_engine_hears_that_its_client_left(tmp_path: pathlib.Path) -> None:
    """Streams, whole answers and requests in the queue: all is aborted, every permit comes back, and nobody is blamed."""
    async with running(decode_base_ms=20.0) as engine, client() as http:
        config = {"workers": [{"url": engine.url}], "admission": {"max_concurrent_requests": 6}}
        async with gateway_process(tmp_path, config) as gateway:
            long = [body(f"ask {at}", stream=at % 2 == 0, max_tokens=5000, ignore_eos=True) for at in range(10)]
            running_now = [asyncio.ensure_future(ask(http, gateway.url, one)) for one in long[:6]]
            await until_holds(lambda: engine.state().running == 6, what=lambda: engine)
            queued = [asyncio.ensure_future(ask(http, gateway.url, one)) for one in long[6:]]
            await until(gateway.metrics, lambda page: page["smg_scheduler_waiting"] == 4)
            for asking in (queued, running_now):
                for one in asking:
                    one.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
                await until(gateway.metrics, lambda page: page["smg_scheduler_waiting"] == 0)
            await until_holds(lambda: idle(engine) and engine.state().aborted == 6, 5, lambda: engine)
            page = await until(gateway.metrics, lambda page: page["smg_scheduler_inflight"] == 0)
            assert page["smg_scheduler_waiting"] == 0 and total(page, "smg_worker_requests_active") == 0
            assert total(page, "smg_http_responses_total", status_code="499", error_code="client_gone") == 10
            assert total(page, "smg_worker_errors_total") == 0
            assert engine.state().paths[CHAT] == 6, "those that waited never reached it"
            assert (await ask(http, gateway.url, body())).ok


async def test_6_a_reload_cuts_nothing_and_forgets_nothing(tmp_path: pathlib.Path) -> None:
    """Streams go on over reloads and changes by API; counters, load and workers added while it ran are kept."""
    async with running(decode_base_ms=10.0) as first, running(decode_base_ms=10.0) as second, client() as http:
        config: dict[str, Any] = {"workers": [{"url": first.url}]}
        async with gateway_process(tmp_path, config) as gateway:
            added = await http.post(f"{gateway.url}/workers", json={"url": second.url})
            assert added.status_code in (200, 201, 202), added.text
            await until(gateway.metrics, lambda page: total(page, "smg_worker_health") == 2)
            for _ in range(3):
                assert (await ask(http, gateway.url, body())).ok
            streams = [
                asyncio.ensure_future(ask(http, gateway.url, body(f"ask {at}", stream=True, max_tokens=150, ignore_eos=True)))
                for at in range(8)
            ]
            await until_holds(lambda: first.state().running + second.state().running == 8)
            policies = ["round_robin", "least_load", "power_of_two", "random", "cache_aware"]
            for number, policy in enumerate(policies):
                changed = {**config, "routing": {"policy": policy}, "retry": {"max_attempts": number + 1}}
                if number % 2:
                    answer = await http.put(
                        f"{gateway.url}/config", content=gateway.text(changed), headers={"content-type": "application/yaml"}
                    )
                    assert answer.status_code == 200, answer.text
                else:
                    gateway.write(changed)
                    gateway.child.signal(signal.SIGHUP)
                page = await until(gateway.metrics, lambda page, wanted=number + 2: page["smg_config_version"] == wanted)  # type: ignore[misc]
                assert total(page, "smg_worker_requests_active") == 8 == first.state().running + second.state().running
                assert total(page, "smg_http_requests_total", path=CHAT) >= 3
            ends = await asyncio.gather(*streams)
            assert all(seen.ok for seen in ends), [seen for seen in ends if not seen.ok]
            listed = (await http.get(f"{gateway.url}/workers")).json()["workers"]
            assert {worker["url"]: worker["status"] for worker in listed} == {first.url: "ready", second.url: "ready"}
            assert (await gateway.metrics())["smg_config_last_apply_successful"] == 1


async def test_7_every_process_sees_the_load_of_all(tmp_path: pathlib.Path) -> None:
    """Load that one process put on an engine keeps the other process away from it."""
    async with running(decode_base_ms=20.0, aliases=("only-here",)) as busy, running(decode_base_ms=20.0) as free:
        config = {"workers": [{"url": busy.url}, {"url": free.url}], "routing": {"policy": "least_load"}}
        async with gateway_process(tmp_path, config, processes=2) as gateway, contextlib.AsyncExitStack() as stack:
            await until(gateway.metrics, lambda page: total(page, "smg_worker_health") == 2)
            by_process: dict[int, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {one.pid: [] for one in gateway.serving()}
            assert len(by_process) == 2
            async with asyncio.timeout(20):
                while min(len(found) for found in by_process.values()) < 10:
                    reader, writer = await _connect(gateway)
                    stack.push_async_callback(_cut, writer)
                    by_process[await _process_of(writer, gateway)].append((reader, writer))
            one, other = by_process.values()
            for _, writer in one[:10]:
                await _send(writer, {**body("load", stream=True, max_tokens=3000, ignore_eos=True), "model": "only-here"})
            await until_holds(lambda: busy.state().running == 10, what=busy.state)
            for number, (_, writer) in enumerate(other[:10]):
                await _send(writer, body(f"more {number}", stream=True, max_tokens=3000, ignore_eos=True))
                await until_holds(lambda wanted=number + 1: free.state().running + busy.state().running == 10 + wanted)  # type: ignore[misc]
            assert (busy.state().running, free.state().running) == (10, 10)
            page = await gateway.metrics()
            assert {url: total(page, "smg_worker_requests_active", worker=url) for url in (busy.url, free.url)} == {
                busy.url: 10,
                free.url: 10,
            }


async def test_8_credentials_and_prompts_stay_inside(tmp_path: pathlib.Path) -> None:
    """No key of a client or a worker, and no prompt, is in a log, an error, a metric, a trace, or the control plane's answers."""
    client_key, admin_key, worker_key, wrong_key = (f"sk-{name}-0123456789abcdef" for name in ("client", "admin", "worker", "wrong"))
    prompt = "my grandmother's maiden name"
    keys = [
        {"id": "app", "sha256": sha256(client_key.encode()).hexdigest()},
        {"id": "ops", "sha256": sha256(admin_key.encode()).hexdigest(), "roles": ["admin"]},
    ]
    secrets = [client_key, admin_key, worker_key, wrong_key, prompt, *(str(one["sha256"]) for one in keys)]
    with Collector() as collector:
        async with running(api_key=worker_key) as engine, running(api_key="another-0123456789abcdef") as refusing, client() as http:
            config = {
                "workers": [
                    {"url": engine.url, "api_key": worker_key},
                    {"url": refusing.url, "api_key_env": "WORKER_KEY", "models": [MODEL], "engine": "vllm", "priority": 90},
                ],
                "auth": {"keys": keys},
                "log": {"level": "debug", "json_lines": True, "access": True},
                "trace": {"enabled": True, "endpoint": collector.endpoint},
                "retry": {"max_attempts": 2},
                "breaker": {"enabled": False},
            }
            async with gateway_process(tmp_path, config, env={"WORKER_KEY": worker_key}) as gateway:
                said: list[str] = []
                for key, path in (
                    (client_key, CHAT),
                    (wrong_key, CHAT),
                    (client_key, "/v1/messages"),
                    (client_key, "/v1/nothing"),
                    ("", CHAT),
                ):
                    for name in ("authorization", "x-api-key"):
                        headers = {name: f"Bearer {key}" if name == "authorization" else key} if key else {}
                        for fault in (None, "error", "reset", "garbage", "wrong_json"):
                            if fault is not None:
                                engine.faults(kind=fault, times=1, after_events=2)
                            for stream in (False, True):
                                ask_it = body(prompt, stream=stream)
                                answer = await http.post(gateway.url + path, json=ask_it, headers=headers)
                                said.append(f"{answer.status_code} {answer.headers} {answer.text}")
                            engine.clear_faults()
                answer = await http.post(
                    gateway.url + CHAT, content=f'{{"model": "{prompt}', headers={"authorization": f"Bearer {client_key}"}
                )
                said.append(answer.text)
                assert Counter(one.split(" ")[0] for one in said if one[:3].isdigit())["200"] >= 4, "some were answered"
                admin = {"authorization": f"Bearer {admin_key}"}
                said += [(await http.get(gateway.url + path, headers=admin)).text for path in ("/workers", "/config", "/status")]
                bad = gateway.text({**config, "routing": {"policy": "none"}})
                refused = await http.put(f"{gateway.url}/config", content=bad, headers={**admin, "content-type": "application/yaml"})
                assert refused.status_code == 400
                said += [refused.text, (await http.get(gateway.metrics_url)).text]
                gateway.write({**config, "nonsense": worker_key})
                gateway.child.signal(signal.SIGHUP)
                await until(gateway.metrics, lambda page: page["smg_config_last_apply_successful"] == 0)
                engine_heard = [one.header("authorization") for one in engine.state().last if one.target.startswith("/v1/")]
                assert set(engine_heard) == {f"Bearer {worker_key}"}, "the client's key stays here"
                assert gateway.child.stop() == 0
                said += [gateway.log, *(str(span) for span in collector.spans)]
                assert collector.spans and '"path":"/v1/chat/completions"' in gateway.log
    found = {(secret, text[max(0, text.index(secret) - 200) :][:400]) for secret in secrets for text in said if secret in text}
    assert not found, found


async def _connect(gateway: GatewayProcess, *, small: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect; `small` buffers let the client read next to nothing."""
    parts = urlsplit(gateway.url)
    one = socket.socket()
    if small:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    await asyncio.get_running_loop().sock_connect(one, (parts.hostname, parts.port))
    return await asyncio.open_connection(sock=one, limit=1024)


async def _send(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
    content = json.dumps(request).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    await writer.drain()


async def _cut(writer: asyncio.StreamWriter) -> None:
    """Leave without a word."""
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _process_of(writer: asyncio.StreamWriter, gateway: GatewayProcess) -> int:
    """Which process has accepted a connection."""
    port = writer.get_extra_info("sockname")[1]

    async def holder() -> int:
        for one in gateway.serving():
            if any(found.raddr and found.raddr.port == port for found in one.net_connections("tcp")):
                return one.pid
        return 0

    return await until(holder)
