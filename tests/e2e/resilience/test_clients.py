"""Clients that read slowly and clients that leave: what they cost the gateway and the engines."""

from __future__ import annotations

import asyncio
import json
import pathlib
import socket

import psutil
import pytest

from harness.sim import SimEngine, running
from tests.support.gateway_process import GatewayProcess, gateway_process, total, until_holds
from tests.support.outcomes import CHAT, body

MIB = 1 << 20


class RawClient:
    """A client that reads only when it is told to, with a receive buffer that is as small as the kernel allows."""

    def __init__(self, gateway: GatewayProcess) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.setblocking(False)

    async def send(self, request: dict[str, object]) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._address)
        content = json.dumps(request).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        await loop.sock_sendall(self._socket, head.encode() + content)

    async def read(self, until: bytes) -> bytes:
        """Read on until something has come."""
        loop = asyncio.get_running_loop()
        data = bytearray()
        async with asyncio.timeout(30):
            while until not in data[-len(until) - 65_536 :]:
                piece = await loop.sock_recv(self._socket, 65_536)
                assert piece, f"it ended early: {bytes(data[-300:])!r}"
                data += piece
        return bytes(data)

    def close(self) -> None:
        self._socket.close()


async def until_free(*engines: SimEngine, timeout_s: float = 1.0) -> None:
    """Wait until no engine works on anything."""
    await until_holds(
        lambda: all(one.state().running == one.state().waiting == 0 for one in engines),
        timeout_s,
        lambda: [(one.state().running, one.state().waiting) for one in engines],
    )


async def test_slow_readers_stall_their_engine_and_not_the_memory(tmp_path: pathlib.Path) -> None:
    """Clients that stop reading make the engine wait; the gateway's memory stays flat, others are served, and all comes in the end."""
    async with running(decode_base_ms=0, decode_per_req_ms=0, max_model_len=200_000) as engine:
        config = {"workers": [{"url": engine.url}], "timeouts": {"idle_s": 1.0}}
        async with gateway_process(tmp_path, config) as gateway:
            memory = psutil.Process(gateway.pid).memory_info
            before = memory().rss
            slow = [RawClient(gateway) for _ in range(3)]
            for one in slow:
                await one.send(body(f"echo: {'word ' * 6000}", stream=True, max_tokens=60_000, logprobs=True, top_logprobs=20))
            await until_holds(lambda: engine.state().slow_clients == 3, 20, engine.state)
            held = memory().rss
            for _ in range(10):
                await asyncio.sleep(0.2)  # longer than `idle_s`: a paused stream is not an engine that stopped
                assert memory().rss - held < 2 * MIB, "the gateway keeps what nobody reads"
            assert held - before < 24 * MIB
            assert engine.state().slow_clients == 3

            quick = RawClient(gateway)
            await quick.send(body("quick", stream=True))
            assert b"[DONE]" in await quick.read(b"data: [DONE]\n\n")
            quick.close()

            slow[0].close()
            await until_holds(lambda: engine.state().slow_clients == 2 and engine.state().aborted == 1, 2.0, engine.state)
            for one in slow[1:]:
                text = await one.read(b"data: [DONE]\n\n")
                assert text.count(b'"delta"') > 5000 and b'"error"' not in text
                one.close()
            await until_free(engine)
            metrics = await gateway.metrics()
            assert total(metrics, "smg_worker_streams_broken_total") == 0 and total(metrics, "smg_worker_requests_active") == 0


@pytest.mark.parametrize("when", ["waiting", "whole", "streaming"])
async def test_a_client_that_leaves_frees_everything_at_once(tmp_path: pathlib.Path, when: str) -> None:
    """Within a second the engine has aborted the request, its slot and the gateway's are free, and the worker is not blamed."""
    async with running(decode_base_ms=20.0, max_running=4) as engine:
        config = {"workers": [{"url": engine.url}], "admission": {"max_concurrent_requests": 8}}
        async with gateway_process(tmp_path, config) as gateway:
            clients = [RawClient(gateway) for _ in range(8)]
            for number, one in enumerate(clients):
                await one.send(body(f"{number}", stream=when == "streaming", max_tokens=5000, ignore_eos=True))
            state = engine.state
            await until_holds(lambda: (state().running, state().waiting) == (4, 4), 5, state)
            if when == "streaming":
                await clients[0].read(b'"content"')
            leaving = clients if when != "waiting" else clients[4:]
            for one in leaving:
                one.close()
            await until_holds(lambda: state().aborted == len(leaving) and state().waiting == 0, 1.0, state)
            if when != "waiting":
                await until_free(engine)
                metrics = await gateway.metrics()
                assert total(metrics, "smg_scheduler_inflight") == total(metrics, "smg_worker_requests_active") == 0
                assert total(metrics, "smg_worker_cb_outcomes_total", outcome="failure") == 0
                assert total(metrics, "smg_http_responses_total", error_code="client_gone") == len(leaving)
            for one in clients:
                one.close()
            await until_free(engine)
