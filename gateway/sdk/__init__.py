"""A typed client of a running gateway, for applications, `smgctl` and the harness.

`Client` blocks, `AsyncClient` awaits; both have the same methods. Failures are two: `Unreachable`, when no answer came, and
`SmgApiError`, when the gateway said no. Example::

    from gateway.sdk import Client

    with Client("http://127.0.0.1:30000", api_key="...") as gateway:
        for worker in gateway.workers().workers:
            print(worker.url, worker.status, worker.load)
        for event in gateway.stream_chat({"model": "m", "messages": [{"role": "user", "content": "hello"}]}):
            ...
"""

from gateway.sdk.async_client import AsyncClient
from gateway.sdk.client import Client
from gateway.sdk.errors import SmgApiError, SmgError, Unreachable
from gateway.sdk.values import Accepted, ApplyResult, Change, ConfigView, GatewayStatus, Health, ProcessStatus, Worker, WorkerList

__all__ = [
    "Accepted",
    "ApplyResult",
    "AsyncClient",
    "Change",
    "Client",
    "ConfigView",
    "GatewayStatus",
    "Health",
    "ProcessStatus",
    "SmgApiError",
    "SmgError",
    "Unreachable",
    "Worker",
    "WorkerList",
]
