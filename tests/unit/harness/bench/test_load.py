import asyncio
import time
from typing import Any, cast

import pytest

from harness.bench.cases import CASES, Case
from harness.bench.load import Client, LoadResult, Round, summary

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Wire:
    """The transport of a connection in memory."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    abort = close


def client_of(case: Case, left_s: float = 60.0) -> tuple[Round, Client, Wire]:
    """A connected client of a round that has so much time left."""
    loop = asyncio.new_event_loop()
    round_, wire = Round(case, "127.0.0.1", 1, until_s=time.perf_counter() + left_s), Wire()
    client = Client(round_, loop.create_future())
    loop.close()
    client.connection_made(cast(Any, wire))
    return round_, client, wire


@pytest.mark.parametrize(("case", "answer"), [("chat64", WHOLE), ("stream64", STREAM)])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_the_next_request_follows_a_whole_answer(case: str, answer: bytes, step: int) -> None:
    """However the answer is cut; a good one is no error."""
    round_, client, wire = client_of(CASES[case])
    for at in range(0, len(answer), step):
        assert len(wire.written) == 1
        client.data_received(answer[at : at + step])
    assert (wire.written, len(round_.latencies_s), round_.errors) == ([round_.request] * 2, 1, 0)


def test_the_request_is_what_the_case_says() -> None:
    """Its length fits, and a stream asks for one."""
    request = client_of(CASES["stream64"])[0].request
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert b'"stream":true' in body


@pytest.mark.parametrize(
    ("case", "answer"),
    [("chat64", WHOLE.replace(b"200 OK", b"503 No")), ("stream64", STREAM.replace(b"[DONE]", b"[GONE]")), ("stream64", WHOLE)],
)
def test_a_bad_answer_is_an_error(case: str, answer: bytes) -> None:
    """A status that is not 2xx, a stream without its end mark."""
    round_, client, _ = client_of(CASES[case])
    client.data_received(answer)
    assert (len(round_.latencies_s), round_.errors) == (1, 1)


@pytest.mark.parametrize("heard", [b"", WHOLE[:-1]])
def test_a_lost_answer_is_an_error(heard: bytes) -> None:
    """A connection that ends before its answer does counts once, and no answer."""
    round_, client, _ = client_of(CASES["chat64"])
    client.data_received(heard)
    client.lost = cast(Any, Done())
    client.connection_lost(None)
    assert (len(round_.latencies_s), round_.errors) == (0, 1)


class Done:
    """A future that is done."""

    def done(self) -> bool:
        return True


def test_a_server_that_closes_in_time_makes_no_error() -> None:
    """`connection: close` ends a connection after its answer."""
    round_, client, wire = client_of(CASES["chat64"])
    client.data_received(WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    client.lost = cast(Any, Done())
    client.connection_lost(None)
    assert (wire.closed, len(wire.written), len(round_.latencies_s), round_.errors) == (True, 1, 1, 0)


def test_what_is_no_http_closes_the_connection() -> None:
    """It is an error once the connection is gone."""
    _, client, wire = client_of(CASES["chat64"])
    client.data_received(b"nonsense\r\n\r\n")
    assert wire.closed


def test_nothing_counts_after_the_end() -> None:
    """An answer that comes too late is neither an answer nor an error."""
    round_, client, wire = client_of(CASES["chat64"], left_s=-1.0)
    client.data_received(WHOLE)
    client.lost = cast(Any, Done())
    client.connection_lost(None)
    assert (len(wire.written), round_.latencies_s, round_.errors) == (1, [], 0)


def test_a_round_is_summed_up() -> None:
    """Quantiles in milliseconds; none of fewer than two answers."""
    seen = summary([at / 1000 for at in range(101)], 3, 2.0)
    assert (seen.requests, seen.errors, seen.p50_ms, seen.p99_ms) == (101, 3, pytest.approx(50.0), pytest.approx(99.0))
    assert seen.rps == 50.5
    assert summary([0.1], 0, 1.0) == LoadResult(requests=1, errors=0, seconds=1.0, p50_ms=None, p99_ms=None)
