"""Snapshots copy, add up, travel as JSON and msgpack, and never make a counter fall."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.cells import ProcessCells
from gateway.telemetry.snapshot import BREAKER_STATES, WORKER_STATUSES, Ledger, Snapshot, merge, take
from tests.support import telemetry as sample


def test_a_snapshot_is_a_copy() -> None:
    """What is counted after `take` is not in it."""
    cells = sample.process_cells()
    worker = sample.worker()
    before = take(cells, [worker])
    encoded = before.encode()
    cells.model("m", sample.PATH, True).errors["internal"] = 1
    cells.endpoint(sample.PATH).duration.observe(1.0)
    cells.rate_limited["tokens_per_minute"] = 1
    worker.cells.responses[503] = 1
    assert before.encode() == encoded
    assert take(cells, [worker]).encode() != encoded


def test_a_snapshot_survives_both_encodings() -> None:
    """JSON and msgpack give back an equal snapshot."""
    snapshot = sample.snapshot()
    assert Snapshot.decode(snapshot.encode()) == snapshot
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot


def test_an_empty_snapshot_adds_nothing() -> None:
    """Merging with nothing gives the same counts."""
    snapshot = sample.snapshot()
    assert merge([Snapshot(), snapshot, Snapshot()]) == snapshot
    assert merge([]) == Snapshot()


def test_counters_histograms_and_gauges_are_summed() -> None:
    """Two processes count twice what one does."""
    whole = merge([sample.snapshot(0), sample.snapshot(1, pid=101)])
    assert [process.index for process in whole.processes] == [0, 1]
    assert whole.connections_active == 6
    assert whole.in_flight == 4
    assert whole.queue_depth == {"default": 2}
    assert ("bulk", "queue_full", 2) in whole.admission
    assert whole.queue_wait["default"].total == 0.4
    (endpoint,) = whole.endpoints
    assert endpoint.requests == 16
    assert sorted(endpoint.responses) == [(200, "", 14), (502, "upstream_failed", 2)]
    assert len(whole.models) == 2
    assert whole.models[0].prompt_tokens == 200
    assert sum(whole.models[0].ttft.counts) == 2
    assert whole.models[0].ttft.total == 0.6
    first = whole.workers[0]
    assert (first.selections, first.in_flight, first.open_connections) == (18, 4, 6)
    assert first.responses == {200: 12, 500: 4}
    assert ("closed", "open", 2) in first.breaker_transitions


def test_merging_changes_no_part() -> None:
    """A part can be merged again, in another thread too."""
    parts = [sample.snapshot(0), sample.snapshot(1)]
    encoded = [part.encode() for part in parts]
    merge(parts)
    merge(parts)
    assert [part.encode() for part in parts] == encoded


@pytest.mark.parametrize("field", ["breaker", "status"])
@given(data=st.data())
def test_the_worst_state_counts(field: str, data: st.DataObject) -> None:
    """A worker is as bad as the process that thinks worst of it, in whatever order they come."""
    order = BREAKER_STATES if field == "breaker" else WORKER_STATUSES
    states = data.draw(st.lists(st.sampled_from(order), min_size=1, max_size=4))
    parts = []
    for state in states:
        reading = sample.worker()
        setattr(reading, field, state)
        parts.append(take(ProcessCells(), [reading]))
    assert getattr(merge(parts).workers[0], field) == max(states, key=order.index)


def _counters(snapshot: Snapshot) -> dict[str, float]:
    counts: dict[str, float] = {"connections": snapshot.connections_total, "dropped": snapshot.access_log_dropped}
    for endpoint in snapshot.endpoints:
        counts[endpoint.path] = endpoint.requests
        counts[f"{endpoint.path} seconds"] = endpoint.duration.total
    for worker in snapshot.workers:
        counts[worker.id] = worker.selections
    return counts


_Step = st.tuples(st.sampled_from(["count", "restart", "retire"]), st.integers(0, 2), st.integers(1, 5))


@given(steps=st.lists(_Step, max_size=30))
def test_no_counter_falls_whatever_dies(steps: list[tuple[str, int, int]]) -> None:
    """Processes may count, die, and come back under another pid: the whole only grows, and loses nothing it has seen."""
    ledger = Ledger()
    cells = [ProcessCells() for _ in range(3)]
    workers = [sample.worker() for _ in range(3)]
    for worker in workers:
        worker.cells.selections = 0
    pids = [100, 200, 300]
    seen = 0
    last = _counters(ledger.merged())
    for what, index, amount in steps:
        if what == "retire":
            ledger.retire(index)
        if what != "count":
            cells[index] = ProcessCells()
            workers[index].cells = type(workers[index].cells)()
            pids[index] += 1
        else:
            cells[index].connections_total += amount
            cells[index].endpoint("/x").requests += amount
            cells[index].endpoint("/x").duration.observe(amount)
            workers[index].cells.selections += amount
            seen += amount
        ledger.put(index, take(cells[index], [workers[index]], process=sample.process(index, pid=pids[index])))
        now = _counters(ledger.merged())
        assert all(now[name] >= value for name, value in last.items())
        assert now["connections"] == seen
        last = now


def test_a_process_that_died_leaves_no_gauge() -> None:
    """Connections and requests in flight end with their process; its breaker says nothing any more."""
    ledger = Ledger()
    reading = sample.worker()
    reading.breaker = "open"
    ledger.put(0, take(sample.process_cells(), [reading], process=sample.process(), in_flight=2, queued=1))
    ledger.retire(0)
    ledger.retire(0)
    whole = ledger.merged()
    assert (whole.connections_active, whole.in_flight, whole.queued, whole.processes) == (0, 0, 0, [])
    (worker,) = whole.workers
    assert (worker.in_flight, worker.open_connections, worker.breaker) == (0, 0, "closed")
    assert worker.selections == 9
    assert whole.connections_total == 10


def test_workers_that_left_the_fleet_leave_the_base() -> None:
    """The base cannot grow with workers that come and go."""
    ledger = Ledger()
    ledger.put(0, sample.snapshot())
    ledger.retire(0)
    assert [worker.id for worker in ledger.merged({"http://w2:8000"}).workers] == ["http://w2:8000"]
    assert [worker.id for worker in ledger.merged().workers] == ["http://w2:8000"]
