"""Load where `wrk` is not there: so many connections, each with one request at a time; `python -m harness.bench.load`.

A closed loop on raw protocols: the next request goes out in the callback that saw the answer's end. It costs about 30 us a
request, six times `wrk`, and unlike `wrk` it notices a stream without its end mark.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import cast

import httptools
import msgspec
import uvloop

from harness.bench.cases import CASES, PATH, Case

RECONNECT_S = 0.05
_END_MARK = b"data: [DONE]\n\n"


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a load generator saw in one round."""

    requests: int
    """Answers that came whole, also those that count as errors."""
    errors: int
    """Answers that are not 2xx, streams without an end, broken and refused connections."""
    seconds: float
    p50_ms: float | None
    p99_ms: float | None

    @property
    def rps(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds if self.seconds else 0.0


class Round:
    """One round: what its connections share. Made and used once, by `run`."""

    def __init__(self, case: Case, host: str, port: int, *, until_s: float) -> None:
        self.case = case
        self.host = host
        self.port = port
        self.until_s = until_s
        body = case.body
        self.request = (
            f"POST {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.latencies_s: list[float] = []
        self.errors = 0

    @property
    def over(self) -> bool:
        """No answer counts any more."""
        return time.perf_counter() >= self.until_s

    async def connection(self) -> None:
        """Keep one connection busy until the round is over, connecting again where it breaks."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(max(0.0, self.until_s - time.perf_counter())):
                while True:
                    try:
                        _, client = await loop.create_connection(lambda: Client(self, loop.create_future()), self.host, self.port)
                    except OSError:
                        self.errors += 1
                        await asyncio.sleep(RECONNECT_S)
                        continue
                    try:
                        await client.lost
                    finally:
                        client.leave()
        except TimeoutError:
            return


class Client(asyncio.Protocol):
    """One connection of a round."""

    def __init__(self, of: Round, lost: asyncio.Future[None]) -> None:
        self.lost = lost
        self._round = of
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._sent_s = 0.0
        self._tail = b""
        self._waiting = False

    def leave(self) -> None:
        """Close the connection; what it waits for does not count."""
        self._waiting = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a request that got no answer."""
        if self._waiting and not self._round.over:
            self._round.errors += 1
        if not self.lost.done():
            self.lost.set_result(None)

    def on_body(self, body: bytes) -> None:
        """Keep the end of a stream."""
        if self._round.case.stream:
            self._tail = (self._tail + body)[-len(_END_MARK) :]

    def on_message_complete(self) -> None:
        """Count an answer and ask again."""
        now_s = time.perf_counter()
        of = self._round
        self._waiting = False
        if now_s >= of.until_s:
            return
        of.latencies_s.append(now_s - self._sent_s)
        status = self._parser.get_status_code()
        if not 200 <= status < 300 or (of.case.stream and self._tail != _END_MARK):
            of.errors += 1
        assert self._transport is not None
        if self._parser.should_keep_alive():
            self._send()
        else:
            self._transport.close()

    def _send(self) -> None:
        assert self._transport is not None
        self._tail = b""
        self._waiting = True
        self._sent_s = time.perf_counter()
        self._transport.write(self._round.request)


async def run(case: Case, host: str, port: int, seconds: float) -> LoadResult:
    """Load an address for so many seconds."""
    round_ = Round(case, host, port, until_s=time.perf_counter() + seconds)
    async with asyncio.TaskGroup() as connections:
        for _ in range(case.connections):
            connections.create_task(round_.connection())
    return summary(round_.latencies_s, round_.errors, seconds)


def summary(latencies_s: Sequence[float], errors: int, seconds: float) -> LoadResult:
    """Sum a round up."""
    p50_ms = p99_ms = None
    if len(latencies_s) > 1:
        cuts = statistics.quantiles(latencies_s, n=100, method="inclusive")
        p50_ms, p99_ms = cuts[49] * 1e3, cuts[98] * 1e3
    return LoadResult(requests=len(latencies_s), errors=errors, seconds=seconds, p50_ms=p50_ms, p99_ms=p99_ms)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one round and print what was seen as JSON."""
    parser = argparse.ArgumentParser(prog="harness.bench.load", description="Load an address of a gateway.")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--host", default="127.0.0.1")
    given = parser.parse_args(arguments)
    result = uvloop.run(run(CASES[given.case], given.host, given.port, given.seconds))
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
