import json

import httptools
import pytest

from harness.bench.cases import EVENTS
from harness.bench.upstream import ANSWER, STREAM_END, STREAM_HEAD, TOKEN, request_end

GET = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b'POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{"a":1}'
CHUNKED = b'POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n7\r\n{"a":1}\r\n0\r\n\r\n'
EMPTY = b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_", [GET, POST, CHUNKED, EMPTY])
def test_a_request_ends_where_it_ends(request_: bytes) -> None:
    """Not before its last byte, and not later where another follows."""
    assert [request_end(request_[:at]) for at in range(len(request_))] == [0] * len(request_)
    assert request_end(request_) == request_end(request_ + GET) == len(request_)


class _Read:
    """What httptools makes of an answer."""

    def __init__(self, wire: bytes) -> None:
        self.body = b""
        self.complete = 0
        httptools.HttpResponseParser(self).feed_data(wire)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def test_the_whole_answer_is_one() -> None:
    """A parser reads it to its end, and it has usage."""
    read = _Read(ANSWER)
    assert read.complete == 1
    assert json.loads(read.body)["usage"]["completion_tokens"] == EVENTS


def test_the_stream_is_one() -> None:
    """Every event is JSON but the end mark, and the last has usage."""
    read = _Read(STREAM_HEAD + TOKEN * EVENTS + STREAM_END)
    assert read.complete == 1
    *events, mark, rest = read.body.split(b"\n\n")
    assert (mark, rest, len(events)) == (b"data: [DONE]", b"", EVENTS + 1)
    assert [json.loads(event.removeprefix(b"data: "))["object"] for event in events] == ["chat.completion.chunk"] * (EVENTS + 1)
    assert json.loads(events[-1].removeprefix(b"data: "))["usage"]["total_tokens"] > EVENTS
