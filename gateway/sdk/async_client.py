"""The client that awaits: the methods of `Client`, for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from gateway.sdk import calls, wire
from gateway.sdk.calls import DEFAULT_URL, Call
from gateway.sdk.events import EventReader
from gateway.sdk.values import Accepted, ApplyResult, ConfigView, GatewayStatus, Health, Worker, WorkerList

T = TypeVar("T")


class AsyncClient:
    """A connection to one gateway. Use it as a context manager, or await `aclose`.

    Every method raises `Unreachable` when no answer came, and `SmgApiError` when the gateway said no.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        inference_timeout_s: float = 600.0,
        ca_file: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Construct without connecting.

        Args:
            url: of the gateway, `http://127.0.0.1:30000`.
            api_key: sent as a bearer token.
            timeout_s: longest silence within a call.
            connect_timeout_s: longest wait for a connection.
            inference_timeout_s: longest silence while an engine works.
            ca_file: PEM bundle that signs the gateway's certificate; the system's unless set.
            transport: replaces httpx's own.
        """
        self.url = url.rstrip("/")
        self._inference = wire.timeout(inference_timeout_s, connect_timeout_s)
        self._http = httpx.AsyncClient(
            transport=transport, timeout=wire.timeout(timeout_s, connect_timeout_s), **wire.options(url, api_key, ca_file)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.url}>"

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # Workers.

    async def workers(self, *, model: str | None = None) -> WorkerList:
        """Return all workers, or those of one model."""
        return await self._run(calls.list_workers(model))

    async def worker(self, worker_id: str) -> Worker:
        """Return one worker."""
        return await self._run(calls.get_worker(worker_id))

    async def find_worker(self, reference: str) -> Worker:
        """Return the worker with this id or URL (with or without its scheme)."""
        for worker in (await self.workers()).workers:
            if calls.matches(worker, reference):
                return worker
        raise calls.not_found(reference)

    async def add_worker(self, url: str, **spec: Any) -> Accepted:
        """Add a worker; `spec` are the keys of a worker in the configuration. It is `pending` until it has answered."""
        return await self._run(calls.add_worker({"url": url, **spec}))

    async def replace_worker(self, worker_id: str, spec: Mapping[str, Any]) -> Accepted:
        """Replace all settings of a worker; its `url` must stay."""
        return await self._run(calls.replace_worker(worker_id, spec))

    async def patch_worker(self, worker_id: str, **patch: Any) -> Accepted:
        """Change some of `priority`, `cost`, `labels`, `api_key` and `health`."""
        return await self._run(calls.patch_worker(worker_id, patch))

    async def drain_worker(self, worker_id: str) -> Accepted:
        """Give a worker no new requests; it stays in the list."""
        return await self._run(calls.drain_worker(worker_id))

    async def remove_worker(self, worker_id: str) -> Accepted:
        """Drain a worker, then let it leave; returns as soon as it drains."""
        return await self._run(calls.remove_worker(worker_id))

    async def wait_for_worker(
        self,
        worker_id: str,
        statuses: Collection[str],
        timeout_s: float,
        *,
        interval_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Worker | None:
        """Ask again until a worker has one of these statuses, has left, or the time is over.

        Returns:
            The worker as it was last seen; None if it has left.
        """
        end = clock() + timeout_s
        while True:
            worker = next((worker for worker in (await self.workers()).workers if worker.id == worker_id), None)
            if worker is None or worker.status in statuses or clock() >= end:
                return worker
            await sleep(interval_s)

    # Configuration and state.

    async def config(self) -> ConfigView:
        """Return the configuration in force, secrets masked."""
        return await self._run(calls.show_config())

    async def apply_config(self, text: str, *, dry_run: bool = False) -> ApplyResult:
        """Take a YAML text as the new configuration, in all processes or in none; or only say what would change."""
        return await self._run(calls.apply_config(text, dry_run=dry_run))

    async def rollback_config(self) -> ApplyResult:
        """Go back to the configuration before the one in force."""
        return await self._run(calls.rollback_config())

    async def status(self) -> GatewayStatus:
        """Return the state of the gateway and its processes."""
        return await self._run(calls.status())

    async def health(self) -> Health:
        """Ask whether the gateway lives."""
        return await self._run(calls.health("/health"))

    async def readiness(self) -> Health:
        """Ask whether the gateway can serve requests."""
        return await self._run(calls.health("/readiness"))

    async def models(self) -> list[dict[str, Any]]:
        """Return the models of `/v1/models`."""
        return await self._run(calls.models())

    # Inference.

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask `/v1/chat/completions` for a whole answer."""
        return await self._run(calls.inference("/v1/chat/completions", body))

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask `/v1/completions` for a whole answer."""
        return await self._run(calls.inference("/v1/completions", body))

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask any other inference route for a whole answer."""
        return await self._run(calls.inference(path, body))

    def stream_chat(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Ask `/v1/chat/completions` for a stream and yield its events; leaving the iterator cancels the request."""
        return self.stream("/v1/chat/completions", body)

    def stream_complete(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Ask `/v1/completions` for a stream and yield its events."""
        return self.stream("/v1/completions", body)

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Ask any inference route for a stream and yield its events.

        Raises:
            SmgApiError: also while the stream runs, when it carries an error event or was cut.
        """
        call = calls.stream(path, body)
        with wire.renamed(self.url):
            async with self._http.stream(**wire.request(call, self._inference)) as response:
                if not response.is_success:
                    raise wire.failure(response, await self._body(response))
                reader = EventReader()
                async for piece in response.aiter_bytes():
                    for event in reader.feed(piece):
                        yield event
                reader.finish()

    async def _run(self, call: Call[T]) -> T:
        with wire.renamed(self.url):
            async with self._http.stream(**wire.request(call, self._inference if call.slow else None)) as response:
                body = await self._body(response)
        return wire.result(call, response, body, self.url)

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += wire.bounded(piece, len(body), self.url)
        return bytes(body)
