"""The driver: which answer a client gets, after which attempts, and what is given back in the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any

import orjson
import pytest

from gateway.config.model import GatewayConfig, HedgeConfig
from gateway.errors import Code, Retry, Source, UpstreamError
from gateway.pipeline.run import LINGER_S
from gateway.protocol.usage import Usage
from gateway.transports.mock import MockCall
from gateway.workers.breaker import BreakerState
from tests.support.compiled import interpreted_only
from tests.support.exchange import ANSWER, CHAT, DONE, EVENTS, FINISH, USAGE, FakeClient, Rig, chat_events, chunk, cut, state

SECRET = "sk-test"
NO_RETRY = {"retry": {"max_attempts": 1}}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


# -- whole answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("length", [True, False])
def test_a_whole_answer_is_relayed_byte_for_byte(step: int, length: bool) -> None:
    """Status, header lines and body of a worker's answer reach the client as they came, whatever the pieces."""
    with Rig() as rig:
        x, client = rig.ask()
        call = rig.call
        call.head_of(200, [(b"content-type", b"application/json"), (b"x-a", b"1"), (b"x-a", b"2")], len(ANSWER) if length else None)
        call.data(*cut(ANSWER, step))
        assert not client.begun, "a whole answer is held until it is complete"
        call.end()
        assert (client.status, client.body, client.whole) == (200, ANSWER, True)
        assert client.header_lines[:3] == [("content-type", "application/json"), ("x-a", "1"), ("x-a", "2")]
        assert x.usage == Usage(5, 2, 0) and x.error is None and x.worker is rig.workers[0]
        rig.check_idle()


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 499])
def test_a_refusal_of_the_worker_is_the_clients_answer(status: int) -> None:
    """A 4xx is the client's own mistake: it is passed on, not retried, and no reason to doubt the worker."""
    with Rig(2) as rig:
        x, client = rig.ask()
        call = rig.call
        call.head_of(status, [(b"x-smg-error-code", b"of_a_gateway_behind_this_one")], 14)
        call.data(b'{"error":"no"}')
        call.end()
        assert (client.status, client.body) == (status, b'{"error":"no"}')
        assert [value for name, value in client.header_lines if name == "x-smg-error-code"] == ["upstream_rejected"]
        assert x.error is not None and (x.error.code, x.error.source) == (Code.UPSTREAM_REJECTED, Source.CLIENT)
        assert rig.workers[0].cells.successes == 1 and rig.workers[0].cells.failures == 0
        assert len(rig.sent) == 1
        rig.check_idle()


def test_a_status_that_is_not_retried_counts_as_failure() -> None:
    """A 5xx that the configuration does not retry goes to the client, and still speaks against the worker."""
    with Rig(2, {"retry": {"statuses": []}, "breaker": {"min_requests": 1}}) as rig:
        x, client = rig.ask()
        rig.call.answer(500, b"oh")
        assert (client.status, client.body, len(rig.sent)) == (500, b"oh", 1)
        assert x.error is not None and (x.error.code, x.error.source) == (Code.UPSTREAM_FAILED, Source.UPSTREAM)
        assert rig.workers[0].cells.failures == 1 and rig.workers[0].breaker.state is BreakerState.OPEN
        rig.check_idle()


def test_a_large_answer_is_passed_on_as_it_comes() -> None:
    """An answer above the limit is not kept: with a length it goes out with it, and a break then cuts the connection."""
    with Rig(2, {"upstream": {"max_buffered_answer_bytes": 10}}) as rig:
        _, client = rig.ask()
        rig.call.head_of(200, [(b"content-type", b"application/json")], 12)
        rig.call.data(b"123456")
        assert client.body == b"123456" and client.length == 12
        rig.call.data(b"789012")
        rig.call.end()
        assert client.finished
        _, client = rig.ask()
        rig.call.head_of(200, [(b"content-type", b"application/json")], None)
        rig.call.data(b"123456")
        assert not client.begun
        rig.call.data(b"789012")
        assert client.body == b"123456789012" and client.length is None
        rig.call.fail()
        assert client.aborted and not client.finished
        assert len(rig.sent) == 2, "nothing is retried after the first byte"
        rig.check_idle()


def test_a_large_answer_may_be_empty() -> None:
    """An encoded answer is passed on even if no byte of it comes."""
    with Rig() as rig:
        _, client = rig.ask()
        rig.call.head_of(200, [(b"content-encoding", b"gzip")], 0)
        rig.call.end()
        assert client.begun and client.finished and client.body == b""
        rig.check_idle()


# -- streams ----------------------------------------------------------------------------------------------------------

STREAM = chunk("a") + chunk("b") + FINISH + USAGE + DONE


@pytest.mark.parametrize("step", [0, 1, 7])
def test_a_stream_is_relayed_without_the_usage_nobody_asked_for(step: int) -> None:
    """Events go out as they come; the usage that the gateway asked for is counted and hidden."""
    with Rig() as rig:
        x, client = rig.ask(stream=True)
        call = rig.call
        assert orjson.loads(call.body)["stream_options"] == {"include_usage": True}
        call.stream(*cut(STREAM, step))
        assert client.body == chunk("a") + chunk("b") + FINISH + DONE
        assert client.finished and not client.whole
        assert client.headers["content-type"] == "text/event-stream" and "transfer-encoding" not in client.headers
        assert x.usage == Usage(7, 3, 0) and x.streaming and x.first_token_s
        rig.check_idle()


def test_usage_that_the_client_asked_for_stays() -> None:
    """A client that asks for usage gets it, and its body goes out untouched."""
    with Rig() as rig:
        body = b'{"model":"m", "stream" : true, "messages":[], "stream_options":{"include_usage":true}}'
        _, client = rig.ask(body)
        assert rig.call.body == body
        rig.call.stream(STREAM)
        assert client.body == STREAM


def test_chunks_keep_their_framing() -> None:
    """A worker's chunk that goes on unchanged is handed over with its framing; one that changes is not."""
    with Rig() as rig:
        x, client = rig.ask(stream=True)
        call = rig.call
        call.head_of(200, EVENTS)
        for event in (chunk("a"), chunk("b"), FINISH, USAGE, DONE):
            call.sink.on_chunk(b"%x\r\n%b\r\n" % (len(event), event), event)
        call.end()
        assert client.body == chunk("a") + chunk("b") + FINISH + DONE and client.finished
        assert x.bytes_out == len(client.body)


def test_an_alias_is_replaced_for_the_worker() -> None:
    """The worker gets the name that it knows, also on a retry and in a stream."""
    config = {"models": [{"name": "m", "aliases": ["gpt-4"]}]}
    with Rig(2, config) as rig:
        _, client = rig.ask(model="gpt-4", stream=True)
        assert orjson.loads(rig.call.body)["model"] == "m"
        rig.call.refuse()
        rig.advance(1)
        assert orjson.loads(rig.call.body)["model"] == "m" and "w1" in rig.call.head.decode()
        rig.call.stream(STREAM)
        assert client.status == 200


BROKEN = {
    CHAT: chunk("a"),
    b"/v1/completions": b'data: {"choices":[{"index":0,"text":"a"}]}\n\n',
    b"/generate": b'data: {"text":"a","meta_info":{"prompt_tokens":1,"completion_tokens":1}}\n\n',
    b"/v1/messages": b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a"}}\n\n',
    b"/v1/responses": b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4}\n\n',
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("end", ["fail", "end", "junk"])
@pytest.mark.parametrize("path", BROKEN)
def test_a_broken_stream_ends_in_an_error_of_its_dialect(path: bytes, end: str, step: int) -> None:
    """After the first byte a break is told in-band, once, and the connection is closed; nothing is retried."""
    first = BROKEN[path]
    with Rig(2) as rig:
        x, client = rig.ask(path=path, stream=True, headers=[(b"x-request-id", b"abc")])
        rig.call.head_of(200, EVENTS)
        call = rig.call
        call.data(*cut(first + b"data: {half", step))
        if end == "junk":
            call.data(*cut(b"\n\n", step))
            assert call.cancelled
        else:
            getattr(call, end)()
        assert client.body.startswith(first)
        event = client.body[len(first) :]
        assert event.endswith(b"\n\n") and event.count(b"\n\n") == 1 and b"half" not in event
        name, _, data = event.rpartition(b"data: ")
        told = orjson.loads(data)
        code = "stream_broken"
        if path == b"/v1/messages":
            assert name == b"event: error\n" and told["type"] == "error" and told["request_id"] == "abc"
            assert told["error"]["type"] == "api_error"
        elif path == b"/v1/responses":
            assert name == b"event: error\n" and (told["type"], told["code"], told["sequence_number"]) == ("error", code, 5)
        else:
            assert name == b"" and told["error"]["code"] == code and told["error"]["type"] == "server_error"
        assert client.finished
        assert x.error is not None and x.error.code == code and x.status == 200
        assert len(rig.sent) == 1
        worker = rig.workers[0]
        assert (worker.cells.failures, worker.cells.streams_broken, worker.cells.successes) == (1, 1, 0)
        rig.check_idle()


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_an_error_event_of_the_engine_is_forwarded_once(first: bool, framed: bool) -> None:
    """The engine's own error event is the last one: the gateway adds none, hangs up on the worker at once, and closes."""
    error = b'data: {"error":{"message":"out of memory"}}\n\n'
    with Rig(2) as rig:
        x, client = rig.ask(stream=True)
        call = rig.call
        call.head_of(200, EVENTS)
        if not first:
            call.data(chunk("a"))
        if framed:
            call.sink.on_chunk(b"%x\r\n%b\r\n" % (len(error), error), error)
        else:
            call.data(error)
        assert client.body == (b"" if first else chunk("a")) + error
        assert client.finished and call.cancelled
        assert x.error is not None and x.error.code is Code.STREAM_BROKEN
        assert rig.workers[0].cells.failures == 1
        rig.check_idle()


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    ("path", "event", "forwarded"),
    [
        (CHAT, b'data: {"error":{"message":"too long","type":"BadRequestError","code":400}}\n\n', True),
        (CHAT, b'data: {"object":"error","message":"too long","type":"BadRequestError","code":400, "error":null}\n\n', False),
        (b"/generate", b'data: {"error":{"message":"too long","code":400}}\n\n', True),
        (b"/v1/messages", b'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error","message":"no"}}\n\n', True),
    ],
)
def test_a_refusal_inside_a_stream_is_the_clients_fault(path: bytes, event: bytes, forwarded: bool, begun: bool) -> None:
    """Engines begin a stream before they have checked a request: a 4xx in it is not tried elsewhere, and opens no breaker."""
    with Rig(2, {"breaker": {"min_requests": 1, "failure_ratio": 0.1}}) as rig:
        x, client = rig.ask(stream=True, path=path)
        rig.call.stream(*([chunk("a")] if begun else []), event, end=False)
        assert x.error is not None and x.error.code is Code.UPSTREAM_REJECTED and client.finished
        assert (event in client.body) is forwarded
        if not begun and not forwarded:
            assert client.status == 400 and client.json["error"]["code"] == "upstream_rejected"
        assert len(rig.sent) == 1
        worker = rig.workers[0]
        assert worker.breaker.state is BreakerState.CLOSED and (worker.cells.failures, worker.cells.streams_broken) == (0, 0)
        rig.check_idle()


def test_a_stream_that_breaks_before_its_first_event_is_retried() -> None:
    """As long as no event has gone out, a break is tried elsewhere and the client sees nothing of it."""
    with Rig(3) as rig:
        _, client = rig.ask(stream=True)
        rig.call.stream(b"data: {half", end=False)
        rig.call.fail()
        assert not client.begun
        rig.advance(1)
        rig.call.stream(b"data: nonsense\n\n")
        assert not client.begun
        rig.advance(1)
        rig.call.stream(STREAM)
        assert client.status == 200 and client.body == chunk("a") + chunk("b") + FINISH + DONE
        assert [worker.cells.failures for worker in rig.workers] == [1, 1, 0]
        assert [worker.cells.successes for worker in rig.workers] == [0, 0, 1]
        rig.check_idle()


def test_a_worker_that_hangs_up_after_its_end_mark_is_fine() -> None:
    """Behind the end mark nothing is missing, however the connection ends."""
    with Rig() as rig:
        x, client = rig.ask(stream=True)
        rig.call.stream(STREAM, end=False)
        rig.call.fail()
        assert client.finished and x.error is None
        assert rig.workers[0].cells.failures == 0
        rig.check_idle()


def test_a_worker_that_stays_silent_after_its_end_mark_is_left() -> None:
    """A connection that a worker leaves open behind `[DONE]` holds the client for a second, no longer."""
    with Rig() as rig:
        x, client = rig.ask(stream=True)
        call = rig.call
        call.stream(STREAM, end=False)
        rig.tick(LINGER_S)
        assert not client.finished
        rig.tick(0.1)
        assert client.finished and call.cancelled and x.error is None and x.usage == Usage(7, 3, 0)
        rig.check_idle()


def test_a_finish_reason_alone_is_not_yet_the_end() -> None:
    """Usage and `[DONE]` may be late behind the last finish reason: the stream waits for them up to the idle limit, and ends well."""
    with Rig(1, {"timeouts": {"idle_s": 30}}) as rig:
        x, client = rig.ask(stream=True)
        rig.call.stream(chunk("a"), FINISH, end=False)
        rig.tick(LINGER_S * 5)
        assert not client.finished
        rig.call.data(USAGE, DONE)
        rig.call.end()
        assert client.body.endswith(DONE) and x.usage == Usage(7, 3, 0)
        x, client = rig.ask(stream=True)
        rig.call.stream(chunk("a"), FINISH, end=False)
        rig.tick(30.1)
        assert client.finished and x.error is None
        rig.check_idle()


def test_a_connection_that_breaks_before_the_end_mark_breaks_the_stream() -> None:
    """A reset between the last finish reason and `[DONE]` is told: what the client lacks is the usage and the end mark."""
    with Rig(1, {"retry": {"max_attempts": 1}}) as rig:
        x, client = rig.ask(stream=True)
        rig.call.stream(chunk("a"), FINISH, end=False)
        rig.call.fail()
        assert client.finished and x.error is not None and x.error.code is Code.STREAM_BROKEN
        assert b'"stream_broken"' in client.body
        rig.check_idle()


# -- retries ----------------------------------------------------------------------------------------------------------


def _refuse(call: MockCall) -> None:
    call.refuse()


def _close(call: MockCall) -> None:
    call.fail()


def _malformed(call: MockCall) -> None:
    call.answer(200, b'{"choices": [')


def _empty(call: MockCall) -> None:
    call.answer(200, b"")


def _truncated(call: MockCall) -> None:
    call.head_of(200, {"content-type": "application/json"}, 100)
    call.data(b'{"choices"')
    call.fail()


def _status(code: int) -> Any:
    def play(call: MockCall) -> None:
        call.answer(code, b"no")

    play.__name__ = str(code)
    return play


FAILURES = [_refuse, _close, _malformed, _empty, _truncated, *map(_status, (408, 429, 500, 502, 503, 504))]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda play: play.__name__)
def test_another_worker_is_tried(failure: Any) -> None:
    """Whatever fails before the first byte is tried on another worker each time, and the client sees only the success."""
    with Rig(4) as rig:
        x, client = rig.ask(headers=[(b"x-request-id", b"abc")])
        seen = []
        for _ in range(3):
            seen.append(rig.call.headers["host"])
            assert rig.call.headers["x-request-id"] == "abc"
            failure(rig.call)
            assert not client.begun and not rig.calls
            rig.advance(2)
        seen.append(rig.call.headers["host"])
        assert seen == ["w0:8000", "w1:8000", "w2:8000", "w3:8000"]
        rig.call.answer(200, ANSWER)
        assert (client.status, client.body, x.attempt_count, x.error) == (200, ANSWER, 4, None)
        assert x.cells is not None and (x.cells.retries, x.cells.retries_exhausted) == (3, 0)
        rig.check_idle()


def test_no_retry_comes_without_its_backoff() -> None:
    """Waits grow by the multiplier and are capped; within them nothing is sent."""
    with Rig(6, {"retry": {"initial_backoff_s": 1, "multiplier": 3, "max_backoff_s": 5, "max_attempts": 5}}) as rig:
        rig.ask()
        for wait_s in (1, 3, 5, 5):
            rig.call.refuse()
            rig.advance(wait_s - 0.01)
            assert not rig.calls
            rig.advance(0.02)
            assert len(rig.calls) == 1
        rig.call.answer(200, ANSWER)
        rig.check_idle()


def test_the_held_answer_is_what_the_client_gets_at_the_end() -> None:
    """When attempts run out, the last worker's answer goes out byte for byte, with the gateway's code beside it."""
    with Rig(5) as rig:
        x, client = rig.ask()
        for number in range(4):
            rig.call.answer(
                (500, 502, 504, 503)[number], b"body %d" % number, [(b"content-type", b"text/x"), (b"x-worker", b"%d" % number)]
            )
            rig.advance(2)
        assert (client.status, client.body) == (503, b"body 3")
        assert client.headers["x-worker"] == "3" and client.headers["content-type"] == "text/x"
        assert client.headers["x-smg-error-code"] == "upstream_failed" and client.headers["retry-after"] == "1"
        assert x.error is not None and x.error.code is Code.UPSTREAM_FAILED and x.worker is rig.workers[3]
        assert x.cells is not None and x.cells.retries_exhausted == 1
        assert len(rig.sent) == 4
        rig.check_idle()


def test_the_workers_own_retry_after_stays() -> None:
    """A `Retry-After` of the worker is not doubled."""
    with Rig(1, NO_RETRY) as rig:
        x, client = rig.ask()
        rig.call.answer(429, b"slow", {"retry-after": "17"})
        assert [value for name, value in client.header_lines if name == "retry-after"] == ["17"]
        assert client.headers["x-smg-error-code"] == "upstream_rate_limited"
        assert x.error is not None and x.error.code is Code.UPSTREAM_RATE_LIMITED


def test_without_a_held_answer_the_gateway_says_what_happened() -> None:
    """Where no worker answered at all, the error is the gateway's, in the client's dialect."""
    with Rig(1, NO_RETRY) as rig:
        _, client = rig.ask(path=b"/v1/messages")
        rig.call.refuse()
        assert client.status == 502 and client.json["type"] == "error"
        assert client.headers["x-smg-error-code"] == "connect_failed"
        assert client.headers["content-type"] == "application/json"
        assert rig.reported == ["w0"]
        rig.check_idle()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_of_the_gateway_is_not_the_clients_fault(status: int) -> None:
    """With a key of its own a 401 or 403 is tried elsewhere, and ends as `credential_failed`, never as the worker's answer."""
    keyed = [state(number, api_key=SECRET) for number in range(2)]
    with Rig(keyed, {"retry": {"max_attempts": 2}}) as rig:
        x, client = rig.ask()
        assert rig.call.headers["authorization"] == f"Bearer {SECRET}"
        rig.call.answer(status, b"who are you, sk-test?")
        rig.advance(1)
        rig.call.answer(status, b"who are you, sk-test?")
        assert client.status == 502 and client.headers["x-smg-error-code"] == "credential_failed"
        assert SECRET.encode() not in client.body
        assert x.error is not None and x.error.code is Code.CREDENTIAL_FAILED
        rig.check_idle()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_of_the_client_is_the_clients_answer(status: int) -> None:
    """Without a key of its own the gateway passes the worker's refusal on."""
    with Rig(2) as rig:
        _, client = rig.ask(headers=[(b"authorization", b"Bearer mine")])
        assert rig.call.headers["authorization"] == "Bearer mine"
        rig.call.answer(status, b"no")
        assert (client.status, client.body, len(rig.sent)) == (status, b"no", 1)


def test_attempts_without_resend() -> None:
    """Where a request must not be sent twice, only failures before anything was processed are tried elsewhere."""
    with Rig(4, {"retry": {"resend": False}}) as rig:
        _, client = rig.ask()
        rig.call.refuse()
        rig.advance(1)
        rig.call.answer(429, b"")
        rig.advance(1)
        rig.call.fail()
        assert client.status == 429 and client.headers["x-smg-error-code"] == "upstream_failed" and len(rig.sent) == 3
        rig.check_idle()


def test_the_budget_bounds_retries() -> None:
    """When most requests fail, retries stop at the budget, and come back as time passes."""
    config = {"retry": {"budget_min_per_s": 0, "budget_ratio": 0.5, "max_attempts": 2}, "breaker": {"enabled": False}}
    with Rig(2, config) as rig:
        for _ in range(10):
            rig.ask()
            rig.call.refuse()
            rig.advance(0.1)
            for call in rig.calls:
                call.refuse()
        assert len(rig.sent) == 15
        assert all(client.over for client in rig.clients)
        rig.tick(20)
        rig.ask()
        rig.call.refuse()
        rig.advance(1)
        assert len(rig.calls) == 1, "one request may have its retry again"
        rig.call.answer(200, ANSWER)
        rig.check_idle()


def test_more_attempts_than_workers() -> None:
    """When every worker had its attempt, the best of a new ranking has another."""
    with Rig(2) as rig:
        _, client = rig.ask()
        hosts = []
        for _ in range(4):
            hosts.append(rig.call.headers["host"])
            rig.call.answer(503, b"")
            rig.advance(2)
        assert hosts == ["w0:8000", "w1:8000"] * 2 and client.status == 503
        rig.check_idle()


def test_workers_that_left_meanwhile_are_not_tried() -> None:
    """A worker that drains or fails its checks while a backoff runs is passed over, one that came is asked."""
    with Rig(3) as rig:
        _, client = rig.ask()
        rig.call.answer(503, b"held")
        from gateway.workers.state import Status

        rig.tell([state(0), state(1, status=Status.DRAINING), state(2, status=Status.NOT_READY), state(3)])
        rig.advance(1)
        assert rig.call.headers["host"] in ("w0:8000", "w3:8000")
        rig.call.answer(200, ANSWER)
        assert client.status == 200
        rig.ask()
        rig.call.answer(503, b"held")
        rig.tell([])
        rig.advance(1)
        assert rig.clients[-1].status in (200, 503) and rig.clients[-1].over


def test_full_pools_say_when_to_come_back() -> None:
    """Where no worker has a connection left, the 503 has a `Retry-After`."""
    with Rig(1, NO_RETRY) as rig:
        rig.pools["w0"].raises = UpstreamError(Code.OVERLOADED, "full", retry=Retry.SAFE)
        _, client = rig.ask()
        assert client.status == 503 and client.headers["x-smg-error-code"] == "overloaded" and client.headers["retry-after"] == "1"
        rig.check_idle()


def test_a_full_pool_is_no_failure_of_the_worker() -> None:
    """Where the gateway itself has no connection left, another worker is tried and the breaker hears nothing."""
    with Rig(2, {"breaker": {"min_requests": 1}}) as rig:
        rig.pools["w0"].raises = UpstreamError(Code.OVERLOADED, "full", retry=Retry.SAFE)
        _, client = rig.ask()
        rig.advance(1)
        assert rig.call.headers["host"] == "w1:8000"
        rig.call.answer(200, ANSWER)
        assert client.status == 200 and rig.workers[0].breaker.state is BreakerState.CLOSED and rig.workers[0].cells.failures == 0
        rig.check_idle()


# -- breaker ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [_refuse, _close, _malformed, _truncated, *map(_status, (500, 502, 503, 504))], ids=lambda p: p.__name__
)
def test_failures_open_the_breaker(failure: Any) -> None:
    """Server errors, broken answers and refused connections count against a worker."""
    with Rig(1, {**NO_RETRY, "breaker": {"min_requests": 2, "failure_ratio": 1}}) as rig:
        for _ in range(2):
            rig.ask()
            failure(rig.call)
        assert rig.workers[0].breaker.state is BreakerState.OPEN
        _, client = rig.ask()
        assert client.status == 503 and client.headers["x-smg-error-code"] == "no_candidate"
        assert client.headers["retry-after"] == "10"
        rig.check_idle()


@pytest.mark.parametrize("answer", [*map(_status, (400, 404, 408, 429))], ids=lambda p: p.__name__)
def test_the_clients_mistakes_do_not_open_the_breaker(answer: Any) -> None:
    """A worker that refuses a bad request, or has no room, is healthy."""
    with Rig(1, {**NO_RETRY, "breaker": {"min_requests": 1, "failure_ratio": 0.1}}) as rig:
        for _ in range(5):
            rig.ask()
            answer(rig.call)
        assert rig.workers[0].breaker.state is BreakerState.CLOSED
        rig.check_idle()


def test_late_verdicts_do_not_count() -> None:
    """What was sent before a change of the breaker says nothing about the worker now, also where the breaker was made anew."""
    with Rig(1, {**NO_RETRY, "breaker": {"min_requests": 2, "failure_ratio": 1, "success_threshold": 1}}) as rig:
        for _ in range(4):
            rig.ask()
        late_failure, late_success, first, second = rig.calls
        first.refuse()
        second.refuse()
        breaker = rig.workers[0].breaker
        assert breaker.state is BreakerState.OPEN
        rig.advance(11)
        breaker.tick(rig.loop.now_s)
        assert breaker.state is BreakerState.HALF_OPEN
        late_success.answer(200, ANSWER)
        assert breaker.state is BreakerState.HALF_OPEN
        late_failure.refuse()
        assert breaker.state is BreakerState.HALF_OPEN
        rig.ask()
        rig.call.answer(200, ANSWER)
        assert breaker.state is BreakerState.CLOSED
        rig.ask()
        rig.ask()
        old = rig.calls
        rig.rt.registry.configure(rig.config.breaker.model_copy(update={"min_requests": 1}), rig.config.upstream, rig.config.timeouts)
        assert rig.workers[0].breaker is not breaker
        for call in old:
            call.refuse()
        assert rig.workers[0].breaker.state is BreakerState.CLOSED
        rig.check_idle()


def test_a_probe_slot_is_given_back_when_the_client_leaves() -> None:
    """A half-open breaker gets its slot back on every end of a probe."""
    with Rig(1, {**NO_RETRY, "breaker": {"min_requests": 1}}) as rig:
        rig.ask()
        rig.call.refuse()
        breaker = rig.workers[0].breaker
        rig.advance(11)
        breaker.tick(rig.loop.now_s)
        x, _ = rig.ask()
        assert not breaker.admits
        _, refused = rig.ask()
        assert refused.status == 503
        rig.driver.client_gone(x)
        assert breaker.admits and breaker.state is BreakerState.HALF_OPEN
        rig.check_idle()


# -- where nobody can be asked ----------------------------------------------------------------------------------------


def test_unknown_models_and_workers_that_are_not_ready() -> None:
    """An unknown model is 404; one whose workers are away is 503 with the time to wait; so is any while workers start."""
    from gateway.workers.state import Status

    def ask(rig: Rig, model: str) -> FakeClient:
        return rig.ask(model=model)[1]

    with Rig(1) as rig:
        client = ask(rig, "other")
        assert (client.status, client.json["error"]["code"], client.json["error"]["param"]) == (404, "model_not_found", "model")
        assert "retry-after" not in client.headers
        rig.tell([state(0, status=Status.NOT_READY)])
        client = ask(rig, "m")
        assert (client.status, client.headers["retry-after"]) == (503, "2") and "ready" in client.json["error"]["message"]
        assert ask(rig, "other").status == 404
        rig.tell([state(0, status=Status.NOT_READY), state(1, models=(), status=Status.PENDING)])
        client = ask(rig, "other")
        assert (client.status, client.headers["retry-after"]) == (503, "2") and "starting" in client.json["error"]["message"]
        rig.tell([])
        assert ask(rig, "m").status == 503
        rig.tell([state(0, models=("a",)), state(1, models=("b",))])
        client = rig.ask(b'{"messages":[]}')[1]
        assert client.status == 400 and client.json["error"]["param"] == "model"
        assert not rig.sent or not rig.calls
        rig.check_idle()


def test_a_draining_gateway_serves_what_still_comes() -> None:
    """Readiness alone turns requests away: until the load balancers have noticed, and on connections that are busy, they are served."""
    with Rig() as rig:
        rig.rt.draining = True
        _, client = rig.ask()
        rig.call.answer(200, ANSWER)
        assert client.status == 200
        rig.check_idle()


def test_a_bad_body_is_refused_at_once() -> None:
    """What cannot be read is 400 in the client's dialect, with the client's request id, and no worker hears of it."""
    with Rig() as rig:
        _, client = rig.ask(b"{", path=b"/v1/messages", headers=[(b"x-request-id", b"abc")])
        assert client.status == 400 and client.json["type"] == "error" and client.headers["x-request-id"] == "abc"
        assert not rig.sent
        rig.check_idle()


# -- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("when", ["waiting", "head", "data", "backoff"])
def test_a_client_that_leaves_cancels_everything(when: str, stream: bool) -> None:
    """Calls are cancelled, timers stopped, nothing is counted against the worker, and the status is 499."""
    with Rig(2) as rig:
        x, _ = rig.ask(stream=stream)
        call = rig.call
        if when == "backoff":
            call.refuse()
        elif when != "waiting":
            call.head_of(200, EVENTS if stream else {"content-type": "application/json"})
            if when == "data":
                call.data(chunk("a"))
        rig.driver.client_gone(x)
        rig.driver.client_gone(x)
        assert x.error is not None and x.error.code is Code.CLIENT_GONE and x.status == 499
        assert call.cancelled is (when != "backoff")
        assert rig.workers[0].cells.failures == (when == "backoff")
        rig.advance(10)
        assert not rig.calls
        call.data(chunk("b"))
        rig.check_idle()


def test_a_client_that_leaves_after_the_end_mark_was_served() -> None:
    """Many clients hang up at `[DONE]`; that is a success."""
    with Rig() as rig:
        x, _ = rig.ask(stream=True)
        rig.call.stream(STREAM, end=False)
        rig.driver.client_gone(x)
        assert x.error is None and x.status == 200 and x.usage == Usage(7, 3, 0)
        rig.check_idle()


def test_a_paused_client_pauses_the_worker() -> None:
    """While a client does not read, its worker is not read, and its silence is not the worker's."""
    with Rig(1, {"timeouts": {"idle_s": 10, "first_byte_s": 10, "first_token_s": 10}, "server": {"write_timeout_s": 100}}) as rig:
        x, client = rig.ask(stream=True)
        call = rig.call
        call.stream(chunk("a"), end=False)
        rig.driver.pause(x)
        assert call.paused
        rig.tick(50)
        assert not client.finished
        rig.driver.resume(x)
        assert not call.paused
        rig.tick(9)
        assert not client.finished
        call.data(chunk("b"), FINISH, DONE)
        call.end()
        assert client.finished and x.error is None
        rig.check_idle()


def test_a_client_that_never_reads_is_cut_off() -> None:
    """After the write timeout the connection is aborted and the worker's call cancelled; the worker is not to blame."""
    with Rig(1, {"server": {"write_timeout_s": 20}}) as rig:
        x, client = rig.ask(stream=True)
        call = rig.call
        call.stream(chunk("a"), end=False)
        rig.driver.pause(x)
        rig.tick(19)
        assert not client.aborted
        rig.tick(2)
        assert client.aborted and call.cancelled and x.error is not None and x.error.code is Code.CLIENT_GONE
        assert rig.workers[0].cells.failures == 0
        rig.check_idle()


def test_a_retry_of_a_paused_client_starts_paused() -> None:
    """A call that begins while the client does not read is paused from the start."""
    with Rig(2) as rig:
        x, _ = rig.ask()
        rig.driver.pause(x)
        rig.call.refuse()
        rig.advance(1)
        assert rig.call.paused
        rig.driver.client_gone(x)
        rig.check_idle()


# -- time limits ------------------------------------------------------------------------------------------------------


def test_first_byte_limit() -> None:
    """A worker that does not begin to answer in time is left, and another one asked."""
    with Rig(2, {"timeouts": {"first_byte_s": 5}}) as rig:
        _, client = rig.ask()
        call = rig.call
        rig.tick(4.9)
        assert call.live
        rig.tick(0.2)
        assert call.cancelled and rig.workers[0].cells.errors == {"upstream_timeout": 1} and rig.workers[0].cells.failures == 1
        rig.advance(1)
        rig.call.answer(200, ANSWER)
        assert client.status == 200
        rig.check_idle()


def test_first_byte_limit_ends_in_504() -> None:
    """When nobody answers in time, the client hears 504."""
    with Rig(1, {**NO_RETRY, "timeouts": {"first_byte_s": 5}}) as rig:
        _, client = rig.ask()
        rig.tick(6)
        assert client.status == 504 and client.headers["x-smg-error-code"] == "upstream_timeout"
        rig.check_idle()


def test_the_first_token_limit_needs_no_head() -> None:
    """A stream whose worker sends not even a head has no token either; a whole answer has its own limit."""
    with Rig(2, {"timeouts": {"first_byte_s": 60, "first_token_s": 5}}) as rig:
        rig.ask(stream=True)
        rig.ask()
        stream_call, whole_call = rig.calls
        rig.tick(5.1)
        assert stream_call.cancelled and whole_call.live
        assert rig.workers[0].cells.errors == {"upstream_timeout": 1}
        rig.advance(1)
        assert rig.calls[-1].headers["host"] == "w1:8000"
        rig.calls[-1].stream(STREAM)
        whole_call.answer(200, ANSWER)
        assert [client.status for client in rig.clients] == [200, 200]
        rig.check_idle()


def test_first_token_limit() -> None:
    """A stream that brings events and no token is retried while nothing went out, and ended in-band after that."""
    role = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
    with Rig(2, {"timeouts": {"first_token_s": 5, "idle_s": 100}}) as rig:
        _, client = rig.ask(stream=True)
        rig.call.head_of(200, EVENTS)
        rig.tick(5.1)
        rig.advance(1)
        call = rig.call
        assert call.headers["host"] == "w1:8000"
        call.head_of(200, EVENTS)
        call.data(role)
        for _ in range(4):
            rig.tick(1)
            call.data(role)
        assert call.live
        rig.tick(2)
        assert call.cancelled and chat_events(client.body)[-1]["error"]["code"] == "upstream_timeout"
        rig.check_idle()


def test_idle_limit() -> None:
    """A worker that stops sending is left: a whole answer is retried, a stream ends in-band."""
    with Rig(2, {"timeouts": {"idle_s": 5}}) as rig:
        _, client = rig.ask()
        rig.call.head_of(200, {"content-type": "application/json"})
        rig.tick(5.1)
        rig.advance(1)
        rig.call.answer(200, ANSWER)
        assert client.status == 200
        _, client = rig.ask(stream=True)
        rig.call.stream(chunk("a"), end=False)
        for _ in range(5):
            rig.tick(4)
            rig.call.data(chunk("b"))
        rig.tick(5.1)
        assert chat_events(client.body)[-1]["error"]["code"] == "upstream_timeout"
        rig.check_idle()


@pytest.mark.parametrize("when", ["waiting", "backoff", "stream", "pass", "end mark"])
def test_total_limit(when: str) -> None:
    """The whole request has an end: 504 before the first byte, in-band in a stream, a cut otherwise, nothing where all was said."""
    limits = {"timeouts": {"total_s": 60}, "retry": {"initial_backoff_s": 2, "max_backoff_s": 2}}
    with Rig(2, {**limits, "upstream": {"max_buffered_answer_bytes": 0}}) as rig:
        x, client = rig.ask(stream=True)
        call = rig.call
        rig.advance(59)
        if when == "backoff":
            call.refuse()
        elif when == "stream":
            call.stream(chunk("a"), end=False)
        elif when == "end mark":
            call.stream(STREAM, end=False)
        elif when == "pass":
            call.head_of(200, {"content-type": "application/json"})
            call.data(b"{")
        assert not client.over
        rig.tick(1.1)
        assert client.over and not rig.calls
        if when == "stream":
            assert chat_events(client.body)[-1]["error"]["code"] == "deadline_exceeded" and client.finished
        elif when == "pass":
            assert client.aborted
        elif when == "end mark":
            assert x.error is None and client.body.endswith(DONE)
        else:
            assert client.status == 504 and client.headers["x-smg-error-code"] == "deadline_exceeded"
        assert rig.workers[0].cells.failures == (when == "backoff")
        rig.check_idle()


# -- hedging ----------------------------------------------------------------------------------------------------------

HEDGE = {"hedge": {"enabled": True, "min_delay_s": 0.01, "max_ratio": 1}}


def _warm(rig: Rig, delay_s: float = 1.0, count: int = 32) -> None:
    """Let the pool learn how long first bytes take."""
    for _ in range(count):
        rig.ask()
        call = rig.calls[0]
        rig.loop.now_s += delay_s
        call.answer(200, ANSWER)
    rig.loop.advance()
    assert not rig.loop.timers


def test_a_slow_worker_is_hedged() -> None:
    """After the usual time a second worker is asked; the first answer wins and the other call is cancelled."""
    with Rig(3, HEDGE) as rig:
        _warm(rig)
        for winner in (0, 1):
            x, client = rig.ask()
            rig.advance(0.99)
            assert len(rig.calls) == 1
            rig.advance(0.02)
            calls = rig.calls
            assert [call.headers["host"] for call in calls] == ["w0:8000", "w1:8000"]
            assert [worker.load for worker in rig.workers] == [1, 1, 0]
            calls[winner].answer(200, ANSWER)
            assert client.status == 200 and calls[1 - winner].cancelled and x.worker is rig.workers[winner]
            assert rig.workers[1].cells.hedges_won == winner
            assert x.cells is not None and x.cells.hedges == winner + 1
            rig.check_idle()
        assert rig.workers[0].cells.failures == rig.workers[1].cells.failures == 0


def test_hedging_may_be_switched_off_while_two_are_asked() -> None:
    """A client gets one stream, never two mixed, also when a new configuration ends hedging in between; no further hedge is sent."""
    with Rig(3, HEDGE) as rig:
        _warm(rig)
        _, client = rig.ask(stream=True)
        rig.advance(1.01)
        first, second = rig.calls
        _, late = rig.ask(stream=True)
        rig.driver.configure(rig.config.model_copy(update={"hedge": HedgeConfig()}))
        first.head_of(200, EVENTS)
        first.data(chunk("a"))
        assert second.cancelled
        second.head_of(200, EVENTS)
        second.data(chunk("b"))
        first.data(FINISH + DONE)
        first.end()
        assert client.body == chunk("a") + FINISH + DONE
        rig.advance(1.01)
        rig.call.stream(STREAM)
        assert late.status == 200
        rig.check_idle()


def test_a_hedge_carries_on_alone() -> None:
    """When one of the two fails, the other goes on, and nothing is retried before both have failed."""
    with Rig(3, HEDGE) as rig:
        _warm(rig)
        _, client = rig.ask(stream=True)
        rig.advance(2)
        first, second = rig.calls
        first.answer(503, b"held")
        rig.advance(5)
        assert not client.begun and rig.calls == [second]
        second.stream(STREAM)
        assert client.status == 200
        _, client = rig.ask()
        rig.advance(2)
        first, second = rig.calls
        second.refuse()
        first.answer(503, b"held")
        rig.advance(5)
        assert rig.call.headers["host"] == "w2:8000"
        rig.call.answer(200, ANSWER)
        assert client.status == 200
        rig.check_idle()


def test_hedges_are_bounded() -> None:
    """Hedges stay within their share of the requests; one is always allowed; alone or unknown, none is sent."""
    with Rig(2, {"hedge": {"enabled": True, "min_delay_s": 0.01, "max_ratio": 0.1}}) as rig:
        rig.ask()
        rig.advance(30)
        assert len(rig.calls) == 1, "too little is known yet"
        rig.call.answer(200, ANSWER)
        _warm(rig)
        rig.tick(30)
        sent = 0
        for _ in range(10):
            rig.ask()
            rig.advance(2)
            sent += len(rig.calls)
            rig.calls[0].answer(200, ANSWER)
        assert sent == 11
        rig.check_idle()
    with Rig(1, HEDGE) as rig:
        _warm(rig)
        rig.ask()
        rig.advance(30)
        assert len(rig.calls) == 1


def test_both_attempts_may_be_late() -> None:
    """Two attempts that run out of time in the same tick end the request once."""
    with Rig(2, {**HEDGE, "timeouts": {"first_byte_s": 5}, "retry": {"max_attempts": 2}}) as rig:
        _warm(rig)
        _, client = rig.ask()
        rig.advance(2)
        assert len(rig.calls) == 2
        rig.tick(10)
        assert client.status == 504
        rig.check_idle()


# -- usage and admission ----------------------------------------------------------------------------------------------

LIMITED = {"admission": {"max_concurrent_requests": 1}}


def test_a_request_waits_for_its_place() -> None:
    """Beyond the limit a request waits, and goes on when a place is free."""
    with Rig(1, LIMITED) as rig:
        _, first = rig.ask()
        x, second = rig.ask()
        assert x.waiting is not None and len(rig.calls) == 1
        rig.call.answer(200, ANSWER)
        rig.advance()
        assert first.status == 200 and x.waiting is None
        rig.call.answer(200, ANSWER)
        assert second.status == 200
        rig.check_idle()


def test_whoever_leaves_the_queue_is_forgotten() -> None:
    """A client that leaves while it waits gives its place in the queue back; one whose time is over is refused."""
    with Rig(1, {**LIMITED, "timeouts": {"total_s": 40}}) as rig:
        rig.ask()
        gone, _ = rig.ask()
        _, late = rig.ask()
        rig.driver.client_gone(gone)
        rig.advance(30)
        rig.call.answer(200, ANSWER)
        rig.advance()
        assert len(rig.calls) == 1
        rig.tick(11)
        assert late.status == 504
        rig.check_idle()


def test_every_exchange_ends_when_the_process_stops() -> None:
    """`close` cuts every connection and gives everything back."""
    with Rig(1, LIMITED) as rig:
        rig.ask()
        rig.ask()
        rig.driver.close()
        assert all(client.aborted for client in rig.clients)
        rig.advance()
        rig.check_idle()


@interpreted_only
def test_an_exchange_leaves_no_circle_behind() -> None:
    """An exchange that is over, failed attempts and all, is freed at once, without the garbage collector."""
    with Rig(3, {"retry": {"max_attempts": 3}}) as rig:
        gc.disable()
        try:
            for stream, play in ((False, "whole"), (True, "stream"), (False, "refused"), (False, "gone"), (False, "late")):
                x, _ = rig.ask(stream=stream)
                if play == "refused":
                    rig.call.refuse()
                    rig.advance(1)
                    rig.call.answer(503, b"x")
                    rig.advance(1)
                    rig.call.answer(500, b"y")
                elif play == "gone":
                    rig.driver.client_gone(x)
                elif play == "late":
                    rig.tick(4000)
                elif stream:
                    rig.call.stream(STREAM)
                else:
                    rig.call.answer(200, ANSWER)
                assert x.over
                gone = weakref.ref(x)
                for pool in rig.pools.values():
                    pool.calls.clear()
                rig.exchanges.clear()
                rig.clients.clear()
                del x
                assert gone() is None, play
        finally:
            gc.enable()


def test_a_driver_says_what_it_does() -> None:
    """`repr` of driver, exchange and attempt tell their state."""
    with Rig(2) as rig:
        x, _ = rig.ask(headers=[(b"x-request-id", b"abc")])
        assert repr(rig.driver) == "<Driver 1 active>"
        assert repr(x) == "<Exchange /v1/chat/completions abc [open, 1 attempts]>"
        assert repr(x.attempts[0]) == "<Attempt at http://w0:8000 NONE >"
        rig.call.answer(200, ANSWER)
        assert "over" in repr(x)


def test_new_settings_count_from_the_next_step_on() -> None:
    """A new configuration applies to exchanges under way."""
    with Rig(3) as rig:
        _, client = rig.ask()
        rig.driver.configure(GatewayConfig.model_validate({"retry": {"statuses": [503], "max_attempts": 2}}))
        rig.call.answer(500, b"x")
        assert client.status == 500
        assert asyncio.iscoroutinefunction(rig.rt.drain)


def test_a_reload_forgets_no_retries() -> None:
    """Settings that did not change keep their budget, so that frequent reloads do not multiply retries."""
    with Rig(1, {"retry": {"max_attempts": 2, "budget_ratio": 0, "budget_min_per_s": 0.1, "budget_window_s": 10}}) as rig:
        for _ in range(3):
            rig.ask()
            rig.call.refuse()
            rig.advance(1)
            for call in rig.calls:
                call.refuse()
            rig.driver.configure(rig.config)
        assert len(rig.sent) == 4, "one retry in all"
        rig.check_idle()
