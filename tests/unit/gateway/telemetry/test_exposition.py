"""The page is valid, complete, obeys the table of metrics, and says what the snapshot says."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import exposition
from gateway.telemetry.exposition import GatewayReading, render, render_off_loop
from gateway.telemetry.metrics import METRICS
from gateway.telemetry.snapshot import Snapshot, merge, take
from tests.support import telemetry as sample

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(page: bytes) -> Samples:
    """Return the samples of a page by name and sorted labels; a sample that comes twice fails."""
    samples: Samples = {}
    for family in text_string_to_metric_families(page.decode()):
        for one in family.samples:
            key = (one.name, tuple(sorted(one.labels.items())))
            assert key not in samples, f"{key} comes twice"
            samples[key] = one.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples of a name that have these labels."""
    wanted = {(key.rstrip("_"), text) for key, text in labels.items()}
    found = [number for (one, pairs), number in samples.items() if one == name and wanted <= set(pairs)]
    assert found, f"no {name} {labels}"
    return sum(found)


@pytest.fixture
def full() -> Samples:
    """The page of a gateway that has counted everything."""
    return read(render(sample.snapshot(), sample.fleet(), sample.gateway()))


def test_a_full_page_has_every_metric_with_its_labels(full: Samples) -> None:
    """Nothing of the table is missing, and nothing has a label that the table does not have."""
    seen: dict[str, set[tuple[str, ...]]] = {}
    for name, pairs in full:
        for suffix in ("_bucket", "_sum", "_count"):
            if name.removesuffix(suffix) in METRICS and name not in METRICS:
                name = name.removesuffix(suffix)
        labels = tuple(sorted(label for label, _ in pairs if label != "le"))
        seen.setdefault(name, set()).add(labels)
    assert seen == {name: {tuple(sorted(metric.labels))} for name, metric in METRICS.items()}


def test_types_and_help_come_once_and_before_their_samples() -> None:
    """Each family has one block, head first."""
    lines = render(sample.snapshot(), sample.fleet(), sample.gateway()).decode().splitlines()
    heads = [line for line in lines if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads)) == len(METRICS)
    for name, metric in METRICS.items():
        place = lines.index(f"# TYPE {name} {metric.kind}")
        assert lines[place - 1] == f"# HELP {name} {metric.help}"
        assert lines[place + 1].startswith(name)


def test_values_are_those_of_the_snapshot(full: Samples) -> None:
    """A number of each kind arrives where it belongs."""
    assert value(full, "smg_http_requests_total", path=sample.PATH, method="POST") == 8
    assert value(full, "smg_http_responses_total", status_code="502", error_code="upstream_failed") == 1
    assert value(full, "smg_router_requests_total", model="m", streaming="true") == 4
    assert value(full, "smg_router_tokens_total", streaming="false", token_type="cached") == 25
    assert value(full, "smg_http_rate_limit_total", result="rejected", limit="requests_per_minute") == 4
    assert value(full, "smg_http_rate_limit_total", result="allowed") == 7
    assert value(full, "smg_scheduler_admit_total", class_="bulk", outcome="rejected_queue_full") == 1
    assert value(full, "smg_scheduler_queued_total", class_="default") == 2
    assert value(full, "smg_scheduler_utilization") == 0.25
    assert value(full, "smg_worker_cb_outcomes_total", worker="http://w1:8000", outcome="failure") == 3
    assert value(full, "smg_worker_health", worker="http://w1:8000") == 1
    assert value(full, "smg_worker_health", worker="http://w2:8000") == 0
    assert value(full, "smg_worker_status", worker="http://w3:8000", status="pending") == 1
    assert value(full, "smg_worker_pool_size", model="m") == 2
    assert value(full, "smg_worker_pool_available", model="m") == 1
    assert value(full, "smg_config_last_apply_successful") == 0
    assert value(full, "smg_process_resident_memory_bytes", process="0") == 50 << 20


def test_buckets_are_cumulative(full: Samples) -> None:
    """A bucket counts everything up to its bound, the last one everything."""
    bounds = {dict(pairs)["le"]: number for (name, pairs), number in full.items() if name == "smg_router_ttft_seconds_bucket"}
    assert bounds["0.25"] == 0
    assert bounds["0.5"] == bounds["10"] == bounds["+Inf"] == 1
    assert value(full, "smg_router_ttft_seconds_count") == 1
    assert value(full, "smg_router_ttft_seconds_sum") == 0.3


def test_streams_alone_have_token_times() -> None:
    """Whole answers have no series of ttft, tpot and generation."""
    samples = read(render(sample.snapshot()))
    ttft = {dict(pairs)["streaming"] for name, pairs in samples if name.startswith("smg_router_ttft_seconds")}
    assert ttft == {"true"}


def test_an_open_breaker_makes_a_worker_unavailable() -> None:
    """A pool counts the workers that take requests now."""
    reading = sample.worker()
    reading.breaker = "open"
    samples = read(render(take(sample.process_cells(), [reading]), [sample.FleetMember(reading.url)]))
    assert value(samples, "smg_worker_cb_state", worker=reading.url) == 1
    assert value(samples, "smg_worker_health", worker=reading.url) == 1
    assert value(samples, "smg_worker_pool_available", model="m") == 0


def test_without_a_fleet_the_processes_say_which_workers_there_are() -> None:
    """A page of one process alone still has health and pools."""
    samples = read(render(sample.snapshot()))
    assert value(samples, "smg_worker_health", worker="http://w2:8000") == 1
    assert value(samples, "smg_worker_pool_size", model="m") == 2


def test_two_workers_under_one_url_are_one_series() -> None:
    """A worker that drains and its successor do not make Prometheus refuse the page."""
    old, new = sample.worker(), sample.worker()
    old.id, new.id = "old", "new"
    fleet = [sample.FleetMember(old.url, "old", status="draining"), sample.FleetMember(new.url, "new")]
    samples = read(render(take(sample.process_cells(), [old, new]), fleet))
    assert value(samples, "smg_worker_selection_total", worker=old.url) == 18
    assert value(samples, "smg_worker_health", worker=old.url) == 1
    assert value(samples, "smg_worker_info", worker=old.url, worker_id="new") == 1


def test_two_processes_under_one_number_are_one_series() -> None:
    """A process that drains and its successor do not either."""
    whole = merge([sample.snapshot(0, pid=1), sample.snapshot(0, pid=2), sample.snapshot(-1, pid=3)])
    samples = read(render(whole))
    assert value(samples, "smg_processes") == 2
    assert value(samples, "smg_process_open_fds", process="supervisor") == 20


@given(name=st.text(max_size=20))
def test_any_name_of_a_model_is_escaped(name: str) -> None:
    """Whatever an engine calls its model, the page stays readable and gives the name back."""
    cells = sample.process_cells()
    cells.model(name, sample.PATH, False).requests = 77
    page = render(take(cells, [sample.worker(models=(name,))]))
    rows = [line for line in page.decode().split("\n") if line.startswith("smg_router_requests_total") and line.endswith(" 77")]
    assert len(rows) == 1
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    assert f'model="{escaped}"' in rows[0]


def test_a_lone_surrogate_does_not_break_the_page() -> None:
    """Text that cannot be encoded is replaced."""
    cells = sample.process_cells()
    cells.model("\ud800", sample.PATH, False)
    assert b'model="?"' in render(take(cells, []))


def test_an_empty_gateway_has_a_page() -> None:
    """A gateway that has just started is scraped without an error."""
    samples = read(render(Snapshot(), [], GatewayReading(started_s=0.0)))
    assert value(samples, "smg_http_connections_active") == 0
    assert value(samples, "smg_uptime_seconds") > 0
    assert not any(name == "smg_scheduler_capacity" for name, _ in samples)


async def test_a_large_page_is_written_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of a thousand workers leaves the event loop alone; a small one is not worth a thread."""
    threads: list[threading.Thread] = []

    def spy(*arguments: object) -> bytes:
        threads.append(threading.current_thread())
        return render(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exposition, "render", spy)
    small = sample.snapshot()
    large = take(sample.process_cells(), [sample.worker(f"http://w{number}:80") for number in range(1000)])
    assert await render_off_loop([small]) == render(small)
    page = await render_off_loop([small, large])
    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()
    assert value(read(page), "smg_worker_selection_total", worker="http://w999:80") == 9
