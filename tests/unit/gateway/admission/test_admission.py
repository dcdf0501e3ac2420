"""Limits and queue together, as the pipeline sees them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.admission.admission import Admission, Ticket, Waiting
from gateway.admission.keyring import Identity
from gateway.config.model import AdmissionConfig, PriorityClass, Role
from gateway.errors import Code, GatewayError
from gateway.shared.layout import COLUMNS, CONCURRENCY, QUEUED
from gateway.shared.table import SharedTable
from tests.support.turns import HandClock, HandLoop

ACME = Identity("k", "acme", frozenset({Role.DATA}), PriorityClass.INTERACTIVE, PriorityClass.DEFAULT)


class Gate:
    """One admission with its clock and loop, and what was heard."""

    def __init__(self, table: SharedTable) -> None:
        self.table = table
        self.clock, self.loop = HandClock(), HandLoop()
        self.heard: list[Ticket | GatewayError] = []
        self.admission = Admission(AdmissionConfig(), table, self.clock, self.loop)

    def use(self, **settings: object) -> Gate:
        self.admission.reconfigure(AdmissionConfig.model_validate(settings))
        return self

    def enter(self, tokens: int = 10) -> Ticket | Waiting | GatewayError:
        return self.admission.enter(ACME, PriorityClass.DEFAULT, tokens, self.heard.append)

    def ticket(self, tokens: int = 10) -> Ticket:
        ticket = self.enter(tokens)
        assert isinstance(ticket, Ticket)
        return ticket

    def wait(self, tokens: int = 10) -> Waiting:
        waiting = self.enter(tokens)
        assert isinstance(waiting, Waiting)
        return waiting

    def refuse(self, tokens: int = 10) -> GatewayError:
        error = self.enter(tokens)
        assert isinstance(error, GatewayError)
        return error

    @property
    def used(self) -> tuple[float, float]:
        return self.admission.limits.used("acme")


@pytest.fixture
def gate() -> Iterator[Gate]:
    table = SharedTable(1, COLUMNS)
    yield Gate(table)
    table.close()


PER_MINUTE = {"requests_per_minute": 5, "tokens_per_minute": 100}


def test_without_limits_everything_runs_and_is_counted(gate: Gate) -> None:
    """An open gateway lets all in, and still knows how many run."""
    tickets = [gate.ticket(10**9) for _ in range(1000)]
    assert gate.table.own[CONCURRENCY] == 1000
    for ticket in tickets:
        ticket.settle(5), ticket.release()
    assert gate.table.own[CONCURRENCY] == 0


def test_who_is_over_its_limit_takes_no_place(gate: Gate) -> None:
    """Tenant limits are asked first."""
    gate.use(tenant_limit={"requests_per_minute": 1}, max_concurrent_requests=5)
    gate.ticket()
    error = gate.refuse()
    assert error.code is Code.RATE_LIMITED and error.retry_after_s is not None and error.retry_after_s > 0
    assert gate.table.own[CONCURRENCY] == 1


def test_a_refusal_of_the_queue_costs_the_tenant_nothing(gate: Gate) -> None:
    """Who found the queue full has used neither a request nor tokens."""
    gate.use(tenant_limit=PER_MINUTE, max_concurrent_requests=1, default={"queue_size": 0, "queue_timeout_s": 1})
    gate.ticket(10)
    assert gate.refuse(10).message.startswith("too many default requests")
    assert gate.used == (1, 10)


def test_a_wait_holds_its_reservation_until_it_ends(gate: Gate) -> None:
    """A timeout or a departure gives it back, a turn takes it over."""
    gate.use(tenant_limit=PER_MINUTE, max_concurrent_requests=1, default={"queue_size": 9, "queue_timeout_s": 10})
    first = gate.ticket(10)
    gate.wait(20).leave()
    assert gate.used == (1, 10)
    gate.wait(30)
    assert gate.used == (2, 40)
    gate.clock.now_s += 10
    gate.admission.tick(gate.clock.now_s)
    assert gate.used == (1, 10) and len(gate.heard) == 1
    gate.wait(40)
    first.settle(7), first.release()
    gate.loop.run()
    ticket = gate.heard[1]
    assert isinstance(ticket, Ticket)
    ticket.settle(9), ticket.release()
    assert gate.used == (2, 16)
    assert gate.table.own[CONCURRENCY] == gate.table.own[QUEUED] == 0


def test_a_failed_request_gives_its_tokens_back(gate: Gate) -> None:
    """Settling with nothing leaves the request counted and no tokens; abandoning leaves nothing."""
    gate.use(tenant_limit=PER_MINUTE)
    failed, never_sent = gate.ticket(50), gate.ticket(50)
    failed.settle(0), failed.release()
    assert gate.used == (2, 50)
    never_sent.abandon(), never_sent.settle(90), never_sent.release()
    assert gate.used == (1, 0)


def test_switching_limits_on_and_off_keeps_the_count(gate: Gate) -> None:
    """Requests that run across a change of configuration are counted until they end."""
    early = [gate.ticket() for _ in range(3)]
    gate.use(max_concurrent_requests=3)
    gate.wait()
    late = early.pop()
    late.release()
    gate.loop.run()
    assert len(gate.heard) == 1
    gate.use()
    tickets = [*early, gate.ticket(), gate.heard[0]]
    for ticket in tickets:
        assert isinstance(ticket, Ticket)
        ticket.release()
    assert gate.table.own[CONCURRENCY] == 0


def test_closing_refuses_who_waits(gate: Gate) -> None:
    """The end of the runtime is told to everybody who still waits."""
    gate.use(max_concurrent_requests=1)
    gate.ticket(), gate.wait()
    gate.admission.close()
    assert [e.code for e in gate.heard if isinstance(e, GatewayError)] == [Code.DRAINING]
