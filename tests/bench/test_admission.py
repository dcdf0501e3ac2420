"""What identifying and admitting one request costs; measures, judges nothing but that it was let in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest

from gateway.admission.admission import Admission, Ticket
from gateway.admission.keyring import Identity, Keyring
from gateway.config.model import AdmissionConfig, AuthConfig, PriorityClass, Role
from gateway.errors import GatewayError
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable
from tests.support.turns import HandClock, HandLoop

pytestmark = pytest.mark.bench

WHO = Identity("k", "acme", frozenset({Role.DATA}), PriorityClass.INTERACTIVE, PriorityClass.DEFAULT)
SETTINGS: dict[str, dict[str, object]] = {
    "open": {},
    "concurrency": {"max_concurrent_requests": 1000},
    "tenant": {"tenant_limit": {"requests_per_minute": 10**9, "tokens_per_minute": 10**15}},
    "both": {"max_concurrent_requests": 1000, "tenant_limit": {"requests_per_minute": 10**9}},
}


@pytest.fixture(params=[1, 8], ids=["1process", "8processes"])
def table(request: pytest.FixtureRequest) -> Iterator[SharedTable]:
    table = SharedTable(request.param, COLUMNS)
    yield table
    table.close()


@pytest.mark.parametrize("name", SETTINGS)
def test_enter_and_release(benchmark: Any, table: SharedTable, name: str) -> None:
    """One request that is let in at once, settled and released."""
    admission = Admission(AdmissionConfig.model_validate(SETTINGS[name]), table, HandClock(), HandLoop())

    def ready(outcome: Ticket | GatewayError) -> None:
        raise AssertionError("nobody waits here")

    def once(enter: Callable[..., Any] = admission.enter) -> Ticket:
        ticket: Ticket = enter(WHO, PriorityClass.DEFAULT, 100, ready)
        ticket.settle(80)
        ticket.release()
        return ticket

    assert benchmark(once).released


def test_wait_and_turn(benchmark: Any, table: SharedTable) -> None:
    """One request that joins a queue of 500 and one that leaves it for its turn."""
    config = AdmissionConfig.model_validate(
        {"max_concurrent_requests": 1, "default": {"queue_size": 10_000, "queue_timeout_s": 86_400, "starvation_s": 86_400}}
    )
    loop = HandLoop()
    admission = Admission(config, table, HandClock(), loop)
    turns: list[Ticket] = []
    running = admission.enter(WHO, PriorityClass.DEFAULT, 1, print)
    assert isinstance(running, Ticket)
    turns.append(running)
    for _ in range(500):
        admission.enter(WHO, PriorityClass.DEFAULT, 1, turns.append)  # type: ignore[arg-type]

    def once() -> None:
        admission.enter(WHO, PriorityClass.DEFAULT, 1, turns.append)  # type: ignore[arg-type]
        turns[-1].release()
        loop.run()

    benchmark(once)
    assert admission.queue.running == 1 and admission.queue.waiting == 500


@pytest.mark.parametrize("bearer", [b"sk-17", b"sk-wrong"])
def test_identify(benchmark: Any, bearer: bytes) -> None:
    """One credential among a hundred keys, right and wrong."""
    keys = [{"id": f"k{n}", "sha256": sha256(f"sk-{n}".encode()).hexdigest()} for n in range(100)]
    keyring = Keyring(AuthConfig.model_validate({"keys": keys}))
    assert isinstance(benchmark(keyring.identify, bearer, None), Identity | GatewayError)
