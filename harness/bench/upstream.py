"""An upstream that costs next to nothing, so that a comparison measures gateways: `python -m harness.bench.upstream PORT`.

It answers a chat whole or as server-sent events, and the paths that gateways probe; it reads just enough HTTP/1.1 for that,
from clients that are trusted. What behaves like an engine is `harness.sim`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Sequence
from typing import Any, cast

import uvloop

from harness.bench.cases import EVENTS, GAP_S, MODEL

MAX_REQUEST_BYTES = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_STREAM = re.compile(rb'"stream" *: *true')
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"

_USAGE = {"prompt_tokens": 48, "completion_tokens": EVENTS, "total_tokens": 48 + EVENTS}
_TEXT = "Rotterdam is known for its size, Hamburg for its fish market, Bergen for its rain. " * 4


def _whole(value: dict[str, Any]) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _event(data: str) -> bytes:
    text = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(text), text)


def _chat(kind: str, choice: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "logprobs": None, "finish_reason": None, **choice}
    return {"id": "chatcmpl-bench", "object": kind, "created": 1_700_000_000, "model": MODEL, "choices": [choice], **more}


def _chunk(delta: dict[str, str], finish: str | None = None, **more: Any) -> bytes:
    return _event(json.dumps(_chat("chat.completion.chunk", {"delta": delta, "finish_reason": finish}, **more)))


ANSWER = _whole(
    _chat("chat.completion", {"message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}, usage=_USAGE),
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = _chunk({"content": " token"})
STREAM_END = _chunk({}, "stop", usage=_USAGE) + _event("[DONE]") + b"0\r\n\r\n"
MODELS = _whole({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "bench", "max_model_len": 8192}]})
INFO = _whole({"model_path": MODEL, "tokenizer_path": MODEL, "served_model_name": MODEL, "is_generation": True, "version": "0.0.0"})
EMPTY = _whole({})


class Upstream(asyncio.Protocol):
    """One connection: answers requests in order, one at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._read = b""
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """End the stream that is under way."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._read += data
        while (end := request_end(self._read)) > 0:
            request, self._read = self._read[:end], self._read[end:]
            self._answer(request)
        if len(self._read) > MAX_REQUEST_BYTES and self._transport is not None:
            self._transport.abort()

    def _answer(self, request: bytes) -> None:
        assert self._transport is not None
        path = request.split(b" ", 2)[1]
        if not path.startswith(b"/v1/chat"):
            self._transport.write(MODELS if path.startswith(b"/v1/models") else INFO if b"info" in path else EMPTY)
        elif _STREAM.search(request):
            self._transport.write(STREAM_HEAD)
            self._left = EVENTS
            self._timer = self._loop.call_later(GAP_S, self._tick)
        else:
            self._transport.write(ANSWER)

    def _tick(self) -> None:
        assert self._transport is not None
        if self._left:
            self._left -= 1
            self._transport.write(TOKEN)
            self._timer = self._loop.call_later(GAP_S, self._tick)
        else:
            self._timer = None
            self._transport.write(STREAM_END)


def request_end(read: bytes) -> int:
    """Where the first request in `read` ends; 0 while it is not complete."""
    head = read.find(b"\r\n\r\n")
    if head < 0:
        return 0
    if (length := _LENGTH.search(read, 0, head)) is not None:
        end = head + 4 + int(length[1])
        return end if end <= len(read) else 0
    if _CHUNKED.search(read, 0, head) is None:
        return head + 4
    end = read.find(_END_OF_CHUNKS, head + 2)
    return end + len(_END_OF_CHUNKS) if end >= 0 else 0


async def _serve(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(loop), host, port, backlog=4096)
    async with server:
        await server.serve_forever()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="harness.bench.upstream", description="A cheap upstream for comparisons of gateways.")
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    given = parser.parse_args(arguments)
    try:
        uvloop.run(_serve(given.host, given.port))
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
