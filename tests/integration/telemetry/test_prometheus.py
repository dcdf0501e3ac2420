"""The real Prometheus reads the page, and every query of the dashboard has an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.telemetry.clock import wall_s
from gateway.telemetry.exposition import GatewayReading, render, render_off_loop
from gateway.telemetry.metrics import METRICS
from gateway.telemetry.metrics_server import MetricsServer
from gateway.telemetry.snapshot import Ledger, take
from tests.support import telemetry as sample
from tests.support.prometheus import ASSETS, needs_prometheus, needs_promtool, promtool, running_prometheus


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_page() -> None:
    """Names, types, help and format are as Prometheus wants them."""
    code, said = promtool("check", "metrics", text=render(sample.snapshot(), sample.fleet(), sample.gateway()))
    assert code == 0, said
    assert said == ""


@needs_promtool
def test_promtool_would_find_something() -> None:
    """The check of the test above can fail."""
    code, said = promtool("check", "metrics", text=b'smg_x_total{a="1"} 1\nsmg_x_total{a="1"} 2\n')
    assert code != 0, said


def _queries() -> list[str]:
    dashboard: dict[str, Any] = json.loads((ASSETS / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return [
        query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*").replace("$model", ".*")
        for query in queries
    ]


@needs_prometheus
async def test_a_real_prometheus_scrapes_and_answers_every_query(tmp_path: Path) -> None:
    """Counters rise from scrape to scrape, all families arrive, the alert rules load, no panel is empty."""
    ledger = Ledger()
    cells, workers = sample.process_cells(), [sample.worker(), sample.worker("http://w2:8000")]

    async def page() -> bytes:
        for counted in (*cells.endpoints.values(), *cells.models.values()):
            counted.requests += 1
            counted.duration.observe(0.1)
        for model in cells.models.values():
            model.prompt_tokens += 10
            for histogram in (model.ttft, model.tpot, model.generation):
                histogram.observe(0.1)
        cells.waited("default", 0.1)
        reading = sample.process()
        ledger.put(0, take(cells, workers, process=reading, in_flight=2, queued=1, queue_depth={"default": 1}))
        gateway = GatewayReading(started_s=wall_s(), max_concurrent_requests=8, queue_sizes={"default": 512})
        return await render_off_loop(ledger.parts(), sample.fleet(), gateway)

    async with (
        MetricsServer("127.0.0.1", 0, page) as server,
        running_prometheus(tmp_path, f"127.0.0.1:{server.address[1]}") as prometheus,
    ):
        await prometheus.until('rate(smg_http_requests_total{path="/v1/chat/completions"}[1m]) > 0')
        assert (await prometheus.query('up{job="smg"}'))[0]["value"][1] == "1"
        known = await prometheus.get("/api/v1/metadata")
        assert {name: known.get(name, [{}])[0].get("type") for name in METRICS} == {name: metric.kind for name, metric in METRICS.items()}
        groups = (await prometheus.get("/api/v1/rules"))["groups"]
        assert len(groups[0]["rules"]) == 16
        for query in _queries():
            assert await prometheus.until(query, within_s=10.0), query
