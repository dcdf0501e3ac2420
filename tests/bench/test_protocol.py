"""Costs of the codecs on the request path; judged against a kept baseline, never by absolute time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.protocol.answer import read_usage
from gateway.protocol.dialect import Dialect
from gateway.protocol.error_body import error_body
from gateway.protocol.request import read_chat
from gateway.protocol.request_id import new_request_id
from gateway.protocol.rewrite import ask_usage, replace_model
from gateway.protocol.sse import StreamScanner
from tests.support.stream import pieces
from tests.support.wire import load

pytestmark = pytest.mark.bench

Benchmark = Callable[..., Any]

CHAT = json.dumps(
    {
        "model": "tiny-chat",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. " * 10},
            {"role": "user", "content": "Tell me a story about a dragon who lives by the sea. " * 24},
        ],
        "stream": True,
        "max_tokens": 128,
        "temperature": 0.7,
    }
).encode()
"""1.7 KB, as a chat of a few turns."""
CHUNK = (
    b'data: {"id":"chatcmpl-9f42a2c5ed0cbb69","object":"chat.completion.chunk","created":1795523713,"model":"tiny-chat",'
    b'"choices":[{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
)
"""A vLLM chunk."""


def test_read_chat(benchmark: Benchmark) -> None:
    """Reading a chat request."""
    assert benchmark(read_chat, CHAT).max_tokens == 128


def test_read_chat_of_other_letters(benchmark: Benchmark) -> None:
    """Reading one whose text is not ASCII: the UTF-8 of skipped members is checked too."""
    body = CHAT.replace(b"dragon", "Drachen, größer als Häuser,".encode())
    assert benchmark(read_chat, body).max_tokens == 128


def test_ask_usage(benchmark: Benchmark) -> None:
    """Asking for usage where the client wrote no stream_options."""
    assert len(benchmark(ask_usage, CHAT, False)) > len(CHAT)


def test_ask_usage_within_options(benchmark: Benchmark) -> None:
    """The same where it did: the object is put together anew."""
    body = CHAT[:-1] + b', "stream_options": {"include_usage": false}}'
    assert b'"include_usage":true' in benchmark(ask_usage, body, True)


def test_replace_model(benchmark: Benchmark) -> None:
    """Replacing an alias."""
    assert b'"model":"other"' in benchmark(replace_model, CHAT, "other")


def test_event_before_the_first_token(benchmark: Benchmark) -> None:
    """A chunk whose deltas are looked at."""
    scanner = StreamScanner(Dialect.CHAT)
    role = pieces(load("vllm-0.32-http", "chat-stream").body, -1)[0]
    assert benchmark(scanner.feed, role) == role
    assert not scanner.token_seen


@pytest.mark.parametrize("text", [b" word", b"\\n\\n"], ids=["text", "escapes"])
def test_event_after_the_first_token(benchmark: Benchmark, text: bytes) -> None:
    """A chunk that differs from the one before in its text alone."""
    scanner = StreamScanner(Dialect.CHAT)
    scanner.feed(CHUNK % b"a")
    scanner.feed(CHUNK % b"b")
    event = CHUNK % text
    assert benchmark(scanner.feed, event) == event


def test_event_with_logprobs(benchmark: Benchmark) -> None:
    """A chunk that differs in more, so that it is decoded."""
    scanner = StreamScanner(Dialect.CHAT)
    events = pieces(load("vllm-0.32-http", "chat-stream").body, -1)[1:3]
    for event in events * 10:
        scanner.feed(event)
    assert benchmark(scanner.feed, events[0]) == events[0]


def test_eight_events_in_a_piece(benchmark: Benchmark) -> None:
    """What a worker that lags behind sends at once."""
    scanner = StreamScanner(Dialect.CHAT)
    piece = b"".join(CHUNK % b"%d" % at for at in range(8))
    scanner.feed(piece)
    assert benchmark(scanner.feed, piece) == piece


def test_messages_event(benchmark: Benchmark) -> None:
    """An Anthropic text delta."""
    scanner = StreamScanner(Dialect.MESSAGES)
    event = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":" word"},"index":0}\n\n'
    scanner.feed(event)
    scanner.feed(event)
    assert benchmark(scanner.feed, event) == event


def test_whole_stream(benchmark: Benchmark) -> None:
    """A stream of 64 tokens from beginning to end, scanner and all."""
    role, _, _, _, *end = pieces(load("vllm-0.32-http", "chat-stream").body, -1)
    stream = [role, *(CHUNK % b"%d" % at for at in range(64)), *end]

    def scan() -> StreamScanner:
        scanner = StreamScanner(Dialect.CHAT, hide_usage=True)
        for event in stream:
            scanner.feed(event)
        return scanner

    scanner = benchmark(scan)
    assert scanner.complete and scanner.usage is not None


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.RESPONSES])
def test_read_usage(benchmark: Benchmark, dialect: Dialect) -> None:
    """Usage of a whole answer."""
    body = load("vllm-0.32-http", "chat" if dialect is Dialect.CHAT else "responses").body
    assert benchmark(read_usage, dialect, body).completion_tokens > 0


def test_read_usage_of_embeddings(benchmark: Benchmark) -> None:
    """The same behind 1024 floats, all of which are checked."""
    answer = {"data": [{"embedding": [0.0123456789 * at for at in range(1024)]}], "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    assert benchmark(read_usage, Dialect.EMBEDDINGS, json.dumps(answer).encode()).prompt_tokens == 5


def test_new_request_id(benchmark: Benchmark) -> None:
    """A new request id."""
    assert len(benchmark(new_request_id, Dialect.CHAT)) == 33


def test_error_body(benchmark: Benchmark) -> None:
    """An error answer."""
    from gateway.errors import Code, GatewayError

    error = GatewayError(Code.OVERLOADED, "too many requests wait")
    assert b"overloaded" in benchmark(error_body, Dialect.CHAT, error)
