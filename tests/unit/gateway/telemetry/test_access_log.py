"""The access log writes one line a request, never waits, and never holds what is secret."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.protocol.usage import Usage
from gateway.telemetry.access_log import AccessLog

LINE: dict[str, Any] = {
    "request_id": "chatcmpl-1",
    "path": "/v1/chat/completions",
    "model": "m",
    "status": 200,
    "code": "",
    "source": "",
    "worker": "http://w1:8000",
    "attempts": 2,
    "stream": True,
    "usage": Usage(100, 20, 50),
    "ttft_s": 0.1234567,
    "duration_s": 1.5,
    "tenant": "acme",
    "bytes_out": 4096,
}
BARE = LINE | {
    "worker": "",
    "usage": None,
    "ttft_s": None,
    "tenant": "",
    "model": "",
    "status": 401,
    "code": "unauthenticated",
    "source": "client",
}


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: what is read, what the log writes to."""
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def written(pipe: tuple[int, int], *lines: dict[str, Any], json_lines: bool = True) -> list[bytes]:
    """What the log writes for some requests."""
    log = AccessLog(json_lines=json_lines, fd=pipe[1], clock=lambda: 1_700_000_000.25)
    for line in lines:
        log.write(**line)
    log.close(wait_s=10.0)
    return os.read(pipe[0], 1 << 16).splitlines() if lines else []


def test_a_line_says_what_happened(pipe: tuple[int, int]) -> None:
    """Every field that is known is there, under its name."""
    (line,) = written(pipe, LINE)
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "request_id": "chatcmpl-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "m",
        "status": 200,
        "duration_s": 1.5,
        "attempts": 2,
        "stream": True,
        "bytes": 4096,
        "worker": "http://w1:8000",
        "tenant": "acme",
        "ttft_s": 0.123457,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 50,
    }


def test_an_error_says_its_code_and_whose_fault_it_is(pipe: tuple[int, int]) -> None:
    """What is not known is left out."""
    (line,) = written(pipe, BARE)
    fields = json.loads(line)
    assert (fields["error_code"], fields["source"]) == ("unauthenticated", "client")
    assert fields.keys().isdisjoint({"worker", "tenant", "ttft_s", "prompt_tokens"})


def test_logfmt_quotes_what_needs_it(pipe: tuple[int, int]) -> None:
    """A model's name, which a client makes up, cannot forge a second line or another field."""
    (line,) = written(pipe, LINE | {"model": 'a" status=200\nforged=1'}, json_lines=False)
    assert b'model="a\\" status=200\\nforged=1" status=200' in line
    assert b"stream=true" in line
    assert line.startswith(b"time=2023-11-14T22:13:20.250Z request_id=chatcmpl-1 method=POST path=/v1/chat/completions ")


@pytest.mark.parametrize("json_lines", [True, False])
def test_text_that_cannot_be_encoded_is_replaced(pipe: tuple[int, int], json_lines: bool) -> None:
    """A lone surrogate out of a client's JSON costs no line."""
    lines = written(pipe, LINE | {"model": "\ud800"}, LINE, json_lines=json_lines)
    assert len(lines) == 2
    assert b"?" in lines[0]


def test_lines_come_in_order_and_whole(pipe: tuple[int, int]) -> None:
    """Batches keep the order of the requests."""
    lines = written(pipe, *[LINE | {"attempts": number} for number in range(100)])
    assert [json.loads(line)["attempts"] for line in lines] == list(range(100))


def test_pieces_are_whole_lines_that_a_pipe_takes_at_once(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of several processes on one pipe are not torn apart."""
    pieces: list[bytes] = []
    write = os.write

    def spy(fd: int, data: bytes) -> int:
        pieces.append(data)
        return write(fd, data)

    monkeypatch.setattr(os, "write", spy)
    lines = written(pipe, *[LINE] * 100)
    assert len(lines) == 100
    assert 1 < len(pieces) < 50
    assert all(piece.endswith(b"\n") and len(piece) <= select.PIPE_BUF for piece in pieces)


def test_a_sink_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    """A descriptor that somebody else made non-blocking loses no line."""
    os.set_blocking(pipe[1], False)
    log = AccessLog(fd=pipe[1])
    for number in range(1000):
        log.write(**LINE | {"attempts": number})
    log.close()
    received = b""
    while received.count(b"\n") < 1000:
        received += os.read(pipe[0], 1 << 16)
    log.close(wait_s=10.0)
    assert [json.loads(line)["attempts"] for line in received.splitlines()] == list(range(1000))
    assert log.dropped == 0


def test_a_blocked_sink_costs_lines_not_time(pipe: tuple[int, int]) -> None:
    """While nobody reads, requests go on; lines beyond the bound are dropped and counted, none is lost uncounted."""
    log = AccessLog(fd=pipe[1], max_lines=50)
    total = 5000  # a pipe takes 64 KiB, about 180 of these lines
    for _ in range(total):
        log.write(**LINE)
    dropped = log.dropped
    assert dropped > 0
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(pipe[0], 1 << 16):
            received.append(data)
            if data.endswith(b"end\n"):
                return

    reader = threading.Thread(target=read)
    reader.start()
    log.close(wait_s=10.0)
    os.write(pipe[1], b"end\n")
    reader.join(10.0)
    assert b"".join(received).count(b"chatcmpl-1") == total - dropped
    assert log.dropped == dropped


def test_a_broken_sink_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A reader that went away costs the lines, and one message."""
    read, write = os.pipe()
    os.close(read)
    log = AccessLog(fd=write)
    try:
        for _ in range(2000):
            log.write(**LINE)
        log.close(wait_s=10.0)
    finally:
        os.close(write)
    assert log.dropped == 2000
    assert len([record for record in caplog.records if "access log" in record.message]) == 1


def test_after_close_lines_are_dropped(pipe: tuple[int, int]) -> None:
    """A request that ends after the log was replaced is counted, not written."""
    log = AccessLog(fd=pipe[1])
    log.write(**LINE)
    log.close(wait_s=10.0)
    log.write(**LINE)
    assert log.dropped == 1
    assert os.read(pipe[0], 1 << 16).count(b"\n") == 1


def test_an_unused_log_has_no_thread() -> None:
    """Making one has no side effect."""
    before = threading.active_count()
    log = AccessLog()
    assert threading.active_count() == before
    log.close()
