"""The command alone: what it asks to be measured, and how it shows what was found. The measuring is in harness/bench."""

import json
import pathlib
from typing import Any

import pytest

import harness.bench
from harness.bench import Comparison, Plan, Scaling
from harness.bench.cases import CASES
from harness.bench.contestants import AGAINST
from harness.bench.generator import LoadFailed
from harness.bench.report import Machine, Measurement, rows_of
from harness.bench.scaling import Side
from smgctl.bench import command_of
from tests.support.cli import Smgctl

MACHINE = Machine(cpu="A CPU", cores=2, system="Linux 6.1", python="3.11.7")


def comparison(plan: Plan, errors: int = 0) -> Comparison:
    """What a run of a plan with one round finds."""
    common = {"case": "chat64", "requests": 9, "rps": 9.0, "p50_ms": 1.0, "p99_ms": 2.0, "resident_bytes": 50_000_000}
    rounds: list[dict[str, Any]] = [{"name": "nginx", "cpu_us": 20.0, "errors": 0}, {"name": "smgctl", "cpu_us": 30.0, "errors": errors}]
    return Comparison(
        date="2026-01-02",
        machine=MACHINE,
        generator="wrk",
        placement="not pinned",
        processes=plan.processes,
        rounds=plan.rounds,
        seconds=plan.seconds,
        versions={"nginx": "1.22.1", "smgctl": "0.1.0"},
        rows=rows_of([Measurement(**common, **one) for one in rounds], plan.against),
        notices=["smg is not installed and was left out; run once with --install-peers"],
    )


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were run; a run finds the same at once."""
    ran: list[Plan] = []

    def run(plan: Plan, watch: Any) -> Comparison:
        ran.append(plan)
        watch.begin(1)
        watch.say("chat64")
        watch.step("chat64 smgctl: 30 us")
        return comparison(plan)

    monkeypatch.setattr(harness.bench, "compare", run)
    return ran


def test_everything_is_compared_unless_told_otherwise(smgctl: Smgctl, plans: list[Plan]) -> None:
    """All cases, all contestants, three rounds of five seconds, one process; the cache is in the home folder."""
    assert smgctl("bench").exit_code == 0
    (plan,) = plans
    assert (plan.cases, plan.against) == (tuple(CASES), AGAINST)
    assert (plan.rounds, plan.seconds, plan.processes) == (3, 5.0, 1)
    assert plan.cache == pathlib.Path("~/.cache/smgctl/bench").expanduser()


def test_what_is_compared_can_be_chosen(smgctl: Smgctl, plans: list[Plan], tmp_path: pathlib.Path) -> None:
    """Cases and contestants by name, in the order given, each once; nobody is possible too."""
    smgctl("bench", "--only", "stream64, chat1,chat1", "--against", "smg", "--rounds", "1", "--seconds", "0.5", "--processes", "4")
    smgctl("bench", "--against", "", "--cache", str(tmp_path))
    assert (plans[0].cases, plans[0].against) == (("stream64", "chat1"), ("smg",))
    assert (plans[0].rounds, plans[0].seconds, plans[0].processes) == (1, 0.5, 4)
    assert (plans[1].against, plans[1].cache) == ((), tmp_path)


def test_the_table_is_shown(smgctl: Smgctl, plans: list[Plan]) -> None:
    """A line for each contestant on stdout; progress and what was left out on stderr."""
    result = smgctl("bench")
    assert result.output == (
        "CASE    GATEWAY  CPU US  X NGINX  REQ/S  P50 MS  P99 MS  MB  ERRORS\n"
        "chat64  nginx    20.0    1.00     9      1.00    2.00    50  0\n"
        "chat64  smgctl   30.0    1.50     9      1.00    2.00    50  0\n"
    )
    assert result.errors == ("chat64 smgctl: 30 us\nhint: smg is not installed and was left out; run once with --install-peers\n")


def test_what_was_found_is_printed_and_saved_as_json(smgctl: Smgctl, plans: list[Plan], tmp_path: pathlib.Path) -> None:
    """Both are the same, with every figure."""
    printed = json.loads(smgctl("bench", "--json", "--save", str(tmp_path / "found.json")).output)
    assert printed == json.loads((tmp_path / "found.json").read_text())
    assert printed["rows"][1]["times"] == {"nginx": 1.5, "smg": None, "vllm-router": None}
    assert printed["machine"]["cpu"] == "A CPU"


def test_markdown_has_the_command(smgctl: Smgctl, plans: list[Plan]) -> None:
    """Whoever reads it can measure the same."""
    output = smgctl("bench", "--markdown", "--only", "chat64", "--rounds", "1").output
    assert output.startswith(
        "Measured on 2026-01-02 with `smgctl bench --rounds 1 --seconds 5 --only chat64 --markdown`: 1 round of 5 s, medians.\n"
    )
    assert "| chat64 | smgctl | 30.0 | 1.50 | 9 | 1.00 | 2.00 | 50 | 0 |\n" in output


def test_the_command_says_what_differs() -> None:
    """Defaults of what is compared are left out."""
    plan = Plan(cases=("chat1",), against=(), rounds=2, seconds=0.5, processes=2, cache=pathlib.Path())
    assert command_of(plan) == "smgctl bench --rounds 2 --seconds 0.5 --only chat1 --against '' --processes 2 --markdown"


def test_errors_of_the_gateway_are_1(smgctl: Smgctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is shown all the same."""
    monkeypatch.setattr(harness.bench, "compare", lambda plan, watch: comparison(plan, errors=1))
    result = smgctl("bench")
    assert result.exit_code == 1
    assert "smgctl" in result.output


def test_a_load_that_fails_is_1(smgctl: Smgctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told, without a trace."""

    def fail(plan: Plan, watch: Any) -> Comparison:
        raise LoadFailed("wrk ended with 1: no")

    monkeypatch.setattr(harness.bench, "compare", fail)
    result = smgctl("bench")
    assert (result.exit_code, result.output, result.errors) == (1, "", "error: wrk ended with 1: no\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--only", "chat65"), "--only: 'chat65' is none of chat1, chat64, stream64"),
        (("--only", ","), "--only names none of chat1, chat64, stream64"),
        (("--against", "envoy"), "--against: 'envoy' is none of nginx, smg, vllm-router"),
        (("--json", "--markdown"), "--json and --markdown exclude each other"),
        (("--scaling", "--only", "chat1"), "--scaling measures this gateway alone, in the case chat64"),
        (("--scaling", "--processes", "1"), "--scaling needs --processes 2 or more"),
        (("--save", "/nonexistent/found.json"), "cannot write /nonexistent/found.json: No such file or directory"),
    ],
)
def test_wrong_usage_is_2(smgctl: Smgctl, plans: list[Plan], args: tuple[str, ...], said: str) -> None:
    """What is not understood is named."""
    result = smgctl("bench", *args)
    assert (result.exit_code, result.output) == (2, "")
    assert result.errors.endswith(f"error: {said}\n")


def scaling(share: float | None, *, limit: bool) -> Scaling:
    """What two processes serve beside one."""
    one = Side(processes=1, rps=5000.0, requests_per_cpu_s=20_000.0, cpu=[0.25], cpu_of_load=0.15, errors=0)
    several = Side(processes=2, rps=9500.0, requests_per_cpu_s=38_000.0, cpu=[0.25, 0.24], cpu_of_load=0.3, errors=0)
    return Scaling(
        date="2026-01-02", machine=MACHINE, generator="wrk", rounds=1, seconds=1.0, share=share, one=one, several=several,
        factor=1.9, factor_by_cpu=1.9, gateway_was_limit=limit, notices=[],
    )  # fmt: skip


def test_scaling_shows_the_factor_and_its_ground(smgctl: Smgctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides, the factor, and whether it was the gateway that was measured; two processes unless told otherwise."""
    asked: list[tuple[int, int, float]] = []

    def run(processes: int, rounds: int, seconds: float, watch: Any) -> Scaling:
        asked.append((processes, rounds, seconds))
        return scaling(0.25, limit=True)

    monkeypatch.setattr(harness.bench, "measure_scaling", run)
    result = smgctl("bench", "--scaling", "--rounds", "2", "--seconds", "1")
    assert asked == [(2, 2, 1.0)]
    assert (result.exit_code, result.errors) == (0, "")
    assert result.output == (
        "PROCESSES  REQ/S  CORES OF EACH  REQ/CPU S OF THE BUSIEST  CORES OF LOAD  ERRORS\n"
        "1          5000   0.25           20000                     0.15           0\n"
        "2          9500   0.25 0.24      38000                     0.30           0\n"
        "\n"
        "factor:                1.90\n"
        "factor by cpu:         1.90\n"
        "serving processes:     0.25 of a core each\n"
        "gateway was the limit: yes\n"
    )


@pytest.mark.parametrize(("share", "hinted"), [(0.25, True), (None, False)])
def test_scaling_says_when_it_measured_something_else(
    smgctl: Smgctl, monkeypatch: pytest.MonkeyPatch, share: float | None, hinted: bool
) -> None:
    """A gateway that was not at its limit has no factor of its own; one that was not limited has that of CPU."""
    monkeypatch.setattr(harness.bench, "measure_scaling", lambda *_: scaling(share, limit=False))
    result = smgctl("bench", "--scaling")
    assert ("something else was the limit" in result.errors) == hinted
    assert ("not limited" in result.output) == (share is None)
