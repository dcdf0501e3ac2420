"""The life of a worker: what each check changes, as tables of marks and states."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.model import Engine, HealthConfig, WorkerConfig
from gateway.workers import record
from gateway.workers.probe import Found
from gateway.workers.record import Life, Record
from gateway.workers.state import ModelInfo, Status

HEALTH = HealthConfig(failure_threshold=3, success_threshold=2, startup_timeout_s=100)


def live(life: Life, marks: str, health: HealthConfig = HEALTH, step_s: float = 1.0) -> tuple[Life, str]:
    """Play checks, a second apart: `.` passes, `x` fails. Returns the life and the statuses, a letter each."""
    letters = {"pending": "P", "ready": "R", "not_ready": "N", "draining": "D", "failed": "F"}
    seen, now_s = "", life.since_s
    for mark in marks:
        now_s += step_s
        good = mark == "."
        life = record.passed(life, now_s, health, slow_start_s=10.0) if good else record.failed(life, now_s, health, "no answer")
        seen += letters[life.status]
    return life, seen


@pytest.mark.parametrize(
    ("marks", "statuses"),
    [
        ("..", "PR"),
        ("x.x..", "PPPPR"),
        ("..xx.xx", "PRRRRRR"),
        ("..xxx", "PRRRN"),
        ("..xxx.x..", "PRRRNNNNR"),
        ("..xxxxxxxx..xx.", "PRRRNNNNNNNRRRR"),
    ],
)
def test_checks_move_a_worker(marks: str, statuses: str) -> None:
    """Two passes in a row make it ready, three failures in a row make it not ready."""
    assert live(record.born(0.0), marks)[1] == statuses


def test_a_worker_that_is_not_up_in_its_time_has_failed_and_may_still_come() -> None:
    """Pending ends after `startup_timeout_s` and not before; a failed worker that answers becomes ready, without a slow start."""
    life, seen = live(record.born(0.0), "x" * 100)
    assert seen == "P" * 99 + "F"
    assert life.reason == "not up within 100 s: no answer"
    life, seen = live(life, "xx..")
    assert seen == "FFFR"
    assert not life.recovered


def test_only_a_worker_that_served_before_has_recovered() -> None:
    """`recovered` is set by not_ready -> ready alone, and taken back when the slow start is over."""
    life, _ = live(record.born(0.0), "..")
    assert not life.recovered
    life, _ = live(life, "xxx..")
    assert life.status is Status.READY
    assert life.recovered
    back_s = life.since_s
    life = record.passed(life, back_s + 9.0, HEALTH, 10.0)
    assert life.recovered
    life = record.passed(life, back_s + 10.5, HEALTH, 10.0)
    assert not life.recovered
    assert life.since_s == back_s


def test_the_reason_says_how_far_it_is() -> None:
    """An operator reads how many checks failed before the worker is taken out, and the reason goes once it is well."""
    life, _ = live(record.born(0.0), "..x")
    assert life.reason == "1 of 3 checks failed: no answer"
    life, _ = live(life, ".")
    assert life.reason == ""
    life, _ = live(life, "xxx")
    assert life.reason == "no answer"
    life, _ = live(life, ".")
    assert life.reason == "1 of 2 checks passed"


def test_a_well_worker_stays_the_same_object() -> None:
    """Checks that change nothing publish nothing."""
    life, _ = live(record.born(0.0), "..")
    assert record.passed(life, 50.0, HEALTH, 10.0) is life


def test_checks_do_not_move_a_draining_worker() -> None:
    """Draining ends by leaving or by being called back, not by a check; draining again changes the reason alone."""
    life = record.drained(live(record.born(0.0), "..")[0], 5.0, "drained by hand")
    assert live(life, "...xxxxxx")[0] is life
    again = record.drained(life, 9.0, "removed by hand")
    assert (again.since_s, again.reason) == (5.0, "removed by hand")


@pytest.mark.parametrize("status", list(Status))
def test_unchecked_workers_are_ready_unless_they_drain(status: Status) -> None:
    """With checks switched off every worker is taken as ready."""
    life = record.unchecked(Life(status, 0.0), 1.0)
    assert life.status is (Status.DRAINING if status is Status.DRAINING else Status.READY)


def test_long_reasons_are_cut() -> None:
    """A reason is a few words, whatever an engine answered."""
    assert len(record.failed(record.born(0.0), 1.0, HEALTH, "x" * 10_000).reason) == record.MAX_REASON_CHARS


def one(**spec: Any) -> Record:
    config = WorkerConfig(url="http://w:1", **spec)
    return Record("id", 7, config, "config", HEALTH, record.born(0.0), 1000.0)


def test_a_record_shows_its_state_and_makes_it_once() -> None:
    """The state carries the settings and what was found; it is the same object until something changes."""
    worker = one(priority=10, cost=2.0, api_key="secret", labels={"a": "b"}, models=("m",))
    state = worker.state()
    assert (state.slot, state.priority, state.cost, state.api_key, state.labels) == (7, 10, 2.0, "secret", {"a": "b"})
    assert [model.name for model in state.models] == ["m"]
    assert worker.state() is state
    assert "secret" not in repr(state) + repr(worker)
    found = Found(Engine.VLLM, "1.0", (ModelInfo(name="m", context_length=8),), "/health", "/health")
    worker.learn(found, 60.0)
    assert worker.state().engine is Engine.VLLM
    assert worker.state().models[0].context_length == 8
    assert worker.joined


@pytest.mark.parametrize(
    ("changed", "probes"),
    [
        ({"priority": 3}, False),
        ({"cost": 3.0}, False),
        ({"labels": {"x": "y"}}, False),
        ({"api_key": "k"}, True),
        ({"engine": Engine.SGLANG}, True),
        ({"models": ("n",)}, True),
        ({"verify_tls": False}, True),
    ],
)
def test_settings_that_a_probe_rests_on_call_for_a_new_one(changed: dict[str, Any], probes: bool) -> None:
    """A new priority is taken as it is; another key, engine or name has the worker probed, and it goes on serving."""
    worker = one()
    worker.learn(Found(Engine.VLLM, "1.0", (ModelInfo(name="m"),), "/health", "/health"), 60.0)
    worker.life = Life(Status.READY, 1.0)
    worker.configure(WorkerConfig(url="http://w:1", **changed), HEALTH)
    assert worker.joined is not probes
    assert worker.life.status is Status.READY
    assert worker.wake.is_set()
    for key in ("priority", "cost", "labels", "engine", "verify_tls", "api_key"):
        if key in changed:
            assert getattr(worker.state(), key) == changed[key]
