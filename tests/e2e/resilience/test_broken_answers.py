"""Every way in which an engine's answer can go wrong, and what the client sees of it: nothing before the first byte, the truth after."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.sim import SimEngine, running
from tests.support.gateway_process import GatewayProcess, gateway_process, total, until, until_holds
from tests.support.outcomes import CHAT, ask, body, client

Two = tuple[GatewayProcess, SimEngine, SimEngine]
UNCHECKED = {"interval_s": 60}
"""Health checks that do not find out what requests are to find out."""


@contextlib.asynccontextmanager
async def two_engines(
    folder: pathlib.Path, config: dict[str, Any] | None = None
) -> AsyncIterator[tuple[GatewayProcess, SimEngine, SimEngine]]:
    """A gateway before two engines which get requests in turn."""
    async with running(decode_base_ms=1.0) as first, running(decode_base_ms=1.0) as second:
        whole = {"routing": {"policy": "round_robin"}, "health": UNCHECKED, "workers": [{"url": first.url}, {"url": second.url}]}
        async with gateway_process(folder, {**whole, **(config or {})}) as gateway:
            yield gateway, first, second


async def breaker_of(gateway: GatewayProcess, engine: SimEngine) -> str:
    async with client() as http:
        workers = (await http.get(f"{gateway.url}/workers")).json()["workers"]
    return str(next(one["breaker"] for one in workers if one["url"] == engine.url))


async def test_what_fails_before_the_first_byte_is_answered_by_the_other_engine(tmp_path: pathlib.Path) -> None:
    """Errors, resets, garbage, cut bodies, broken JSON and answers that never come: the client sees none of them, whole or streamed."""
    limits = {"timeouts": {"first_byte_s": 0.5, "first_token_s": 0.5, "idle_s": 0.5}, "breaker": {"enabled": False}}
    faults: list[tuple[dict[str, Any], tuple[bool, ...]]] = [
        ({"kind": "error", "status": 500}, (False, True)),
        ({"kind": "error", "status": 503}, (False, True)),
        ({"kind": "rate_limit"}, (False, True)),
        ({"kind": "reset"}, (False, True)),
        ({"kind": "reset", "after_events": 1}, (False,)),
        ({"kind": "garbage"}, (False, True)),
        ({"kind": "short_body"}, (False,)),
        ({"kind": "wrong_json"}, (False, True)),
        ({"kind": "stall"}, (False, True)),
        ({"kind": "stall", "after_events": 0}, (True,)),
        ({"kind": "no_done", "after_events": 0}, (True,)),
        ({"kind": "truncated_chunk", "after_events": 0}, (True,)),
        ({"kind": "broken_event", "after_events": 0}, (True,)),
        ({"kind": "latency", "delay_s": 30}, (False, True)),
    ]
    async with two_engines(tmp_path, limits) as (gateway, first, second), client() as http:
        for fault, kinds in faults:
            for stream in kinds:
                first.faults(**fault, times=1)
                outcomes = await asyncio.gather(*(ask(http, gateway.url, body(stream=stream)) for _ in range(2)))
                assert all(one.ok for one in outcomes), (fault, stream, outcomes)
                assert first.armed.armed == (), f"{fault} hit nobody"
                assert len({one.text for one in outcomes}) == 1, f"{fault} changed an answer"
        for engine in (first, second):
            await until_holds(lambda engine=engine: engine.state().running == engine.state().waiting == 0, 1.0)
        metrics = await gateway.metrics()
        tried = sum(len(kinds) for _, kinds in faults)
        moved = 2  # a reset of a connection that was used before is taken for its idle end, and costs no retry
        assert tried - moved <= total(metrics, "smg_worker_retries_total") <= tried
        assert total(metrics, "smg_router_request_errors_total") == 0
        assert total(metrics, "smg_worker_requests_active") == 0


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "reset"}, "stream_broken"),
        ({"kind": "truncated_chunk"}, None),
        ({"kind": "no_done"}, "stream_broken"),
        ({"kind": "broken_event"}, "stream_broken"),
        ({"kind": "stall"}, "upstream_timeout"),
        ({"kind": "crash"}, "stream_broken"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
async def test_what_breaks_after_it_began_ends_in_an_error_event(tmp_path: pathlib.Path, fault: dict[str, Any], code: str | None) -> None:
    """A stream that breaks off says so in its last event, without an end mark, is counted against its worker, and frees all it held."""
    async with two_engines(tmp_path, {"timeouts": {"idle_s": 0.5}}) as (gateway, first, second), client() as http:
        first.faults(**fault, after_events=5, times=1)
        outcomes = [await ask(http, gateway.url, body(stream=True)) for _ in range(2)]
        broken, whole = sorted(outcomes, key=lambda one: one.ok)
        assert whole.ok and whole.text.startswith(broken.text)
        assert broken.status == 200 and broken.events in (4, 5) and not broken.done and not broken.broken, broken
        assert broken.error == code if code is not None else broken.error in ("stream_broken", "upstream_protocol"), broken
        metrics = await gateway.metrics()
        assert total(metrics, "smg_worker_streams_broken_total", worker=first.url) == 1
        assert total(metrics, "smg_worker_cb_outcomes_total", worker=first.url, outcome="failure") == 1
        assert total(metrics, "smg_worker_retries_total") == 0, "nothing is retried after the first byte"
        assert total(metrics, "smg_worker_requests_active") == total(metrics, "smg_scheduler_inflight") == 0
        await until_holds(lambda: second.state().running == 0 and (fault["kind"] == "crash" or first.state().running == 0), 1.0)


async def test_the_connection_of_a_broken_stream_serves_the_next_request(tmp_path: pathlib.Path) -> None:
    """A client that goes on at once on the connection whose stream ended in an error event does not find it closing."""
    async with two_engines(tmp_path, {"breaker": {"enabled": False}}) as (gateway, first, second), client() as http:
        for engine in (first, second):
            engine.faults(kind="no_done", after_events=3, times=10)
        outcomes = [await ask(http, gateway.url, body(stream=True)) for _ in range(24)]
        assert [one.ok for one in outcomes] == [False] * 20 + [True] * 4
        assert {(one.error, one.broken) for one in outcomes[:20]} == {("stream_broken", "")}


async def test_a_storm_of_errors_opens_the_breaker_and_no_client_sees_it(tmp_path: pathlib.Path) -> None:
    """An engine that fails every request is left alone after a handful, and probed until it is well again."""
    config = {"breaker": {"min_requests": 4, "open_s": 0.5, "max_open_s": 1.0}}
    async with two_engines(tmp_path, config) as (gateway, first, second), client() as http:
        first.faults(kind="error", status=500)
        outcomes = [await ask(http, gateway.url, body(stream=n % 2 == 0)) for n in range(40)]
        assert all(one.ok for one in outcomes)
        hits = first.state().fault_hits
        assert 4 <= hits <= 8 and second.state().paths[CHAT] == 40, hits
        metrics = await gateway.metrics()
        assert metrics[f'smg_worker_cb_transitions_total{{worker="{first.url}",from="closed",to="open"}}'] == 1
        first.clear_faults()

        async def healed() -> str:
            assert (await ask(http, gateway.url, body())).ok
            return await breaker_of(gateway, first)

        await until(healed, lambda state: state == "closed", 5.0)
        before = first.state().paths[CHAT]
        assert all([(await ask(http, gateway.url, body())).ok for _ in range(10)])
        assert first.state().paths[CHAT] - before >= 2, "it serves again"


async def test_an_engine_without_room_is_not_taken_for_a_broken_one(tmp_path: pathlib.Path) -> None:
    """429 of one engine sends the request on and leaves the breaker closed; where all say it, the client hears it with Retry-After."""
    async with two_engines(tmp_path) as (gateway, first, second), client() as http:
        first.faults(kind="rate_limit")
        outcomes = [await ask(http, gateway.url, body(stream=n % 2 == 0)) for n in range(20)]
        assert all(one.ok for one in outcomes)
        assert first.state().fault_hits >= 8 and await breaker_of(gateway, first) == "closed"
        second.faults(kind="rate_limit", retry_after_s=7)
        limited = await ask(http, gateway.url, body())
        assert (limited.status, limited.error) == (429, "upstream_rate_limited") and int(limited.headers["retry-after"]) >= 1
        assert await breaker_of(gateway, second) == "closed"
