"""Places and waiting: order, bounds, timeouts, several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from gateway.admission.queue import MAX_RETRY_S, SHED_SAMPLES, Queue, Ticket, Waiting
from gateway.config.model import AdmissionConfig, PriorityClass
from gateway.errors import Code, GatewayError
from gateway.shared.layout import COLUMNS, CONCURRENCY, QUEUED
from gateway.shared.table import SharedTable
from gateway.telemetry.cells import ProcessCells
from tests.support.turns import HandClock, HandLoop

SYSTEM, INTERACTIVE, DEFAULT, BULK = PriorityClass


def config(limit: int | None, **classes: dict[str, float]) -> AdmissionConfig:
    sections = {name: {"queue_size": 8, "queue_timeout_s": 30, "starvation_s": 1000, **given} for name, given in classes.items()}
    return AdmissionConfig.model_validate({"max_concurrent_requests": limit, **sections})


class Rig:
    """One or more queues over one table, and what their requests heard."""

    def __init__(self, config: AdmissionConfig, processes: int = 1) -> None:
        self.clock = HandClock()
        self.loop = HandLoop()
        self.tables = [SharedTable(processes, COLUMNS)]
        self.tables += [SharedTable(processes, COLUMNS, row=row, fd=os.dup(self.tables[0].fd)) for row in range(1, processes)]
        self.cells = [ProcessCells() for _ in range(processes)]
        self.queues = [Queue(config, table, self.clock, self.loop, cells) for table, cells in zip(self.tables, self.cells, strict=True)]
        self.heard: list[tuple[str, Ticket | GatewayError]] = []

    def join(self, name: str = "", priority: PriorityClass = DEFAULT, process: int = 0) -> Ticket | Waiting | GatewayError:
        return self.queues[process].join(priority, None, lambda outcome: self.heard.append((name, outcome)))

    def ticket(self, process: int = 0) -> Ticket:
        ticket = self.join(process=process)
        assert isinstance(ticket, Ticket)
        return ticket

    def wait(self, name: str, priority: PriorityClass = DEFAULT, process: int = 0) -> Waiting:
        waiting = self.join(name, priority, process)
        assert isinstance(waiting, Waiting)
        return waiting

    def refuse(self, priority: PriorityClass = DEFAULT) -> GatewayError:
        error = self.join("", priority)
        assert isinstance(error, GatewayError)
        return error

    def names(self) -> str:
        return "".join(name for name, _ in self.heard)

    def tick(self, process: int = 0) -> None:
        self.queues[process].tick(self.clock.now_s)
        self.loop.run()

    def end(self, ticket: Ticket) -> None:
        ticket.release()
        self.loop.run()

    def running(self) -> int:
        return self.tables[0].total(CONCURRENCY)


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def build(config: AdmissionConfig, processes: int = 1) -> Rig:
        made.append(Rig(config, processes))
        return made[-1]

    yield build
    for one in made:
        for table in one.tables:
            table.close()


Make = Callable[..., Rig]


def test_places_are_given_at_once(rig: Make) -> None:
    """Up to the limit requests run, the next waits, and gets the place that comes free."""
    one = rig(config(2))
    first, second = one.ticket(), one.ticket()
    one.wait("a")
    assert repr(one.queues[0]) == "<Queue running=2 limit=2 system=0 interactive=0 default=1 bulk=0>"
    first.release()
    assert one.heard == [], "a turn is never given from within another request's call"
    one.loop.run()
    assert one.names() == "a" and one.running() == 2
    second.release(), one.heard[0][1].release()  # type: ignore[union-attr]
    assert one.running() == 0 and one.queues[0].waiting == 0


def test_a_newcomer_does_not_overtake(rig: Make) -> None:
    """Between a place coming free and its being given away, who comes then waits behind who waits already."""
    one = rig(config(1))
    first = one.ticket()
    one.wait("a")
    first.release()
    one.wait("b")
    one.loop.run()
    assert one.names() == "a"


def test_a_higher_class_goes_first(rig: Make) -> None:
    """Classes are served from the highest down, each in the order of arrival."""
    one = rig(config(1))
    first = one.ticket()
    for name, priority in zip("abcdefgh", (BULK, DEFAULT, INTERACTIVE, SYSTEM) * 2, strict=True):
        one.wait(name, priority)
    one.end(first)
    while one.queues[0].running:
        ticket = one.heard[-1][1]
        assert isinstance(ticket, Ticket)
        one.end(ticket)
    assert one.names() == "dhcgbfae"
    assert one.cells[0].admission["bulk", "queued"] == one.cells[0].admission["bulk", "admitted"] == 2


def test_starvation_promotes(rig: Make) -> None:
    """Who waited its class's starvation time goes before higher classes, the longest overdue first."""
    one = rig(config(1, bulk={"starvation_s": 20, "queue_timeout_s": 100}, default={"starvation_s": 5, "queue_timeout_s": 100}))
    first = one.ticket()
    one.wait("a", BULK)
    one.clock.now_s += 14
    one.wait("b", DEFAULT)
    one.clock.now_s += 7
    one.wait("c", SYSTEM)
    one.end(first)
    for _ in range(2):
        ticket = one.heard[-1][1]
        assert isinstance(ticket, Ticket)
        one.end(ticket)
    assert one.names() == "bac"
    assert one.queues[0].depth() == {"system": 0, "interactive": 0, "default": 0, "bulk": 0}


def test_a_full_class_refuses(rig: Make) -> None:
    """Each class has a bound of its own; a full one answers 429 with a time to come back."""
    one = rig(config(1, bulk={"queue_size": 2}, default={"queue_size": 0}))
    one.ticket()
    one.wait("a", BULK), one.wait("b", BULK)
    error = one.refuse(BULK)
    assert (error.code, error.status, error.message) == (Code.RATE_LIMITED, 429, "too many bulk requests are waiting, retry later")
    assert error.retry_after_s is not None and 1 <= error.retry_after_s <= MAX_RETRY_S
    assert one.refuse(DEFAULT).status == 429
    one.wait("c", INTERACTIVE)
    assert one.cells[0].admission["bulk", "queue_full"] == 1 and one.queues[0].waiting == 3


def test_a_wait_ends_in_time(rig: Make) -> None:
    """Who waited `queue_timeout_s` hears 503 with a time to come back, and is forgotten."""
    one = rig(config(1, default={"queue_timeout_s": 10}, bulk={"queue_timeout_s": 50}))
    first = one.ticket()
    one.wait("a"), one.wait("b", BULK)
    one.clock.now_s += 5
    one.wait("c")
    one.clock.now_s += 4.9
    one.tick()
    assert one.heard == []
    one.clock.now_s += 0.1
    one.tick()
    [(name, error)] = one.heard
    assert name == "a" and isinstance(error, GatewayError) and error.retry_after_s is not None
    assert (error.code, error.status) == (Code.OVERLOADED, 503) and one.cells[0].admission["default", "queue_timeout"] == 1
    one.end(first)
    assert one.names() == "ac" and one.queues[0].depth()["bulk"] == 1
    waits = one.cells[0].queue_wait["default"]
    assert sum(waits.counts) == 2 and waits.total == pytest.approx(10 + 5)


def test_who_leaves_hears_nothing(rig: Make) -> None:
    """A client that left the queue is skipped, frees its seat, and may leave twice."""
    one = rig(config(1, default={"queue_size": 2}))
    first = one.ticket()
    gone, _ = one.wait("a"), one.wait("b")
    gone.leave(), gone.leave()
    assert one.queues[0].waiting == 1 and one.cells[0].admission["default", "left"] == 1
    one.wait("c")
    one.end(first)
    assert one.names() == "b"


def test_leaving_after_the_turn_does_nothing(rig: Make) -> None:
    """A `leave` that comes late neither frees the place nor counts."""
    one = rig(config(1))
    first = one.ticket()
    waiting = one.wait("a")
    one.end(first)
    waiting.leave()
    assert one.running() == 1 and one.queues[0].waiting == 0


def test_leaving_between_the_place_and_the_turn(rig: Make) -> None:
    """The place goes to the next in line."""
    one = rig(config(1))
    first = one.ticket()
    gone, _ = one.wait("a"), one.wait("b")
    first.release()
    gone.leave()
    one.loop.run()
    assert one.names() == "b" and one.running() == 1


def test_a_ticket_is_released_once(rig: Make) -> None:
    """A second release does not free somebody else's place."""
    one = rig(config(2))
    first, _ = one.ticket(), one.ticket()
    first.release(), first.release()
    assert one.running() == 1


def test_turns_do_not_nest(rig: Make) -> None:
    """A thousand requests that each end within their own turn need no deep stack."""
    one = rig(config(1, default={"queue_size": 5000}))
    first = one.ticket()
    heard: list[int] = []

    def at_once(outcome: Ticket | GatewayError) -> None:
        assert isinstance(outcome, Ticket)
        heard.append(one.running())
        outcome.release()

    for _ in range(3000):
        one.queues[0].join(DEFAULT, None, at_once)
    one.end(first)
    assert heard == [1] * 3000 and one.running() == 0


def test_a_raised_limit_lets_waiters_in(rig: Make) -> None:
    """A new configuration takes effect at once for who waits; a lowered limit turns nobody away."""
    one = rig(config(1))
    one.ticket()
    for name in "abc":
        one.wait(name)
    one.queues[0].reconfigure(config(3))
    one.loop.run()
    assert one.names() == "ab" and one.running() == 3
    one.queues[0].reconfigure(config(1))
    one.loop.run()
    assert one.running() == 3 and one.queues[0].waiting == 1
    one.queues[0].reconfigure(config(None))
    one.loop.run()
    assert one.names() == "abc" and not one.queues[0].limited


def test_hopeless_waits_are_shed(rig: Make) -> None:
    """Once it is known how slowly places come free, who could not make it in time is refused at once, a higher class is not."""
    one = rig(config(1, default={"queue_size": 500, "queue_timeout_s": 10}, system={"queue_size": 5, "queue_timeout_s": 10}))
    ticket = one.ticket()
    for _ in range(SHED_SAMPLES + 40):
        one.wait("x")
    for _ in range(SHED_SAMPLES + 1):
        one.clock.now_s += 1.0
        one.end(ticket)
        ticket = one.heard[-1][1]  # type: ignore[assignment]
    error = one.refuse(DEFAULT)
    assert (error.code, error.status) == (Code.OVERLOADED, 503)
    assert error.retry_after_s == pytest.approx(40.0, abs=1.5)
    one.wait("s", SYSTEM)


def test_closing_refuses_who_waits(rig: Make) -> None:
    """At the end nobody is left waiting."""
    one = rig(config(1))
    first = one.ticket()
    one.wait("a"), one.wait("b", BULK)
    one.queues[0].close()
    assert one.names() == "ab" and all(isinstance(e, GatewayError) and e.code is Code.DRAINING for _, e in one.heard)
    first.release()
    assert one.running() == 0 and one.queues[0].waiting == 0


def test_the_limit_is_one_for_all_processes(rig: Make) -> None:
    """A place taken in one process is missing in the other."""
    two = rig(config(3), 2)
    two.ticket(0), two.ticket(1), two.ticket(1)
    two.wait("a", process=0), two.wait("b", process=1)
    assert two.running() == 3 and two.tables[0].total(QUEUED) == 2


def test_a_place_freed_elsewhere_is_taken_with_the_next_tick(rig: Make) -> None:
    """A release in another process wakes nobody here; the tick does."""
    two = rig(config(1), 2)
    there = two.ticket(1)
    two.wait("a", process=0)
    two.end(there)
    assert two.heard == []
    two.tick(0)
    assert two.names() == "a" and two.running() == 1


def test_a_busy_process_does_not_starve_another(rig: Make) -> None:
    """While both have requests waiting, a process above its share leaves freed places to the other."""
    two = rig(config(4, default={"queue_size": 100}), 2)
    mine = [two.ticket(0) for _ in range(4)]
    for _ in range(10):
        two.wait("m", process=0)
        two.wait("o", process=1)
    for ticket in mine[:2]:
        two.end(ticket)
    two.tick(0)
    assert two.names() == "" and two.running() == 2
    two.tick(1)
    assert two.names() == "oo" and two.running() == 4
    two.end(mine[2])
    assert two.names() == "oom" and two.running() == 4


def test_no_place_stays_empty_for_fairness(rig: Make) -> None:
    """Shares are of the places that other processes leave: nothing is kept free for who does not wait."""
    three = rig(config(5), 3)
    three.ticket(2)
    held = [three.ticket(0) for _ in range(4)]
    for _ in range(4):
        three.wait("m", process=0), three.wait("o", process=1)
    for ticket in held:
        three.end(ticket)
    for _ in range(3):
        three.tick(1), three.tick(0)
    assert three.running() == 5 and sorted(three.names()) == list("mmoo")


def test_two_processes_at_the_same_instant(rig: Make) -> None:
    """Whoever counts and finds too many takes itself back, so the limit holds."""
    two = rig(config(1), 2)
    two.tables[1].own[CONCURRENCY] += 1  # the other process has counted and not yet looked
    two.wait("a", process=0)
    assert two.tables[0].own[CONCURRENCY] == 0
