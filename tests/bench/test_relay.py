"""The hot path in memory, from the bytes of a client to the bytes of a worker and back: a request, a stream, an event.

Connection, pipeline, policy, accounting and the pooled upstream client are the real ones with every default feature on; only
sockets and the kernel are missing (they are about half of what `smgctl bench` measures). Nothing here fails by time.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.model import PolicyName
from harness.bench.cases import CASES, EVENTS, PATH, Case
from harness.bench.upstream import ANSWER, STREAM_END, STREAM_HEAD, TOKEN
from tests.support.in_memory import InMemoryGateway

pytestmark = pytest.mark.bench


def request_of(case: Case, headers: bytes = b"") -> bytes:
    """The bytes of a request as a load generator sends it."""
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:30000\r\nContent-Type: application/json\r\n" % PATH.encode()
    return head + headers + b"Content-Length: %d\r\n\r\n%b" % (len(case.body), case.body)


WHOLE = request_of(CASES["chat64"])
STREAM = request_of(CASES["stream64"])
SDK = request_of(
    CASES["chat64"],
    b"Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: OpenAI/Python 2.8.1\r\n"
    b"Authorization: Bearer none\r\nX-Stainless-Lang: python\r\nX-Stainless-Package-Version: 2.8.1\r\nX-Stainless-OS: Linux\r\n"
    b"X-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.11.7\r\n"
    b"X-Stainless-Async: false\r\nx-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n",
)


async def test_whole_answer(benchmark: Any) -> None:
    """A request and its answer, each in one piece."""
    with InMemoryGateway() as gateway:

        def exchange() -> None:
            gateway.client.data_received(WHOLE)
            gateway.asked().data_received(ANSWER)

        benchmark(exchange)
        assert gateway.transport.last.startswith(b"HTTP/1.1 200 ")
        assert gateway.transport.last.endswith(ANSWER.partition(b"\r\n\r\n")[2])
        gateway.check_idle()


async def test_whole_answer_to_an_sdk(benchmark: Any) -> None:
    """The same with the fourteen headers more that the openai SDK sends."""
    with InMemoryGateway() as gateway:

        def exchange() -> None:
            gateway.client.data_received(SDK)
            gateway.asked().data_received(ANSWER)

        benchmark(exchange)
        assert gateway.transport.last.startswith(b"HTTP/1.1 200 ")
        gateway.check_idle()


async def test_whole_answer_in_pieces(benchmark: Any) -> None:
    """The same where heads and bodies come apart, which takes the parsers of llhttp."""
    head, _, body = WHOLE.partition(b"\r\n\r\n")
    answer_head, _, answer = ANSWER.partition(b"\r\n\r\n")
    with InMemoryGateway() as gateway:

        def exchange() -> None:
            gateway.client.data_received(head + b"\r\n\r\n")
            gateway.client.data_received(body)
            worker = gateway.asked()
            worker.data_received(answer_head + b"\r\n\r\n")
            worker.data_received(answer)

        benchmark(exchange)
        assert gateway.transport.last.endswith(answer)
        gateway.check_idle()


@pytest.mark.parametrize("policy", ["cache_aware", "power_of_two", "least_load"])
async def test_whole_answer_by_policy(benchmark: Any, policy: PolicyName) -> None:
    """The same under other policies than round_robin."""
    with InMemoryGateway({"routing": {"policy": policy}}) as gateway:

        def exchange() -> None:
            gateway.client.data_received(WHOLE)
            gateway.asked().data_received(ANSWER)

        benchmark(exchange)
        assert gateway.transport.last.startswith(b"HTTP/1.1 200 ")
        gateway.check_idle()


async def test_whole_stream(benchmark: Any) -> None:
    """A stream of 65 events from its request to its end, each event a piece of its own."""
    with InMemoryGateway() as gateway:

        def exchange() -> None:
            gateway.client.data_received(STREAM)
            worker = gateway.asked()
            worker.data_received(STREAM_HEAD)
            for _ in range(EVENTS):
                worker.data_received(TOKEN)
            worker.data_received(STREAM_END)

        benchmark(exchange)
        assert gateway.transport.last.endswith(b"0\r\n\r\n")
        gateway.check_idle()


async def test_event(benchmark: Any) -> None:
    """One event of a stream that is under way: what each token costs."""
    with InMemoryGateway() as gateway:
        gateway.client.data_received(STREAM)
        worker = gateway.asked()
        worker.data_received(STREAM_HEAD)
        for _ in range(3):
            worker.data_received(TOKEN)
        writes = gateway.transport.writes
        benchmark(worker.data_received, TOKEN)
        assert gateway.transport.writes > writes and gateway.transport.last == TOKEN
        worker.data_received(STREAM_END)
        gateway.check_idle()


async def test_eight_events_in_a_piece(benchmark: Any) -> None:
    """Eight events that came together, as from a worker that lags or a proxy that buffers."""
    with InMemoryGateway() as gateway:
        gateway.client.data_received(STREAM)
        worker = gateway.asked()
        worker.data_received(STREAM_HEAD)
        worker.data_received(TOKEN)
        benchmark(worker.data_received, TOKEN * 8)
        worker.data_received(STREAM_END)
        assert gateway.transport.last.endswith(b"0\r\n\r\n")
        gateway.check_idle()
