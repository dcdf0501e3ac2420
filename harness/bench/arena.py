"""Upstreams and contestants as processes, up and answering before anything is measured, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence

import httpx

from harness.bench.cases import PATH, PROMPT
from harness.bench.contestants import Contestant, Ground
from harness.fleet.child import Child, ChildFailed
from harness.fleet.ports import HOST, free_ports

UPSTREAMS = 2
READY_S = 40.0
"""Time that a gateway has until it answers; some register their workers for seconds."""
POLL_S = 0.2
ASK_S = 5.0


@contextlib.contextmanager
def tidy_end() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, so that nothing that it started or made stays behind. In the main thread only."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def upstreams(folder: pathlib.Path, prefix: Sequence[str] = ()) -> Iterator[list[tuple[str, Child]]]:
    """Run the upstreams; gives the URL and process of each.

    Raises:
        ChildFailed: one did not start.
    """
    with contextlib.ExitStack() as stack:
        running = []
        for number, port in enumerate(free_ports(UPSTREAMS), 1):
            command = [*prefix, sys.executable, "-m", "harness.bench.upstream", str(port)]
            child = stack.enter_context(Child(f"upstream {number}", command, folder / f"upstream-{number}.log"))
            child.wait_healthy(f"http://{HOST}:{port}/health", READY_S)
            running.append((f"http://{HOST}:{port}", child))
        yield running


@contextlib.contextmanager
def contestant(of: Contestant, ground: Ground, prefix: Sequence[str] = ()) -> Iterator[Child]:
    """Run a contestant; it answers whole and as a stream once this is entered.

    Raises:
        ChildFailed: it did not start, or does not answer.
    """
    child = Child(of.name, [*prefix, *of.command(ground)], ground.folder / f"{of.name}.log")
    try:
        _wait_answering(child, ground.port)
        yield child
    finally:
        child.stop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what a launcher left behind; a child leads a group of its own


def _wait_answering(child: Child, port: int) -> None:
    until_s = time.monotonic() + READY_S
    wrong = "no answer"
    with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=ASK_S, trust_env=False) as client:
        while child.running and time.monotonic() < until_s:
            wrong = trouble(client)
            if not wrong:
                return
            time.sleep(POLL_S)
    raise ChildFailed(f"{child.name} {'does not answer' if child.running else 'ended'} ({wrong}); the end of its log:\n{child.tail()}")


def trouble(client: httpx.Client) -> str:
    """Ask once whole and once for a stream; say what is wrong with the answers, nothing if they are right."""
    try:
        whole = client.post(PATH, json=PROMPT)
        if whole.status_code != 200 or not whole.json()["choices"][0]["message"]["content"]:
            return f"status {whole.status_code} of a whole answer"
        stream = client.post(PATH, json={**PROMPT, "stream": True})
        if stream.status_code != 200 or not stream.text.endswith("data: [DONE]\n\n"):
            return f"status {stream.status_code} of a stream, or no end mark"
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
