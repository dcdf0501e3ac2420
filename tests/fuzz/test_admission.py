"""Whatever requests do, in whatever order: limits hold, order holds, everybody hears exactly one thing, sums return to zero."""

from __future__ import annotations

import os
from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.admission.admission import Admission, Ticket, Waiting
from gateway.admission.keyring import Identity
from gateway.config.model import AdmissionConfig, ClassConfig, PriorityClass, Role, TenantLimit
from gateway.errors import GatewayError
from gateway.shared.layout import COLUMNS, CONCURRENCY, QUEUED
from gateway.shared.table import SharedTable
from tests.support.turns import HandClock, HandLoop

PROCESSES = 2
LIMIT = 3
TENANTS = {"small": TenantLimit(requests_per_minute=6, tokens_per_minute=400), "large": TenantLimit(tokens_per_minute=2000)}
CONFIG = AdmissionConfig(
    max_concurrent_requests=LIMIT,
    tenants=TENANTS,
    system=ClassConfig(queue_size=2, queue_timeout_s=20, starvation_s=5),
    interactive=ClassConfig(queue_size=3, queue_timeout_s=20, starvation_s=5),
    default=ClassConfig(queue_size=4, queue_timeout_s=30, starvation_s=15),
    bulk=ClassConfig(queue_size=4, queue_timeout_s=60, starvation_s=30),
)


class Request:
    """One request of the run, and all that happened to it."""

    def __init__(self, number: int, process: int, priority: PriorityClass) -> None:
        self.number, self.process, self.priority = number, process, priority
        self.outcomes: list[str] = []
        self.ticket: Ticket | None = None
        self.waiting: Waiting | None = None

    def ready(self, outcome: Ticket | GatewayError) -> None:
        self.waiting = None
        if isinstance(outcome, GatewayError):
            assert outcome.status in (429, 503) and outcome.retry_after_s is not None and outcome.retry_after_s > 0
            self.outcomes.append("refused")
        else:
            self.ticket = outcome
            self.outcomes.append("admitted")


class AdmissionMachine(RuleBasedStateMachine):
    """Several processes over one table, driven at random."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.loop = HandClock(), HandLoop()
        self.tables = [SharedTable(PROCESSES, COLUMNS)]
        self.tables += [SharedTable(PROCESSES, COLUMNS, row=row, fd=os.dup(self.tables[0].fd)) for row in range(1, PROCESSES)]
        self.gates = [Admission(CONFIG, table, self.clock, self.loop) for table in self.tables]
        self.requests: list[Request] = []
        self.turns: dict[tuple[int, PriorityClass], list[int]] = defaultdict(list)
        self.reserved: dict[tuple[str, int], int] = defaultdict(int)
        self.charged = False

    @rule(
        process=st.integers(0, PROCESSES - 1),
        priority=st.sampled_from(PriorityClass),
        tenant=st.sampled_from(["small", "large", "free"]),
        tokens=st.integers(0, 300),
    )
    def enter(self, process: int, priority: PriorityClass, tenant: str, tokens: int) -> None:
        """A request comes."""
        request = Request(len(self.requests), process, priority)
        identity = Identity("k", tenant, frozenset({Role.DATA}), PriorityClass.SYSTEM, PriorityClass.DEFAULT)
        outcome = self.gates[process].enter(identity, priority, tokens, self._ready(request))
        assert request.outcomes == [], "ready is never called from within enter"
        self.requests.append(request)
        if isinstance(outcome, Waiting):
            request.waiting = outcome
        else:
            request.ready(outcome)

    def _ready(self, request: Request):  # type: ignore[no-untyped-def]
        def ready(outcome: Ticket | GatewayError) -> None:
            if isinstance(outcome, Ticket):
                self.turns[request.process, request.priority].append(request.number)
            request.ready(outcome)

        return ready

    @precondition(lambda self: any(r.ticket for r in self.requests))
    @rule(pick=st.randoms(use_true_random=False), used=st.integers(0, 500), how=st.sampled_from(["settle", "abandon", "neither"]))
    def end(self, pick, used: int, how: str) -> None:  # type: ignore[no-untyped-def]
        """A running request ends."""
        request = pick.choice([r for r in self.requests if r.ticket])
        ticket = request.ticket
        request.ticket = None
        if how == "settle":
            ticket.settle(used)
        elif how == "abandon":
            ticket.abandon()
        ticket.release()

    @precondition(lambda self: any(r.waiting for r in self.requests))
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick) -> None:  # type: ignore[no-untyped-def]
        """The client of a waiting request leaves."""
        request = pick.choice([r for r in self.requests if r.waiting])
        request.waiting.leave()
        request.waiting.leave()
        request.waiting = None
        request.outcomes.append("left")

    @rule(step_s=st.floats(0, 40))
    def pass_time(self, step_s: float) -> None:
        """Time passes, and ticks come."""
        self.clock.now_s += step_s
        for gate in self.gates:
            gate.tick(self.clock.now_s)

    @rule()
    def turn(self) -> None:
        """The event loops go round."""
        self.loop.run()

    @rule(process=st.integers(0, PROCESSES - 1))
    def tick(self, process: int) -> None:
        """One process ticks."""
        self.gates[process].tick(self.clock.now_s)

    @invariant()
    def limit_holds(self) -> None:
        """Never more than the limit runs, and the table says how many do."""
        running = sum(1 for r in self.requests if r.ticket)
        assert running <= LIMIT and self.tables[0].total(CONCURRENCY) == running

    @invariant()
    def waiting_is_counted(self) -> None:
        """The table says how many wait, and no class is longer than its bound."""
        waiting = [r for r in self.requests if r.waiting]
        assert self.tables[0].total(QUEUED) == len(waiting)
        for process in range(PROCESSES):
            for priority in PriorityClass:
                bound = getattr(CONFIG, priority.value).queue_size
                assert sum(1 for r in waiting if r.process == process and r.priority is priority) <= bound

    @invariant()
    def everybody_hears_one_thing(self) -> None:
        """A request that waits has heard nothing, every other one exactly one thing."""
        for request in self.requests:
            assert len(request.outcomes) == (0 if request.waiting else 1)

    @invariant()
    def first_come_first_served(self) -> None:
        """Within a class and process, turns come in the order of arrival."""
        for order in self.turns.values():
            assert order == sorted(order)

    @invariant()
    def nothing_is_negative(self) -> None:
        """No tenant has used less than nothing."""
        for tenant in TENANTS:
            requests, tokens = self.gates[0].limits.used(tenant)
            assert requests >= 0 and tokens >= 0

    def teardown(self) -> None:
        """Let everything end: all counts are zero, and who waited was served."""
        for _ in range(len(self.requests) * 2 + 2):
            for request in self.requests:
                if request.ticket:
                    ticket, request.ticket = request.ticket, None
                    ticket.release()
            for gate in self.gates:
                gate.tick(self.clock.now_s)
            self.loop.run()
        assert not any(r.waiting or r.ticket for r in self.requests)
        assert all(self.tables[0].total(column) == 0 for column in (CONCURRENCY, QUEUED))
        self.everybody_hears_one_thing()
        self.first_come_first_served()
        for table in self.tables:
            table.close()


TestAdmission = AdmissionMachine.TestCase
TestAdmission.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


class LimitMachine(RuleBasedStateMachine):
    """Reservations of one tenant over several processes, against an exact account."""

    LIMIT = 50
    TOKENS = 1000

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.tables = [SharedTable(PROCESSES, COLUMNS)]
        self.tables += [SharedTable(PROCESSES, COLUMNS, row=row, fd=os.dup(self.tables[0].fd)) for row in range(1, PROCESSES)]
        config = AdmissionConfig(tenant_limit=TenantLimit(requests_per_minute=self.LIMIT, tokens_per_minute=self.TOKENS))
        self.gates = [Admission(config, table, self.clock, HandLoop()) for table in self.tables]
        self.admitted: list[tuple[float, int]] = []

    @rule(process=st.integers(0, PROCESSES - 1), tokens=st.integers(0, 60), count=st.integers(1, 30), step_s=st.floats(0, 0.5))
    def burst(self, process: int, tokens: int, count: int, step_s: float) -> None:
        """Requests come, some at once and some a little apart, and are settled by their estimate."""
        for _ in range(count):
            self.clock.now_s += step_s
            outcome = self.gates[process].limits.reserve("t", tokens)
            if isinstance(outcome, GatewayError):
                assert outcome.retry_after_s is not None and 0 < outcome.retry_after_s <= 120
            else:
                assert outcome is not None
                outcome.settle(tokens)
                self.admitted.append((self.clock.now_s, tokens))

    @rule(step_s=st.floats(0, 90))
    def pass_time(self, step_s: float) -> None:
        """Time passes."""
        self.clock.now_s += step_s

    @invariant()
    def bounds_hold(self) -> None:
        """At most the limit in a minute of the clock, less than twice the limit in any 60 s."""
        by_minute: dict[int, list[int]] = defaultdict(list)
        for at_s, tokens in self.admitted:
            by_minute[int(at_s // 60)].append(tokens)
        assert all(len(tokens) <= self.LIMIT and sum(tokens) <= self.TOKENS for tokens in by_minute.values())
        for end_s, _ in self.admitted:
            window = [tokens for at_s, tokens in self.admitted if end_s - 60 < at_s <= end_s]
            assert len(window) < 2 * self.LIMIT and sum(window) < 2 * self.TOKENS

    def teardown(self) -> None:
        """Give the memory back."""
        for table in self.tables:
            table.close()


TestLimits = LimitMachine.TestCase
TestLimits.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
