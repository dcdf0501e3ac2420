"""Asks a worker over HTTP: a few short GETs of one round, over its own TLS and with its own key, bounded in size and time.

A round has fresh connections, closed at its end: a check then also says that the worker takes connections, and none is kept
from a worker that has few. It goes through the same client as requests do, so what works here works there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import orjson

from gateway.errors import Code, UpstreamError
from gateway.transports.http import Call, Headers, HttpPool
from gateway.transports.target import Target

MAX_ANSWER_BYTES: Final = 1 << 20
"""An answer above this is cut off and counts as a failure; 1000 models are about 300 KiB."""
MAX_CONNECTIONS: Final = 4
"""Questions of one round that run at once."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a question."""

    status: int = 0
    """HTTP status; 0 where none came."""
    body: bytes = b""
    server: str = ""
    """The `server` header."""
    problem: str = ""
    """Why there is no whole answer, in words for an operator."""
    refused: bool = False
    """The worker takes no connections: not slow, not broken, but gone."""

    @property
    def ok(self) -> bool:
        """A whole answer with a status of success."""
        return 200 <= self.status < 300 and not self.problem

    def json(self) -> Any:
        """The body of a successful answer as JSON; None where it is none."""
        if not self.ok:
            return None
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


class Round:
    """A few questions to one worker. Used as an async context manager, on one event loop."""

    def __init__(self, target: Target, key: str | None, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        loop = asyncio.get_running_loop()
        # The limit on a whole question comes first, so a connect that fails before it was refused.
        self._pool = HttpPool(target, loop=loop, max_connections=MAX_CONNECTIONS, connect_s=timeout_s * 2)
        self._loop = loop
        tail = b" HTTP/1.1\r\nhost: " + target.authority + b"\r\naccept: application/json\r\nuser-agent: smg\r\n"
        if key is not None:
            tail += b"authorization: Bearer " + key.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"") + b"\r\n"
        self._tail = tail + b"\r\n"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self._pool.aclose()

    async def get(self, path: str, timeout_s: float | None = None) -> Reply:
        """Ask for a path; whatever goes wrong is in the reply."""
        limit_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        listener = _Listener(self._loop.create_future())
        try:
            listener.call = self._pool.send(b"GET " + self._target.prefix + path.encode() + self._tail, b"", listener)
            async with asyncio.timeout(limit_s):
                return await listener.future
        except TimeoutError:
            return Reply(problem=f"{path} did not answer within {limit_s:g} s")
        except UpstreamError as error:
            return Reply(problem=error.message)
        finally:
            listener.leave()


class _Listener:
    """The sink of one question."""

    def __init__(self, future: asyncio.Future[Reply]) -> None:
        self.future = future
        self.call: Call | None = None
        self._status = 0
        self._server = ""
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def on_head(self, status: int, headers: Headers, length: int | None) -> None:
        self._status = status
        for name, value in headers:
            if name == b"server":
                self._server = value.decode("latin-1")

    def on_chunk(self, framed: bytes, data: bytes) -> None:
        self.on_data(data)

    def on_data(self, data: bytes) -> None:
        self._size_bytes += len(data)
        self._parts.append(data)
        if self._size_bytes > MAX_ANSWER_BYTES:
            self._parts.clear()
            self._settle(Reply(status=self._status, problem=f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB"))
            self.leave()

    def on_end(self) -> None:
        self.call = None
        self._settle(Reply(status=self._status, body=b"".join(self._parts), server=self._server))

    def on_failed(self, error: UpstreamError) -> None:
        self.call = None
        self._settle(Reply(status=self._status, problem=error.message, refused=error.code is Code.CONNECT_FAILED))

    def leave(self) -> None:
        """Stop listening; the connection is closed if the answer is not complete."""
        call, self.call = self.call, None
        if call is not None:
            call.cancel()

    def _settle(self, reply: Reply) -> None:
        if not self.future.done():
            self.future.set_result(reply)
