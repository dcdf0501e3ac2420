"""Access log: one structured line a request, encoded and written by a thread; the request path only appends to a queue.

Strategy. `write` puts the raw values into a bounded queue and returns. A thread looks at the queue ten times a second (or
earlier, when it fills), encodes what is there and writes it. When the sink blocks, the queue fills up and
further lines are dropped and counted; requests never wait. A line never holds headers, keys, prompts or answers.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.protocol.usage import Usage
from gateway.telemetry.clock import wall_s

log = logging.getLogger(__name__)

MAX_LINES = 16_384
"""Lines that may wait for the sink; at 500 bytes a line about 8 MB."""
FLUSH_S = 0.1
CLOSE_S = 1.0
"""Time that the last lines have when the process ends."""
_BATCH_LINES = 512
_STDOUT = 1

_Entry = tuple[
    float, str, str, str, str, int, str, str, str, int, bool, Usage | None, float | None, float, str, int
]  # fmt: skip


class AccessLog:
    """The access log of one process. The first `write` starts its thread, `close` ends it.

    Args:
        json_lines: Lines of JSON; else logfmt (`key=value`, quoted where needed).
        fd: Descriptor written to; the standard output unless given. It is not closed.
        clock: Unix time.
        max_lines: Lines that may wait for the sink.
    """

    def __init__(
        self, *, json_lines: bool = True, fd: int = _STDOUT, clock: Callable[[], float] = wall_s, max_lines: int = MAX_LINES
    ) -> None:
        self._refused = 0
        self._unwritten = 0
        self._encode = _json_line if json_lines else _logfmt_line
        self._fd = fd
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._max_lines = max_lines
        self._early = max_lines // 2
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<AccessLog {len(self._queue)} waiting, {self.dropped} dropped{', closed' if self._closed else ''}>"

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._refused + self._unwritten

    def write(
        self,
        *,
        request_id: str,
        path: str,
        model: str,
        status: int,
        code: str,
        source: str,
        worker: str,
        attempts: int,
        stream: bool,
        usage: Usage | None,
        ttft_s: float | None,
        duration_s: float,
        tenant: str,
        bytes_out: int,
        method: str = "POST",
    ) -> None:
        """Log a request that ended. Never waits, never raises; after `close` the line is dropped."""
        queue = self._queue
        waiting = len(queue)
        if waiting >= self._max_lines or self._closed:
            self._refused += 1
            return
        queue.append((
            self._clock(), request_id, method, path, model, status, code, source, worker, attempts, stream, usage, ttft_s,
            duration_s, tenant, bytes_out,
        ))  # fmt: skip
        if waiting == self._early:
            self._wake.set()
        if self._thread is None:
            self._start()

    def close(self, wait_s: float = 0.0) -> None:
        """Take no more lines; those that wait are still written, within `CLOSE_S` when the process ends.

        Args:
            wait_s: Time to wait here until they are written; 0 on an event loop.
        """
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is None:
            return
        if wait_s:
            thread.join(wait_s)
        if thread.is_alive():
            atexit.register(thread.join, CLOSE_S)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="smg-access-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Write until closed and empty."""
        queue = self._queue
        wake = self._wake
        while True:
            wake.wait(FLUSH_S)
            if not self._closed:
                wake.clear()
            while queue:
                batch = [queue.popleft() for _ in range(min(len(queue), _BATCH_LINES))]
                self._put(batch)
            if self._closed:
                return

    def _put(self, batch: list[_Entry]) -> None:
        """Write some lines, in pieces of whole lines that a pipe takes at once, since other processes write to it too."""
        encode = self._encode
        piece = bytearray()
        try:
            for entry in batch:
                line = encode(entry)
                if piece and len(piece) + len(line) > select.PIPE_BUF:
                    self._write(piece)
                    piece.clear()
                piece += line
            self._write(piece)
        except OSError as error:
            if not self._unwritten:
                log.error("the access log cannot be written: %s", error.strerror)
            self._unwritten += len(batch)

    def _write(self, piece: bytearray) -> None:
        written = 0
        while written < len(piece):
            try:
                written += os.write(self._fd, bytes(piece[written:]))
            except BlockingIOError:  # somebody made the descriptor non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()


def _fields(entry: _Entry) -> dict[str, Any]:
    """Return the line's fields in order; those that say nothing are left out."""
    (
        time_s, request_id, method, path, model, status, code, source, worker, attempts, stream, usage, ttft_s, duration_s, tenant,
        bytes_out,
    ) = entry  # fmt: skip
    fields: dict[str, Any] = {
        "time": datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": request_id,
        "method": method,
        "path": path,
        "model": model,
        "status": status,
        "duration_s": round(duration_s, 6),
        "attempts": attempts,
        "stream": stream,
        "bytes": bytes_out,
    }
    if code:
        fields["error_code"] = code
        fields["source"] = source
    if worker:
        fields["worker"] = worker
    if tenant:
        fields["tenant"] = tenant
    if ttft_s is not None:
        fields["ttft_s"] = round(ttft_s, 6)
    if usage is not None:
        fields["prompt_tokens"] = usage.prompt_tokens
        fields["completion_tokens"] = usage.completion_tokens
        fields["cached_tokens"] = usage.cached_tokens
    return fields


def _json_line(entry: _Entry) -> bytes:
    fields = _fields(entry)
    try:
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # a lone surrogate out of a client's JSON string
        return orjson.dumps(dict(_clean(fields.items())), option=orjson.OPT_APPEND_NEWLINE)


def _logfmt_line(entry: _Entry) -> bytes:
    pairs = [f"{key}={_logfmt_value(value)}" for key, value in _clean(_fields(entry).items())]
    return (" ".join(pairs) + "\n").encode()


def _clean(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    for key, value in items:
        yield key, value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _logfmt_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and text.isprintable() and not any(character in text for character in ' ="\\'):
        return text
    return orjson.dumps(text).decode()
