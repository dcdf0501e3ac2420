"""The driver on a loop whose time is a number."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest

from harness.sim import requests
from harness.sim.driver import Driver
from harness.sim.job import Api, Job
from harness.sim.metrics import Record
from harness.sim.settings import SimSettings


class Handle:
    """A callback that waits."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Forget it."""
        self.cancelled = True


class Loop:
    """Just enough of an event loop: a clock and timers."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._queue: list[tuple[float, int, Handle]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Return the time."""
        return self.now_s

    def call_at(self, when_s: float, call: Callable[[], None]) -> Handle:
        """Add a timer."""
        handle = Handle(call)
        heapq.heappush(self._queue, (when_s, next(self._order), handle))
        return handle

    def call_soon(self, call: Callable[[], None]) -> Handle:
        """Add a callback for now."""
        return self.call_at(self.now_s, call)

    def run(self, until_s: float = float("inf")) -> None:
        """Run what is due until a time, or everything."""
        while self._queue and self._queue[0][0] <= until_s:
            when_s, _, handle = heapq.heappop(self._queue)
            self.now_s = max(self.now_s, when_s)
            if not handle.cancelled:
                handle.call()


def made(**settings: Any) -> tuple[Loop, Driver, SimSettings]:
    """Return a loop and a driver on it."""
    values: dict[str, Any] = {"model": "m", "decode_base_ms": 10, "decode_per_req_ms": 0, "prefill_tps": 1000, **settings}
    loop, chosen = Loop(), SimSettings(**values)
    return loop, Driver(chosen, cast(Any, loop)), chosen


def job(settings: SimSettings, **more: Any) -> tuple[Job, list[float], Callable[[Loop], None]]:
    """Return a job, the list of its token times, and what binds both to a loop."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "ignore_eos": True, "max_tokens": 5, **more}
    built = requests.build(settings, Api.CHAT, body, None)
    times: list[float] = []

    def bind(loop: Loop) -> None:
        built.on_token = lambda answer, place: times.append(loop.now_s)

    return built, times, bind


def test_tokens_come_at_the_pace_of_steps() -> None:
    """The first token comes after prefill, the others a step apart; the end is told once, after the last."""
    loop, driver, settings = made()
    built, times, bind = job(settings)
    bind(loop)
    ends: list[float] = []
    built.on_over = lambda: ends.append(loop.now_s)
    driver.submit(built)
    assert driver.jobs == 1
    loop.run()
    first_s = 100.0 + 0.010 + built.prompt_tokens / 1000
    assert times == pytest.approx([first_s + 0.010 * place for place in range(5)])
    assert ends == [times[-1]]
    assert driver.jobs == 0


def test_short_steps_are_owed_not_lost() -> None:
    """Steps finer than a timer run in bunches, yet take their time together."""
    loop, driver, settings = made(decode_base_ms=0.1, prefill_tps=0)
    built, times, bind = job(settings, max_tokens=1000)
    bind(loop)
    driver.submit(built)
    loop.run()
    assert len(times) == 1000
    assert loop.now_s - 100.0 == pytest.approx(0.1, abs=0.001)


def test_an_aborted_job_hears_nothing_more() -> None:
    """After an abort no callback comes and the batch is empty."""
    loop, driver, settings = made()
    built, times, bind = job(settings, max_tokens=100)
    bind(loop)
    built.on_over = lambda: times.append(-1.0)
    driver.submit(built)
    loop.run(100.1)
    count = len(times)
    driver.abort(built)
    driver.abort(built)
    loop.run()
    assert 0 < count == len(times)
    assert (len(driver.scheduler.running), driver.scheduler.pool.used, driver.jobs) == (0, 0, 0)


def test_freeze_stops_and_thaw_goes_on() -> None:
    """A frozen driver makes no token, whatever time passes, and goes on where it was."""
    loop, driver, settings = made()
    built, times, bind = job(settings, max_tokens=50)
    bind(loop)
    driver.submit(built)
    loop.run(100.1)
    driver.freeze()
    count = len(times)
    loop.run()
    loop.now_s = 200.0
    assert len(times) == count < 50
    driver.thaw()
    loop.run()
    assert len(times) == 50
    assert times[count] == pytest.approx(200.0)


def test_close_cancels_the_timer() -> None:
    """A closed driver does nothing any more, whatever is submitted."""
    loop, driver, settings = made()
    built, times, bind = job(settings)
    bind(loop)
    driver.submit(built)
    driver.close()
    other, more, bind_other = job(settings)
    bind_other(loop)
    driver.submit(other)
    loop.run()
    assert times == more == []


def test_the_record_measures_what_happened() -> None:
    """Times of tokens and requests, tokens and ends are in the measures."""
    loop, driver, settings = made()
    record = Record(settings, driver, clock=lambda: 7.0)
    built, _, _ = job(settings)
    driver.submit(built)
    loop.run()
    measures = record.measures
    assert (measures.first_token_s.count, measures.inter_token_s.count) == (1, 4)
    assert measures.first_token_s.sum == pytest.approx(0.010 + built.prompt_tokens / 1000)
    assert measures.inter_token_s.sum == pytest.approx(0.040)
    assert measures.e2e_s.sum == pytest.approx(0.050 + built.prompt_tokens / 1000)
    assert measures.finished == {"length": 1}
    assert measures.iteration_tokens.sum == built.prompt_tokens + 4
    assert record.throughput == pytest.approx(100.0)
    for place in range(200):
        record.request("GET", f"/scan/{place}", 0)
    assert len(measures.http) < 70
