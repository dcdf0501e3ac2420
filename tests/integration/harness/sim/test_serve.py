"""Simulated engines as processes: the module and the command, ports, signals, crash."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from harness.sim.engine import CRASH_EXIT

MODULE = [sys.executable, "-m", "harness.sim"]
CLI = [
    sys.executable,
    "-c",
    "import sys, typer; from smgctl.sim import app; from smgctl.context import SmgContext; "
    "typer.main.get_command(app).main(args=sys.argv[1:], prog_name='smgctl sim', obj=SmgContext())",
    "engine",
]


@contextmanager
def started(command: list[str], engines: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start a process and wait for its engines to listen."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(engines)]
        assert [line[0] for line in lines] == ["listening"] * engines, process.stderr.read() if process.stderr else ""
        yield process, [line[1] for line in lines]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", [MODULE, CLI], ids=["module", "cli"])
def test_many_engines_in_one_process(command: list[str]) -> None:
    """A process runs several engines on ports of their own, with seeds of their own, until SIGTERM."""
    options = ["--flavour", "sglang", "--count", "3", "--model", "m", "--step-ms", "0.1", "--lora", "tuned"]
    with started([*command, *options], 3) as (process, urls):
        assert len(set(urls)) == 3
        answers = []
        for url in urls:
            assert [card["id"] for card in httpx.get(f"{url}/v1/models").json()["data"]] == ["m", "tuned"]
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            answers.append(httpx.post(f"{url}/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"])
        assert len(set(answers)) == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("kind", ["reset", "stall", "crash"])
def test_faults_of_a_process(kind: str) -> None:
    """Faults work in a process with its own event loop; one engine alone takes its process down when it crashes."""
    with started([*MODULE, "--model", "m", "--step-ms", "1"], 1) as (process, (url,)):
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        assert httpx.post(f"{url}/v1/chat/completions", json=body).text.endswith("data: [DONE]\n\n")
        assert httpx.post(f"{url}/_sim/faults", json={"kind": kind, "after_events": 2, "times": 1}).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=0.5)
        if kind == "crash":
            assert process.wait(10) == CRASH_EXIT
        else:
            assert httpx.post(f"{url}/v1/chat/completions", json=body).text.endswith("data: [DONE]\n\n")
            assert httpx.get(f"{url}/_sim/state").json()["fault_hits"] == 1


def test_a_crash_among_several_leaves_the_others() -> None:
    """Of several engines in a process only the one that crashes is gone."""
    fault = '{"kind":"crash","path":"/v1/completions"}'
    with started([*MODULE, "--count", "2", "--fault", fault], 2) as (process, urls):
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{urls[0]}/v1/completions", json={"prompt": "x"})
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{urls[0]}/health")
        assert httpx.get(f"{urls[1]}/health").status_code == 200
        assert process.poll() is None


@pytest.mark.parametrize("command", [MODULE, CLI], ids=["module", "cli"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--max-running", "0"], "max_running must be at least 1"),
        (["--port", "65535", "--count", "2"], "are not all ports"),
        (["--fault", '{"kind":"nope"}'], "kinds are latency, stall"),
        (["--fault", "nope"], "--fault nope: json is malformed"),
        (["--tls-cert", "cert.pem"], "both a certificate and a key"),
    ],
    ids=["settings", "ports", "fault", "json", "tls"],
)
def test_settings_that_cannot_be(command: list[str], options: list[str], says: str) -> None:
    """Wrong settings end with exit code 2 and the reason, before anything listens."""
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_port_that_is_taken() -> None:
    """A port in use ends with exit code 2 and the reason."""
    with started(MODULE, 1) as (_, (url,)):
        port = url.rsplit(":", 1)[1]
        done = subprocess.run([*MODULE, "--port", port], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: cannot listen on 127.0.0.1: address already in use" in done.stderr
