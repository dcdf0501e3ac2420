"""Link: calls and notices in both directions between two processes, over one connected socket.

- Either end may call the other. A call has a time limit on both ends, and ends in a result or in a `GatewayError`.
- At most `max_in_flight` calls wait on either end; one more is refused at once.
- A notice is not answered. While the peer does not read, the newest notice of a method replaces the one before it.
- When the link closes, for whatever reason, every call that waits fails at once; `wait_closed` says when that is.

A link lives in one event loop: made without side effects, opened by `async with`, which also owns the tasks of its handlers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import msgspec

from gateway.errors import Code, GatewayError, Retry
from gateway.processes.wire import (
    MAX_MESSAGE_BYTES,
    Answer,
    Call,
    Failure,
    FrameReader,
    Message,
    Method,
    Notice,
    decode_value,
    encode_value,
    error_of,
    failure_of,
    pack,
)

A = TypeVar("A")
R = TypeVar("R")

MAX_IN_FLIGHT = 256
"""Calls that wait for an answer, in one direction."""
WRITE_HIGH_WATER_BYTES = 1 << 20
"""Unsent bytes above which a link holds its notices and lets its calls wait."""

log = logging.getLogger(__name__)


class Link(asyncio.Protocol):
    """One end of a link. `peer` names the other end in errors and log lines, as "the leader" or "process 2"."""

    def __init__(self, sock: socket.socket, peer: str, *, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self.peer = peer
        self.reason: str | None = None
        """Why the link is closed; None while it is open or not yet opened."""
        self._sock = sock
        self._max_in_flight = max_in_flight
        self._handlers: dict[str, tuple[Method[Any, Any], Callable[[Any], Awaitable[Any]]]] = {}
        self._listeners: dict[str, tuple[Method[Any, Any], Callable[[Any], None]]] = {}
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer | Failure | None]] = {}
        self._responding: set[asyncio.Task[None]] = set()
        self._held: dict[str, bytes] = {}
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._tasks = asyncio.TaskGroup()
        self._writable = asyncio.Event()
        self._closed = asyncio.Event()
        self._lost = asyncio.Event()

    def __repr__(self) -> str:
        state = self.reason or ("open" if self._transport is not None else "not opened")
        return f"<Link to {self.peer}: {state}, {len(self._waiting)} waiting, {len(self._responding)} running>"

    def answer(self, method: Method[A, R], handler: Callable[[A], Awaitable[R]]) -> None:
        """Let a coroutine function answer a method. To be called before the link opens."""
        self._handlers[method.name] = (method, handler)

    def hear(self, method: Method[A, None], listener: Callable[[A], None]) -> None:
        """Let a plain function take the notices of a method; they come in the order in which they were sent."""
        self._listeners[method.name] = (method, listener)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: self, sock=self._sock)
        except BaseException as error:
            await self._tasks.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close("closed by this end")
        for task in self._responding:
            task.cancel()
        if self._transport is not None:
            await self._lost.wait()
        await self._tasks.__aexit__(None, None, None)  # Without the error, which would come out wrapped in a group.

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._transport is not None and self.reason is None

    async def wait_closed(self) -> str:
        """Return, once the link is closed, the reason."""
        await self._closed.wait()
        return self.reason or ""

    def close(self, reason: str) -> None:
        """Close the link now; every waiting call fails with `overloaded`."""
        if self.reason is not None:
            return
        self.reason = reason
        if self._transport is not None:
            self._transport.abort()
        else:
            self._sock.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)
        self._held.clear()
        self._writable.set()
        self._closed.set()

    async def call(self, method: Method[A, R], argument: A, *, timeout_s: float | None = None) -> R:
        """Ask the peer and return its answer.

        Raises:
            GatewayError: the one the peer's handler raised; or `overloaded`, when the link is closed, has too many calls
                waiting, or the answer does not come in time (the peer may have done what was asked nevertheless).
        """
        self._check_open()
        if len(self._waiting) >= self._max_in_flight:
            raise GatewayError(Code.OVERLOADED, f"{self.peer} has {self._max_in_flight} questions to answer already", retry_after_s=1)
        call_id = next(self._ids)
        frame = pack(Call(call_id, method.name, encode_value(argument)))
        limit_s = method.timeout_s if timeout_s is None else timeout_s
        future: asyncio.Future[Answer | Failure | None] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = future
        try:
            async with asyncio.timeout(limit_s):
                await self._writable.wait()
                self._write(frame)
                outcome = await future
        except TimeoutError:
            raise GatewayError(
                Code.OVERLOADED, f"{self.peer} did not answer `{method.name}` within {limit_s:g} s", retry_after_s=1
            ) from None
        finally:
            del self._waiting[call_id]
        if isinstance(outcome, Failure):
            raise error_of(outcome)
        if outcome is None:
            raise self._gone()
        try:
            result: R = decode_value(outcome.result, method.result)
        except (msgspec.DecodeError, ValueError) as error:
            raise GatewayError(Code.INTERNAL, f"{self.peer} gave an answer to `{method.name}` that cannot be read") from error
        return result

    def notify(self, method: Method[A, None], argument: A) -> None:
        """Tell the peer; nothing happens when the link is closed."""
        if not self.is_open:
            return
        frame = pack(Notice(method.name, encode_value(argument)))
        if self._writable.is_set():
            self._write(frame)
        else:
            self._held[method.name] = frame

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class.
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Act on every message that is complete."""
        try:
            messages = self._reader.feed(data)
        except ValueError as error:
            log.error("link to %s: %s", self.peer, error)
            self.close(f"{self.peer} sent {error}")
            return
        for message in messages:
            self._receive(message)

    def pause_writing(self) -> None:
        """Hold notices and let calls wait until the peer reads again."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Send what was held."""
        self._writable.set()
        while self._held and self._writable.is_set():
            self._write(self._held.pop(next(iter(self._held))))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what waits."""
        self._lost.set()
        self.close(f"{self.peer} closed the link" if error is None else f"the link to {self.peer} broke: {error}")

    def _receive(self, message: Message) -> None:
        if self.reason is not None:
            return
        match message:
            case Answer() | Failure():
                future = self._waiting.get(message.id)
                if future is not None and not future.done():
                    future.set_result(message)
            case Notice():
                self._listen(message)
            case Call():
                if len(self._responding) >= self._max_in_flight:
                    error = GatewayError(Code.OVERLOADED, "too many questions at once", retry_after_s=1)
                    self._write(pack(failure_of(message.id, error)))
                    return
                task = self._tasks.create_task(self._respond(message))
                self._responding.add(task)
                task.add_done_callback(self._responding.discard)

    def _listen(self, notice: Notice) -> None:
        found = self._listeners.get(notice.method)
        if found is None:
            log.warning("link to %s: nobody listens to `%s`", self.peer, notice.method)
            return
        method, listener = found
        try:
            listener(decode_value(notice.argument, method.argument))
        except Exception:
            log.exception("link to %s: the notice `%s` failed", self.peer, notice.method)

    async def _respond(self, call: Call) -> None:
        frame = await self._outcome(call)
        await self._writable.wait()
        self._write(frame)

    async def _outcome(self, call: Call) -> bytes:
        """Run the handler of a call. The one place where any exception becomes an answer: the peer must not wait in vain."""
        try:
            found = self._handlers.get(call.method)
            if found is None:
                raise GatewayError(Code.INTERNAL, f"nobody answers `{call.method}`", retry=Retry.NEVER)
            method, handler = found
            argument = decode_value(call.argument, method.argument)
            async with asyncio.timeout(method.timeout_s):
                result = await handler(argument)
            return pack(Answer(call.id, encode_value(result)))
        except GatewayError as error:
            return pack(failure_of(call.id, error))
        except TimeoutError:
            return pack(failure_of(call.id, GatewayError(Code.OVERLOADED, f"`{call.method}` took too long", retry_after_s=1)))
        except Exception:
            log.exception("link to %s: the call `%s` failed", self.peer, call.method)
            return pack(failure_of(call.id, GatewayError(Code.INTERNAL, f"`{call.method}` failed, see the log")))

    def _write(self, frame: bytes) -> None:
        """Send a frame. On a closed link nothing happens: whoever waits has been told."""
        transport = self._transport
        if transport is None or self.reason is not None:
            return
        if transport.get_write_buffer_size() > 2 * MAX_MESSAGE_BYTES:
            self.close(f"{self.peer} does not read")
            return
        transport.write(frame)

    def _check_open(self) -> None:
        if self._transport is None or self.reason is not None:
            raise self._gone()

    def _gone(self) -> GatewayError:
        return GatewayError(Code.OVERLOADED, f"{self.peer} cannot be reached, try again", retry_after_s=1)
