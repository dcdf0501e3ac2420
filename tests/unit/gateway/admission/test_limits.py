"""Requests and tokens a minute, over one process and several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from gateway.admission import limits as module
from gateway.admission.limits import OWN_SLOTS, Reservation, TenantLimits
from gateway.config.model import AdmissionConfig
from gateway.errors import Code, GatewayError
from gateway.shared.layout import COLUMNS, TENANTS
from gateway.shared.table import SharedTable
from gateway.telemetry.cells import ProcessCells
from tests.support.turns import HandClock


def config(requests: int | None = None, tokens: int | None = None, **tenants: dict[str, int]) -> AdmissionConfig:
    limit = {"requests_per_minute": requests, "tokens_per_minute": tokens}
    return AdmissionConfig.model_validate({"tenant_limit": limit, "tenants": tenants})


class Processes:
    """The limits of several processes over one table."""

    def __init__(self, config: AdmissionConfig, count: int = 1) -> None:
        self.clock = HandClock()
        self.tables = [SharedTable(count, COLUMNS)]
        self.tables += [SharedTable(count, COLUMNS, row=row, fd=os.dup(self.tables[0].fd)) for row in range(1, count)]
        self.cells = [ProcessCells() for _ in range(count)]
        self.limits = [TenantLimits(config, table, self.clock, cells) for table, cells in zip(self.tables, self.cells, strict=True)]

    def allowed(self, count: int, tenant: str = "a", tokens: int = 0, process: int = 0) -> int:
        """How many of so many requests are let in."""
        return sum(not isinstance(self.limits[process].reserve(tenant, tokens), GatewayError) for _ in range(count))

    def reserve(self, tenant: str = "a", tokens: int = 0, process: int = 0) -> Reservation:
        reservation = self.limits[process].reserve(tenant, tokens)
        assert isinstance(reservation, Reservation)
        return reservation

    def refuse(self, tenant: str = "a", tokens: int = 0, process: int = 0) -> GatewayError:
        error = self.limits[process].reserve(tenant, tokens)
        assert isinstance(error, GatewayError)
        return error

    def residue(self) -> list[int]:
        """Counts other than keys and stamps that are not zero."""
        table = self.tables[0]
        kept = (module.BUCKETS + 1, module.BUCKETS + 2, module.BUCKETS + 4, module.BUCKETS + 5)
        values = (table.at(row, TENANTS + at) for row in range(table.rows) for at in range(COLUMNS - TENANTS) if at % 8 in kept)
        return [value for value in values if value]

    def close(self) -> None:
        for table in self.tables:
            table.close()


Make = Callable[..., Processes]


@pytest.fixture
def processes() -> Iterator[list[Processes]]:
    made: list[Processes] = []
    yield made
    for one in made:
        one.close()


@pytest.fixture
def make(processes: list[Processes]) -> Make:
    def build(config: AdmissionConfig, count: int = 1) -> Processes:
        processes.append(Processes(config, count))
        return processes[-1]

    return build


def test_without_limits_nothing_is_reserved(make: Make) -> None:
    """A tenant without limits costs no slot."""
    one = make(config())
    assert one.limits[0].reserve("a", 10) is None and not one.limits[0].active and not one.residue()


def test_requests_per_minute(make: Make) -> None:
    """The limit is let in, the next is refused with the time to wait, and counted by what refused it."""
    one = make(config(requests=3))
    assert one.allowed(5) == 3
    error = one.refuse()
    assert error.code is Code.RATE_LIMITED and error.status == 429
    assert error.message == "the limit of 3 requests per minute is used up, retry later"
    assert one.cells[0].rate_limited == {"requests_per_minute": 3}


def test_tokens_per_minute(make: Make) -> None:
    """Estimates are reserved; what does not fit is refused."""
    one = make(config(tokens=100))
    one.reserve(tokens=60)
    assert "100 tokens per minute" in one.refuse(tokens=41).message
    one.reserve(tokens=40)
    assert one.cells[0].rate_limited == {"tokens_per_minute": 1}


def test_a_refusal_leaves_nothing_behind(make: Make) -> None:
    """Asking in vain does not use up the limit."""
    one = make(config(requests=10, tokens=100))
    one.reserve(tokens=100)
    for _ in range(50):
        one.refuse(tokens=1)
    assert one.limits[0].used("a") == (1, 100)


def test_settling_replaces_the_estimate(make: Make) -> None:
    """Less than estimated is given back, more is charged; the second call changes nothing."""
    one = make(config(tokens=100))
    low, high = one.reserve(tokens=50), one.reserve(tokens=10)
    low.settle(20)
    high.settle(35)
    low.settle(0)
    low.cancel()
    assert one.limits[0].used("a") == (2, 55)
    one.refuse(tokens=46)
    one.reserve(tokens=45)


def test_cancelling_gives_everything_back(make: Make) -> None:
    """A request that never ran has used nothing."""
    one = make(config(requests=1, tokens=10))
    one.reserve(tokens=10).cancel()
    assert one.residue() == []
    one.reserve(tokens=10)


def test_an_estimate_above_the_limit_runs_alone(make: Make) -> None:
    """A request larger than the whole limit is let in when nothing was used, and pays for it afterwards."""
    one = make(config(tokens=100))
    one.reserve(tokens=10**30).settle(150)
    assert one.limits[0].used("a") == (1, 150)
    wait_s = one.refuse(tokens=1).retry_after_s
    one.clock.now_s += wait_s + 0.001
    one.reserve(tokens=1)


def test_a_giant_usage_overflows_no_counter(make: Make) -> None:
    """What an engine says of its usage is bounded before it is counted."""
    one = make(config(requests=5))
    one.reserve(tokens=10**30).settle(10**40)
    assert one.limits[0].used("a") == (1, module.MAX_TOKENS)


def test_the_window_slides(make: Make) -> None:
    """The last minute counts by the share of it that is still inside the window."""
    one = make(config(requests=60))
    assert one.allowed(60) == 60
    one.clock.now_s = 660.0
    assert one.allowed(1) == 0
    one.clock.now_s = 690.0
    assert one.allowed(60) == 30
    one.clock.now_s = 720.0 + 60.0
    assert one.allowed(100) == 60


@pytest.mark.parametrize("at_s", [600.0, 607.0, 659.5])
@pytest.mark.parametrize("later_s", [0.0, 13.0, 70.0])
def test_retry_after_is_the_time_at_which_it_works(make: Make, at_s: float, later_s: float) -> None:
    """Before it the request is refused, after it it is let in, if nobody else came."""
    one = make(config(tokens=100))
    one.clock.now_s = at_s
    one.reserve(tokens=70)
    one.clock.now_s += later_s
    while not isinstance(one.limits[0].reserve("a", 25), GatewayError):
        pass
    wait_s = one.refuse(tokens=25).retry_after_s
    assert 0 < wait_s <= 120
    one.clock.now_s += wait_s - 0.01
    one.refuse(tokens=25)
    one.clock.now_s += 0.02
    one.reserve(tokens=25)


def test_late_settling(make: Make) -> None:
    """An answer of many minutes: what was too much is gone by itself, what is missing counts when it is known."""
    one = make(config(tokens=1000))
    low, high = one.reserve(tokens=100), one.reserve(tokens=100)
    one.clock.now_s += 300
    low.settle(0)
    high.settle(150)
    assert one.limits[0].used("a") == (0, 50)


def test_giving_back_in_the_next_minute(make: Make) -> None:
    """A reservation of the last minute is taken out of the last minute."""
    one = make(config(tokens=100))
    held = one.reserve(tokens=100)
    one.clock.now_s += 60
    held.settle(10)
    assert one.limits[0].used("a") == (1, 10)
    assert one.allowed(1, tokens=90) == 1


def test_tenants_do_not_touch(make: Make) -> None:
    """Each tenant has its own count, and its own limit where one is configured."""
    one = make(config(requests=2, big={"requests_per_minute": 5}, free={}))
    assert [one.allowed(9, tenant) for tenant in ("a", "b", "big", "free")] == [2, 2, 5, 9]


def test_all_processes_count_together(make: Make) -> None:
    """Whichever processes a tenant's requests reach, their sum is limited."""
    three = make(config(requests=10, tokens=1000), 3)
    assert [three.allowed(4, process=row) for row in range(3)] == [4, 4, 2]
    assert all(three.allowed(1, process=row) == 0 for row in range(3))
    assert three.limits[1].used("a") == (10, 0)


def test_what_another_process_settles_counts_here(make: Make) -> None:
    """Room that comes free anywhere is room everywhere."""
    two = make(config(tokens=100), 2)
    held = two.reserve(tokens=100, process=1)
    two.refuse(tokens=50, process=0)
    held.settle(50)
    two.reserve(tokens=50, process=0)


def test_a_process_that_died_is_forgotten(make: Make) -> None:
    """A cleared row counts no more, and its next process starts from nothing."""
    two = make(config(requests=5), 2)
    two.allowed(3, process=1)
    two.tables[0].clear_row(1)
    assert two.limits[0].used("a") == (0, 0)
    assert two.allowed(9, process=1) == 5


def test_a_slot_unused_for_two_minutes_is_given_away(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """More tenants over time than slots: each starts from nothing, nobody shares."""
    monkeypatch.setattr(module, "OWN_SLOTS", 4)
    one = make(config(requests=2))
    for number in range(40):
        assert one.allowed(3, f"t{number}") == 2
        one.clock.now_s += 45


def test_a_reservation_outlives_its_slot(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settling a very old reservation does not touch the tenant that has the slot now."""
    monkeypatch.setattr(module, "OWN_SLOTS", 1)
    one = make(config(tokens=100))
    old = one.reserve("old", 50)
    one.clock.now_s += 240
    one.reserve("new", 60)
    old.settle(0)
    assert one.limits[0].used("new") == (1, 60)


def test_tenants_beyond_the_slots_share(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """When every slot is taken, further tenants are limited together rather than not at all."""
    monkeypatch.setattr(module, "OWN_SLOTS", 2)
    monkeypatch.setattr(module, "COMMON_SLOTS", 1)
    two = make(config(requests=5), 2)
    assert two.allowed(5, "a") + two.allowed(5, "b") == 10
    assert two.allowed(3, "c") == 3 and two.allowed(9, "d") == 2
    two.allowed(1, "x", process=1), two.allowed(1, "y", process=1)
    assert two.allowed(9, "e", process=1) == 0, "the common slot is one for all processes"
    held = two.limits[1]
    two.clock.now_s += 180
    assert isinstance(held.reserve("e", 0), Reservation)


def test_remembered_tenants_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten tenant is found again in the table, with its counts."""
    monkeypatch.setattr(module, "MAX_WINDOWS", 3)
    one = make(config(requests=2))
    for number in range(20):
        assert one.allowed(1, f"t{number}") == 1
    assert len(one.limits[0]._windows) == 3
    assert one.allowed(9, "t0") == 1


def test_many_tenants_are_told_apart(make: Make) -> None:
    """As many tenants as half the slots have counts of their own in the same minute."""
    one = make(config(requests=1))
    assert all(one.allowed(2, f"tenant-{number}") == 1 for number in range(OWN_SLOTS // 2))


def test_new_limits_meet_old_counts(make: Make) -> None:
    """A raised limit has room at once, a lowered one is used up."""
    one = make(config(requests=5))
    one.allowed(5)
    one.limits[0].reconfigure(config(requests=7))
    assert one.allowed(9) == 2
    one.limits[0].reconfigure(config(requests=2))
    assert one.allowed(1) == 0
    one.limits[0].reconfigure(config())
    assert not one.limits[0].active and one.limits[0].reserve("a", 1) is None


def test_all_given_back_is_zero(make: Make) -> None:
    """Once every reservation was cancelled, no count is left anywhere."""
    two = make(config(requests=100, tokens=10_000), 2)
    held = [two.reserve(f"t{number % 7}", number, number % 2) for number in range(60)]
    for reservation in held:
        reservation.cancel()
    assert two.residue() == []
