"""A comparison with real processes: that it measures, never what."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys

import pytest

from harness.bench import arena, measure_scaling
from harness.bench.cases import CASES
from harness.bench.contestants import NGINX, OURS, find
from harness.bench.generator import Generator
from harness.bench.quota import Groups
from harness.bench.scaling import groups_here
from tests.support.cli import Smgctl

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leaves unproven: smgctl bench reads /proc")


class Silent:
    """Hears how far a run is, and counts the steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.promised = 0

    def begin(self, steps: int) -> None:
        self.promised = steps

    def say(self, text: str) -> None:
        pass

    def step(self, text: str) -> None:
        self.steps.append(text)


def test_a_comparison_measures_everybody(tmp_path: pathlib.Path) -> None:
    """The gateway, and nginx where it is installed, answer without errors, use CPU and memory, and have ratios to each other."""
    with_nginx = find(NGINX, tmp_path) is not None
    ended = Smgctl()(
        "bench", "--only", "chat64", "--against", "nginx", "--rounds", "1", "--seconds", "0.5", "--json", "--cache", str(tmp_path)
    )
    assert ended.exit_code == 0, ended.errors
    found = json.loads(ended.output)
    names = [NGINX, OURS] if with_nginx else [OURS]
    assert [(row["case"], row["name"]) for row in found["rows"]] == [("chat64", name) for name in names]
    for row in found["rows"]:
        assert row["requests"] > 0 and row["errors"] == 0
        assert row["cpu_us"] > 0 and row["cpu_us_rounds"] == [row["cpu_us"]]
        assert row["p50_ms"] <= row["p99_ms"] and row["resident_mb"] > 1
    ours = found["rows"][-1]
    assert ours["times"]["nginx"] == (ours["cpu_us"] / found["rows"][0]["cpu_us"] if with_nginx else None)
    assert list(found["versions"]) == names
    assert bool(found["notices"]) != with_nginx


@pytest.mark.parametrize("groups", [True, False], ids=["limited", "not limited"])
def test_scaling_tells_both_sides(tmp_path: pathlib.Path, groups: bool) -> None:
    """A gateway with one process and one with two are loaded in turns; each serving process has its CPU counted."""
    watch = Silent()
    found = measure_scaling(2, 1, 0.5, watch, groups_here if groups else lambda: Groups(tmp_path, 1))
    assert len(watch.steps) == watch.promised == 2
    assert (found.one.processes, len(found.one.cpu), found.several.processes, len(found.several.cpu)) == (1, 1, 2, 2)
    assert found.one.errors == found.several.errors == 0
    assert found.factor > 0 and found.factor_by_cpu > 0
    assert (found.share is None) == bool(found.notices)
    if not groups:
        assert found.share is None, "a folder has no quota"
    if found.share is None:
        assert found.factor == found.factor_by_cpu and not found.gateway_was_limit
    else:
        assert max(*found.one.cpu, *found.several.cpu) < 1.5 * found.share, "no process used more than it may"


@pytest.mark.parametrize("wrk", [shutil.which("wrk"), None], ids=["wrk", "own"])
@pytest.mark.parametrize("case", ["chat1", "stream64"])
def test_generators_see_every_answer(tmp_path: pathlib.Path, case: str, wrk: str | None, request: pytest.FixtureRequest) -> None:
    """Whole answers and streams of the upstreams themselves are counted, without errors, with latencies that can be."""
    if wrk is None and "wrk" in request.node.callspec.id.split("-"):
        pytest.skip("leaves unproven: what wrk prints is read; it is not installed")
    with arena.upstreams(tmp_path) as (first, _):
        url, _ = first
        seen, cpu_s = Generator("x", wrk).load(CASES[case], int(url.rpartition(":")[2]), 1.0, folder=tmp_path)
    assert seen.requests > 0 and seen.errors == 0 and cpu_s > 0
    assert seen.p50_ms is not None and seen.p99_ms is not None and seen.p50_ms <= seen.p99_ms
    if case == "stream64":
        assert seen.p50_ms > 600, "64 events, 10 ms apart"
