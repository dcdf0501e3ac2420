"""Phase relay: what is done with an answer, and which of its header lines reach the client."""

from __future__ import annotations

import gzip
import logging
from typing import Any

import pytest

from gateway.pipeline.relay import HOLD, MAX_HELD_BYTES, PASS, STREAM, WHOLE
from gateway.protocol.usage import Usage
from tests.support.exchange import ANSWER, CHAT, DONE, EVENTS, FINISH, Rig, chunk, state

JSON = (b"content-type", b"application/json")


@pytest.mark.parametrize(
    ("status", "headers", "length", "expected"),
    [
        (200, [JSON], 10, WHOLE),
        (200, [JSON], None, WHOLE),
        (200, [], 10, WHOLE),
        (200, [JSON], 101, PASS),
        (200, [JSON, (b"content-encoding", b"gzip")], 10, PASS),
        (200, [JSON, (b"content-encoding", b"Identity")], 10, WHOLE),
        (200, [(b"content-type", b"text/event-stream; charset=utf-8")], None, STREAM),
        (200, [(b"content-type", b"Text/Event-Stream")], None, STREAM),
        (200, [(b"content-type", b"text/event-stream"), (b"content-encoding", b"br")], None, PASS),
        (400, [(b"content-type", b"text/event-stream")], None, WHOLE),
        (500, [(b"content-type", b"text/event-stream")], None, HOLD),
        (503, [JSON], 10_000, HOLD),
        (429, [JSON, (b"content-encoding", b"gzip")], 10, HOLD),
        (401, [JSON], 10, WHOLE),
        (404, [JSON], 10, WHOLE),
        (501, [JSON], 10, WHOLE),
    ],
)
def test_what_is_done_with_an_answer(status: int, headers: Any, length: int | None, expected: int) -> None:
    """Status, type, coding and length decide whether an answer is held, scanned, kept whole or passed on."""
    with Rig(1, {"upstream": {"max_buffered_answer_bytes": 100}}) as rig:
        x, _ = rig.ask()
        rig.call.head_of(status, headers, length)
        assert x.attempts[0].mode == expected
        assert rig.workers[0].cells.responses == {status: 1}
        rig.driver.close()


def test_a_refused_key_of_the_gateways_own_is_held() -> None:
    """401 and 403 of a worker that the gateway signs in at are no answers for a client."""
    with Rig([state(0, api_key="k")]) as rig:
        for status in (401, 403):
            x, _ = rig.ask()
            rig.call.head_of(status, [JSON], 0)
            assert x.attempts[0].mode == HOLD
            rig.driver.client_gone(x)


@pytest.mark.parametrize("connection", [[b"X-Hop, keep-alive"], [b"x-hop"], [b"close", b"x-hop"], [b"x-other", b"X-HOP"], [b"CLOSE,x-hop"]])
def test_hop_by_hop_lines_stay_behind(connection: list[bytes]) -> None:
    """Framing, connection lines and those that a connection line names are the worker's and ours; all others are the client's."""
    sent = [
        (b"date", b"now"), (b"x-hop", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"x"), (b"te", b"x"), (b"trailer", b"x"), (b"upgrade", b"h2c"), (b"proxy-authenticate", b"x"),
        (b"x-request-id", b"theirs"), (b"transfer-encoding", b"chunked"), (b"server", b"uvicorn"), JSON,
    ]  # fmt: skip
    sent += [(b"connection", value) for value in connection]
    with Rig() as rig:
        x, client = rig.ask()
        rig.call.head_of(200, sent, None)
        rig.call.data(ANSWER)
        rig.call.end()
        assert client.header_lines == [
            ("date", "now"), ("set-cookie", "a"), ("set-cookie", "b"), ("server", "uvicorn"), ("content-type", "application/json"),
            ("x-request-id", x.request_id.decode()),
        ]  # fmt: skip
        assert rig.workers[0].cells.responses == {200: 1}


def test_lines_stay_where_no_connection_line_names_them() -> None:
    """A plain `connection: close` hides nothing else."""
    with Rig() as rig:
        _, client = rig.ask()
        rig.call.head_of(200, [(b"connection", b"close"), (b"x-hop", b"1"), JSON], None)
        rig.call.data(ANSWER)
        rig.call.end()
        assert client.headers["x-hop"] == "1"


def test_a_large_error_is_cut() -> None:
    """Of an error that may be retried no more than a megabyte is kept."""
    with Rig(1, {"retry": {"max_attempts": 1}}) as rig:
        _, client = rig.ask()
        rig.call.head_of(500, [], None)
        for _ in range(5):
            rig.call.data(b"x" * (300 << 10))
        rig.call.end()
        assert client.status == 500 and 0 < len(client.body) <= MAX_HELD_BYTES


@pytest.mark.parametrize(("content_type", "body", "fine"), [
    (b"application/json", b"{", False),
    (b"application/problem+json", b"nope", False),
    (None, b"nope", False),
    (None, b"", False),
    (b"text/plain", b"", False),
    (b"text/plain", b"hello", True),
    (b"application/json", b'{"a": NaN}', True),
])  # fmt: skip
def test_a_success_must_be_readable(content_type: bytes | None, body: bytes, fine: bool) -> None:
    """A 200 that claims to be JSON and is none is the worker's failure; one in another type is none of our business."""
    with Rig(1, {"retry": {"max_attempts": 1}}) as rig:
        x, client = rig.ask()
        rig.call.head_of(200, [(b"content-type", content_type)] if content_type is not None else [], None)
        if body:
            rig.call.data(body)
        rig.call.end()
        assert (client.status, client.body) == (200, body) if fine else client.status == 502
        assert rig.workers[0].cells.failures == (not fine)
        if not fine:
            assert client.headers["x-smg-error-code"] == "upstream_protocol"
        assert x.usage is None


def test_tokenizers_answers_are_not_read() -> None:
    """Where no usage is told, the body is nobody's business."""
    with Rig() as rig:
        _, client = rig.ask(path=b"/v1/tokenize")
        rig.call.answer(200, b"[1,2")
        assert client.body == b"[1,2"


def test_an_encoded_stream_is_passed_on() -> None:
    """What nobody here can read is passed on as it comes, coding and all."""
    wire = gzip.compress(chunk("a") + FINISH + DONE)
    with Rig() as rig:
        _, client = rig.ask(stream=True)
        rig.call.head_of(200, [*EVENTS, (b"content-encoding", b"gzip")], None)
        rig.call.data(wire[:9], wire[9:])
        rig.call.end()
        assert client.body == wire and client.headers["content-encoding"] == "gzip" and client.finished and client.length is None


def test_a_stream_may_come_without_being_asked_for() -> None:
    """An answer of events is scanned also where the client asked for none; one that is whole counts as a whole one."""
    with Rig() as rig:
        x, client = rig.ask()
        rig.call.stream(chunk("a"), FINISH, DONE)
        assert client.finished and x.streaming and x.error is None
        x, client = rig.ask(stream=True)
        rig.call.answer(200, ANSWER)
        assert client.whole and client.body == ANSWER and x.usage == Usage(5, 2, 0)


@pytest.mark.parametrize("tail", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n\r\n"])
@pytest.mark.parametrize("how", ["data", "chunks"])
def test_a_last_event_without_its_blank_line(tail: bytes, how: str) -> None:
    """An end mark that lacks its blank line is one all the same."""
    with Rig() as rig:
        _, client = rig.ask(stream=True)
        rig.call.head_of(200, EVENTS)
        getattr(rig.call, how)(chunk("a"), FINISH, tail)
        rig.call.end()
        assert client.body == chunk("a") + FINISH + tail and client.finished


def test_an_empty_stream_is_retried() -> None:
    """A stream that ends without any event has broken."""
    with Rig(2, {}) as rig:
        logging.getLogger("gateway.pipeline.run").disabled = True
        try:
            _, client = rig.ask(stream=True)
            rig.call.stream()
            rig.advance(1)
            rig.call.stream(chunk("a"), FINISH, DONE)
        finally:
            logging.getLogger("gateway.pipeline.run").disabled = False
        assert client.status == 200 and len(rig.sent) == 2


def test_the_first_token_is_noted_when_it_came() -> None:
    """The time to the first token is that of the first event with one, not of the first event."""
    with Rig() as rig:
        x, _ = rig.ask(stream=True, path=CHAT)
        rig.call.head_of(200, EVENTS)
        rig.loop.now_s += 1
        rig.call.data(b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n')
        assert not x.first_token_s
        rig.loop.now_s += 1
        rig.call.chunks(chunk("a"))
        rig.loop.now_s += 1
        rig.call.chunks(chunk("b"), FINISH, DONE)
        rig.call.end()
        assert x.first_token_s - x.started_s == pytest.approx(2)
        assert x.cells is not None and x.cells.ttft.total == pytest.approx(2) and x.cells.generation.total == pytest.approx(1)
