"""Every fault of a simulated engine, as a client sees it on the socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from harness.sim import FLAVOURS, SimEngine, running
from tests.support.rawhttp import Ended, Seen, ask

PATH = "/v1/chat/completions"
WHOLE = {"model": "m", "messages": [{"role": "user", "content": "echo: one two three four five six"}]}
STREAM = {**WHOLE, "stream": True}
DONE = b"data: [DONE]\n\n"


@pytest.fixture(params=FLAVOURS)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[SimEngine]:
    """A fast engine of each flavour."""
    async with running(flavour=request.param, model="m", decode_base_ms=0.2, decode_per_req_ms=0, prefill_tps=0) as made:
        yield made


def is_good(seen: Seen) -> bool:
    """Tell whether an answer came whole."""
    if seen.status != 200 or seen.ended is not Ended.CLOSED:
        return False
    if seen.header("transfer-encoding"):
        chunks, complete = seen.chunks
        return complete and chunks[-1] == DONE
    return len(seen.rest) == int(seen.header("content-length") or -1) and bool(json.loads(seen.rest))


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
async def test_without_faults_answers_are_good(engine: SimEngine, body: dict[str, Any]) -> None:
    """An engine without faults answers whole and streaming requests well."""
    assert is_good(await ask(engine.url, PATH, body))
    assert engine.state().fault_hits == 0


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
async def test_latency_delays_the_answer(engine: SimEngine, body: dict[str, Any]) -> None:
    """Latency: the answer is good and late."""
    engine.faults(kind="latency", delay_s=0.15, times=1)
    late = await ask(engine.url, PATH, body)
    assert is_good(late)
    assert late.seconds >= 0.15
    assert engine.state().fault_hits == 1
    assert engine.state().faults == []


async def test_stall_leaves_a_whole_answer_out(engine: SimEngine) -> None:
    """Stall: a whole answer never comes, the connection stays open."""
    engine.faults(kind="stall", times=1)
    seen = await ask(engine.url, PATH, WHOLE)
    assert (seen.data, seen.ended) == (b"", Ended.SILENT)
    engine.faults(kind="stall", delay_s=0.1, times=1)
    assert is_good(await ask(engine.url, PATH, WHOLE))


async def test_stall_silences_a_stream(engine: SimEngine) -> None:
    """Stall: a stream goes silent after so many events, and goes on after `delay_s`."""
    engine.faults(kind="stall", after_events=2, times=1)
    seen = await ask(engine.url, PATH, STREAM)
    assert (seen.status, seen.ended) == (200, Ended.SILENT)
    assert (len(seen.chunks[0]), seen.chunks[1]) == (2, False)
    engine.faults(kind="stall", after_events=2, delay_s=0.1, times=1)
    seen = await ask(engine.url, PATH, STREAM)
    assert is_good(seen)
    assert seen.seconds >= 0.1


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
async def test_reset_before_the_answer(engine: SimEngine, body: dict[str, Any]) -> None:
    """Reset: the connection is reset before a byte came."""
    engine.faults(kind="reset", times=1)
    seen = await ask(engine.url, PATH, body)
    assert (seen.data, seen.ended) == (b"", Ended.RESET)
    assert is_good(await ask(engine.url, PATH, body))


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
async def test_reset_in_the_answer(engine: SimEngine, body: dict[str, Any]) -> None:
    """Reset: the connection is reset half-way."""
    engine.faults(kind="reset", after_events=2, times=1)
    seen = await ask(engine.url, PATH, body)
    assert seen.ended is Ended.RESET
    assert engine.state().running == 0


async def test_error_has_the_body_of_the_engine(engine: SimEngine) -> None:
    """Error: the status asked for, in the error body of the engine."""
    engine.faults(kind="error", status=503, times=1)
    seen = await ask(engine.url, PATH, WHOLE)
    assert (seen.status, seen.ended) == (503, Ended.CLOSED)
    body = json.loads(seen.rest)
    error = body["error"] if engine.settings.flavour == "vllm" else body
    assert error["code"] == 503
    assert "simulated" in error["message"]


async def test_rate_limit_says_when_to_come_back(engine: SimEngine) -> None:
    """Rate limit: 429 with Retry-After."""
    engine.faults(kind="rate_limit", retry_after_s=7, times=1)
    seen = await ask(engine.url, PATH, WHOLE)
    assert (seen.status, seen.header("retry-after")) == (429, "7")


async def test_wrong_json_is_framed_well(engine: SimEngine) -> None:
    """Wrong JSON: a whole answer with a right content-length and a cut-off body."""
    engine.faults(kind="wrong_json", times=1)
    seen = await ask(engine.url, PATH, WHOLE)
    assert (seen.status, seen.ended) == (200, Ended.CLOSED)
    assert len(seen.rest) == int(seen.header("content-length") or -1)
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(seen.rest)


@pytest.mark.parametrize("kind", ["wrong_json", "broken_event"])
async def test_broken_event_and_the_stream_goes_on(engine: SimEngine, kind: str) -> None:
    """A stream gets one broken event, and ends as it should."""
    engine.faults(kind=kind, after_events=2, times=1)
    chunks, complete = (await ask(engine.url, PATH, STREAM)).chunks
    assert complete
    assert chunks[-1] == DONE
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|Invalid"):
        json.loads(chunks[2].removeprefix(b"data: "))
    assert all(json.loads(chunk.removeprefix(b"data: ")) for place, chunk in enumerate(chunks[:-1]) if place != 2)


@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
async def test_truncated_chunk(engine: SimEngine, body: dict[str, Any]) -> None:
    """Truncated chunk: a chunk announces more than comes before the end."""
    engine.faults(kind="truncated_chunk", after_events=2, times=1)
    seen = await ask(engine.url, PATH, body)
    assert (seen.status, seen.ended) == (200, Ended.CLOSED)
    chunks, complete = seen.chunks
    assert not complete
    assert len(chunks) == (2 if body is STREAM else 0)


async def test_short_body(engine: SimEngine) -> None:
    """Short body: content-length promises more than comes before the end."""
    engine.faults(kind="short_body", times=1)
    seen = await ask(engine.url, PATH, WHOLE)
    assert (seen.status, seen.ended) == (200, Ended.CLOSED)
    assert 0 < len(seen.rest) < int(seen.header("content-length") or -1)


async def test_no_done(engine: SimEngine) -> None:
    """No done: a stream ends cleanly without its end mark, at its end or after so many events."""
    good, _ = (await ask(engine.url, PATH, STREAM)).chunks
    engine.faults(kind="no_done", times=1)
    chunks, complete = (await ask(engine.url, PATH, STREAM)).chunks
    assert (len(chunks), complete) == (len(good) - 1, True)
    assert DONE not in chunks
    engine.faults(kind="no_done", after_events=3, times=1)
    chunks, complete = (await ask(engine.url, PATH, STREAM)).chunks
    assert (len(chunks), complete) == (3, True)


async def test_garbage(engine: SimEngine) -> None:
    """Garbage: bytes that are no HTTP."""
    engine.faults(kind="garbage", times=1)
    seen = await ask(engine.url, PATH, WHOLE)
    assert seen.ended is Ended.CLOSED
    assert not seen.data.startswith(b"HTTP/")
    assert b"smg-sim" in seen.data


@pytest.mark.parametrize(("body", "after"), [(WHOLE, None), (STREAM, None), (STREAM, 2)], ids=["whole", "stream", "mid-stream"])
async def test_crash(engine: SimEngine, body: dict[str, Any], after: int | None) -> None:
    """Crash: connections are reset and nobody listens; after a restart the same port answers."""
    engine.faults(kind="crash", after_events=after, times=1)
    seen = await ask(engine.url, PATH, body)
    assert seen.ended is Ended.RESET
    assert (await ask(engine.url, "/health")).ended is Ended.REFUSED
    port = engine.port
    await engine.restart()
    assert engine.port == port
    assert is_good(await ask(engine.url, PATH, body))


async def test_freeze_and_thaw(engine: SimEngine) -> None:
    """Freeze: nothing is answered, health included, and no token made; what was held is answered when the fault is cleared."""
    stream = asyncio.ensure_future(ask(engine.url, PATH, {**STREAM, "max_tokens": 400, "ignore_eos": True}, quiet_s=3))
    while not engine.state().generated_tokens:
        await asyncio.sleep(0.001)
    engine.faults(kind="freeze")
    made = engine.state().generated_tokens
    health = await ask(engine.url, "/health", quiet_s=0.2)
    assert (health.data, health.ended) == (b"", Ended.SILENT)
    held = asyncio.ensure_future(ask(engine.url, PATH, WHOLE, quiet_s=3))
    await asyncio.sleep(0.05)
    assert engine.state().generated_tokens == made
    assert not held.done()
    engine.clear_faults()
    assert is_good(await held)
    assert is_good(await stream)


async def test_unhealthy(engine: SimEngine) -> None:
    """Unhealthy: health answers 503, requests are served."""
    engine.faults(kind="unhealthy")
    assert (await ask(engine.url, "/health")).status == 503
    assert is_good(await ask(engine.url, PATH, WHOLE))
    engine.clear_faults()
    assert (await ask(engine.url, "/health")).status == 200


async def test_faults_over_the_control_route(engine: SimEngine) -> None:
    """Faults are armed, listed and cleared over HTTP, alone or several; a wrong one is refused with the reason."""
    async with httpx.AsyncClient(base_url=engine.url) as client:
        both = [{"kind": "error", "rate": 0.5, "path": "/v1/"}, {"kind": "latency", "delay_s": 1.0, "times": 3}]
        assert (await client.post("/_sim/faults", json=both)).status_code == 200
        assert [fault["kind"] for fault in (await client.get("/_sim/faults")).json()["faults"]] == ["error", "latency"]
        assert (await client.get("/_sim/state")).json()["faults"][1]["times"] == 3
        refused = await client.post("/_sim/faults", json={"kind": "error", "rate": 2})
        assert (refused.status_code, "share" in refused.json()["error"]) == (400, True)
        assert (await client.delete("/_sim/faults")).json() == {"faults": []}
        assert (await client.post(PATH, json=WHOLE)).status_code == 200
        unknown = await client.get("/_sim/nope")
        assert (unknown.status_code, "GET /_sim/state" in unknown.text) == (404, True)


@pytest.mark.parametrize(("path", "body"), [("/v1/messages", {"max_tokens": 9}), ("/v1/responses", {"input": "echo: a b"})])
async def test_broken_events_keep_their_dialect(path: str, body: dict[str, Any]) -> None:
    """Broken event: in a dialect of named events the broken one has a name, and the stream goes on to its end mark."""
    request = {"model": "m", "messages": [{"role": "user", "content": "echo: a b"}], "stream": True, **body}
    async with running(model="m", decode_base_ms=0.2) as engine:
        good, _ = (await ask(engine.url, path, request)).chunks
        engine.faults(kind="broken_event", after_events=1, times=1)
        chunks, complete = (await ask(engine.url, path, request)).chunks
    assert complete
    assert len(chunks) == len(good) + 1
    names = [chunk.split(b"\n")[0] for chunk in good]
    assert [chunk.split(b"\n")[0] for chunk in chunks] == [names[0], names[1], *names[1:]]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|Invalid"):
        json.loads(chunks[1].split(b"data: ")[1])


async def test_messages_stream_without_its_end_mark() -> None:
    """No done: in Anthropic's dialect the end mark that lacks is `message_stop`."""
    body = {"model": "m", "messages": [{"role": "user", "content": "echo: a b"}], "max_tokens": 9, "stream": True}
    async with running(model="m", decode_base_ms=0.2) as engine:
        good, _ = (await ask(engine.url, "/v1/messages", body)).chunks
        engine.faults(kind="no_done", times=1)
        chunks, complete = (await ask(engine.url, "/v1/messages", body)).chunks
    assert good[-1].startswith(b"event: message_stop\n")
    assert complete
    assert not chunks[-1].startswith(b"event: message_stop\n")
    assert len(chunks) == len(good) - 1
