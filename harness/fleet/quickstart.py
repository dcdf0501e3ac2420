"""`make serve`: two engines and a gateway before them, for a first look; `python -m harness.fleet.quickstart`.

The engines are real (llama.cpp on the CPU), or simulated ones where that is asked for or the real ones cannot run here; the
latter is said aloud. All three are child processes with a log under `.run/`; Ctrl-C or SIGTERM stops the gateway, then the
engines. If one of them ends by itself, the others are stopped too, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import shlex
import signal
import sys
import threading
from collections.abc import Sequence

from harness.fleet import llamacpp
from harness.fleet.child import Child, ChildFailed
from harness.fleet.ports import HOST, free_ports, trouble_with

ENGINES = 2
PORT = 30_000
METRICS_APART = 1_000
"""The metrics port lies this far below the port, or above it where there is no room below: 29000 beside 30000."""
READY_S = 120.0
"""Time that an engine or the gateway has to become ready."""
SIM_FLAVOURS = ("vllm", "sglang")
SIM_MODEL = "sim-model"
QUESTION = "Explain what a computer network is, in two sentences."
"""One that a model of 135 million parameters answers sensibly."""
MAX_TOKENS = 100
TEMPERATURE = 0.2


def say(text: str = "") -> None:
    """Write a line for the person at the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Start everything, tell how to use it, and stay until a signal comes or a child ends."""
    parser = argparse.ArgumentParser(prog="make serve", description="Two engines on the CPU and a gateway before them.")
    parser.add_argument("--engine", choices=("llamacpp", "sim"), default="llamacpp")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--run-dir", type=pathlib.Path, default=pathlib.Path(".run"), help="where the logs go")
    given = parser.parse_args(arguments)
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    if (taken := trouble_with(given.port)) is not None:
        say(f"port {given.port} of {HOST} cannot be used ({taken}); choose another: make serve PORT=30010")
        return 2
    try:
        with contextlib.ExitStack() as stack:
            return _run(given.engine, given.port, given.run_dir, stack, stopped)
    except ChildFailed as failed:
        say(str(failed))
        return 1


def _run(kind: str, port: int, logs: pathlib.Path, stack: contextlib.ExitStack, stopped: threading.Event) -> int:
    children: list[Child] = []
    urls: list[str] = []
    model = ""
    if kind == "llamacpp":
        try:
            children, urls = _real_engines(logs, stack, stopped)
            model = llamacpp.MODEL
        except ChildFailed as failed:
            say(f"NOTICE: no real engine can run here: {failed}")
            say("NOTICE: SIMULATED engines take their place; what they answer comes from no model.")
            kind = "sim"
    if kind == "sim":
        children, urls = _simulated_engines(logs, stack, stopped)
        model = SIM_MODEL
    if stopped.is_set():
        return 0
    say(f"starting the gateway on http://{HOST}:{port}")
    command = [sys.executable, "-P", "-m", "smgctl", "serve", "--host", HOST, "--port", str(port)]
    command += ["--metrics-port", str(metrics_port(port))]
    for url in urls:
        command += ["--worker-url", url]
    gateway = stack.enter_context(Child("the gateway", command, logs / "gateway.log"))
    gateway.wait_healthy(f"http://{HOST}:{port}/readiness", READY_S, stopped.is_set)
    children.append(gateway)
    if not stopped.is_set():
        say(how_to_use(port, model, simulated=kind == "sim", logs=logs))
    while not stopped.wait(0.5):
        for child in children:
            if not child.running:
                say(f"{child.name} ended; the end of {child.log}:\n{child.tail()}")
                return 1
    say("\nstopping the gateway and its engines")
    return 0


def _real_engines(logs: pathlib.Path, stack: contextlib.ExitStack, stopped: threading.Event) -> tuple[list[Child], list[str]]:
    if (wheel := llamacpp.missing()) is not None:
        raise ChildFailed(f"the wheel {wheel} is not installed")
    say(f"starting {ENGINES} llama.cpp servers with {llamacpp.MODEL} on the CPU")
    with contextlib.ExitStack() as attempt:
        started = []
        for number, port in enumerate(free_ports(ENGINES), 1):
            child = Child(f"engine {number}", llamacpp.command(port), logs / f"engine-{number}.log")
            started.append((attempt.enter_context(child), port))
        for child, port in started:
            child.wait_healthy(f"http://{HOST}:{port}{llamacpp.HEALTH_PATH}", READY_S, stopped.is_set)
        stack.push(attempt.pop_all())
    return [child for child, _ in started], [f"http://{HOST}:{port}" for _, port in started]


def _simulated_engines(logs: pathlib.Path, stack: contextlib.ExitStack, stopped: threading.Event) -> tuple[list[Child], list[str]]:
    say(f"starting {len(SIM_FLAVOURS)} simulated engines ({' and '.join(SIM_FLAVOURS)})")
    children, urls = [], []
    for number, (flavour, port) in enumerate(zip(SIM_FLAVOURS, free_ports(len(SIM_FLAVOURS)), strict=True), 1):
        command = [sys.executable, "-m", "harness.sim", "--flavour", flavour, "--port", str(port), "--model", SIM_MODEL]
        child = stack.enter_context(Child(f"simulated engine {number}", command, logs / f"engine-{number}.log"))
        child.wait_healthy(f"http://{HOST}:{port}/health", READY_S, stopped.is_set)
        children.append(child)
        urls.append(f"http://{HOST}:{port}")
    return children, urls


def how_to_use(port: int, model: str, *, simulated: bool, logs: pathlib.Path) -> str:
    """The text that is printed when everything is up; both commands in it work as they stand."""
    base = f"http://{HOST}:{port}"
    return f"""\
ready. {"The engines are SIMULATED: what they answer comes from no model." if simulated else f"A real model answers: {model}."}

ask with curl:

curl -s {base}/v1/chat/completions -H 'content-type: application/json' \\
  -d '{{"model": "{model}", "max_tokens": {MAX_TOKENS}, "temperature": {TEMPERATURE},
       "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'

or with the OpenAI SDK, as a stream:

{shlex.quote(sys.executable)} - <<'END'
from openai import OpenAI

client = OpenAI(base_url="{base}/v1", api_key="none")
stream = client.chat.completions.create(
    model="{model}", max_tokens={MAX_TOKENS}, temperature={TEMPERATURE}, stream=True,
    messages=[{{"role": "user", "content": "{QUESTION}"}}],
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
print()
END

workers: {shlex.quote(str(pathlib.Path(sys.executable).with_name("smgctl")))} worker list{"" if port == PORT else f" --url {base}"}
metrics: http://{HOST}:{metrics_port(port)}/metrics
logs:    {logs}/
Ctrl-C stops everything."""


def metrics_port(port: int) -> int:
    """The port of `/metrics` beside a gateway's port."""
    return port - METRICS_APART if port > 2 * METRICS_APART else port + METRICS_APART


if __name__ == "__main__":
    sys.exit(main())
