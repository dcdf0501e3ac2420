"""A run that is ended half-way leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from harness.bench.quota import NoQuota
from harness.bench.scaling import groups_here

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leaves unproven: smgctl bench reads /proc")


def _hear_interrupts() -> None:
    """Undo what a shell does to its background jobs, which ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def left_behind(pid: int) -> list[str]:
    """Control groups that a run made."""
    try:
        return [path.name for path in groups_here().parent.glob(f"smgctl-bench-{pid}-*")]
    except NoQuota:
        return []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_and_all_that_it_started(number: signal.Signals) -> None:
    """Upstreams, gateways, control groups and the folder of the run are gone once the command has ended."""
    command = [sys.executable, "-m", "smgctl", "bench", "--scaling", "--rounds", "99", "--seconds", "0.5"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=_hear_interrupts) as run:
        assert run.stderr is not None
        first = run.stderr.readline()
        assert "requests/s" in first, first
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) >= 6, "two upstreams, one process, a supervisor with two"
        run.send_signal(number)
        assert run.wait(30) != 0
    _, alive = psutil.wait_procs(children, timeout=10)  # the load generator is killed and not waited for
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    assert left_behind(run.pid) == []
