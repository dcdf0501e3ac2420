"""`make serve` as a newcomer meets it: what it prints works as printed, and stopping it leaves nothing behind."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from harness.fleet import llamacpp
from harness.fleet.ports import free_ports, trouble_with
from harness.fleet.quickstart import metrics_port

REAL = pytest.param(
    "llamacpp",
    marks=[
        pytest.mark.real_engine,
        pytest.mark.skipif(
            llamacpp.missing() is not None, reason=f"unproven: make serve answers from a real model ({llamacpp.missing()} is not installed)"
        ),
    ],
)
START_S = 120.0


class QuickStart:
    """A quick start in a folder of its own; `text` is what it printed once it was ready."""

    def __init__(self, engine: str, folder: pathlib.Path, port: int, start: tuple[str, ...] = ("-m", "harness.fleet.quickstart")) -> None:
        self.port = port
        command = [sys.executable, *start, "--engine", engine, "--port", str(port), "--run-dir", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.text = ""

    def wait_ready(self) -> None:
        watchdog = threading.Timer(START_S, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line
            if line.startswith("Ctrl-C"):
                break
        watchdog.cancel()
        assert "ready." in self.text, self.text

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.text += self.process.communicate(timeout=60)[0]
        return self.process.returncode


def free_port() -> int:
    """A port of which the one for metrics is free too."""
    while True:
        [port] = free_ports(1)
        if trouble_with(metrics_port(port)) is None:
            return port


@pytest.fixture(params=["sim", REAL])
def running(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[QuickStart]:
    one = QuickStart(request.param, tmp_path, free_port())
    try:
        one.wait_ready()
        yield one
    finally:
        one.end(signal.SIGKILL)


def _shell(command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_it_prints_works_as_printed(running: QuickStart) -> None:
    """The curl line, the SDK snippet, the worker list and the metrics address, each pasted as it stands, answer; SIGTERM ends all."""
    children = running.children()
    assert len(children) >= 3
    curl = re.search(r"^curl .*?'$", running.text, re.DOTALL | re.MULTILINE)
    snippet = re.search(r"^\S+ - <<'END'\n.*?^END$", running.text, re.DOTALL | re.MULTILINE)
    workers = re.search(r"^workers: (.*)$", running.text, re.MULTILINE)
    assert curl is not None and snippet is not None and workers is not None
    answers = [_shell(curl[0]), _shell(snippet[0])]
    if "SIMULATED" in running.text:
        assert all("simulated" in answer.lower() for answer in answers), answers
    else:
        assert '"finish_reason"' in answers[0] and len(answers[1].strip()) > 1, answers
    assert "http://127.0.0.1" in _shell(workers[1])
    assert "smg_" in _shell(f"curl -s http://127.0.0.1:{metrics_port(running.port)}/metrics")
    assert running.end() == 0, running.text
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.parametrize("running", ["sim"], indirect=True)
def test_an_engine_that_dies_ends_the_quick_start(running: QuickStart) -> None:
    """Nobody looks at a half-dead demonstration: it says which part ended, stops the rest, and exits with 1."""
    children = running.children()
    victim = next(child for child in children if "harness.sim" in child.cmdline())
    victim.kill()
    running.text += running.process.communicate(timeout=60)[0]
    assert running.process.returncode == 1 and "simulated engine" in running.text and " ended" in running.text
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_without_the_wheels_simulated_engines_take_over_aloud(tmp_path: pathlib.Path) -> None:
    """Where the real engine cannot be installed the first look still works, and nobody mistakes what answers for a model."""
    without = (
        "import importlib.util as util, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'xllamacpp' else find(name, *more)\n"
        "from harness.fleet.quickstart import main\n"
        "sys.exit(main())\n"
    )
    one = QuickStart("llamacpp", tmp_path, free_port(), ("-c", without))
    try:
        one.wait_ready()
        assert "NOTICE: no real engine can run here: the wheel xllamacpp is not installed" in one.text
        assert "The engines are SIMULATED" in one.text
        assert one.end() == 0
    finally:
        one.end(signal.SIGKILL)


def test_a_port_that_is_taken_is_said_at_once(tmp_path: pathlib.Path) -> None:
    """Nothing is started in vain, and the message says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        quick = QuickStart("sim", tmp_path, one.getsockname()[1])
        assert quick.end(signal.SIGCONT) == 2
    assert "choose another: make serve PORT=" in quick.text
