"""Children are real processes: waited for, stopped in time, never left behind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from harness.fleet import child as module
from harness.fleet.child import Child, ChildFailed
from harness.fleet.ports import free_ports

SERVER = (
    "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()"
)


def python(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-u", "-c", text, *arguments]


def test_a_healthy_child_is_waited_for_and_stopped(tmp_path: pathlib.Path) -> None:
    """It runs when `wait_healthy` returns, and is gone after the block; its output is in its log."""
    port = free_ports(1)[0]
    with Child("web", python(SERVER, str(port)), tmp_path / "logs" / "web.log") as one:
        one.wait_healthy(f"http://127.0.0.1:{port}/", 20)
        assert one.running and repr(one) == f"<Child web pid={one.pid} running>"
    assert not one.running and one.stop() == -signal.SIGTERM
    assert "GET / HTTP/1.1" in one.tail()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 2)


def test_a_child_that_ends_is_told_with_its_last_words(tmp_path: pathlib.Path) -> None:
    """The failure names the exit code and holds the end of the log."""
    with Child("bad", python("print('no model here'); raise SystemExit(7)"), tmp_path / "bad.log") as one:
        with pytest.raises(ChildFailed, match="bad ended with exit code 7") as caught:
            one.wait_healthy(f"http://127.0.0.1:{free_ports(1)[0]}/", 20)
        assert "no model here" in str(caught.value)


def test_a_child_that_is_never_healthy_is_stopped(tmp_path: pathlib.Path) -> None:
    """Waiting has an end, and leaves nothing running."""
    with Child("slow", python("import time; time.sleep(60)"), tmp_path / "slow.log") as one:
        with pytest.raises(ChildFailed, match=r"slow was not ready after 0\.2 s"):
            one.wait_healthy(f"http://127.0.0.1:{free_ports(1)[0]}/", 0.2)
        assert not one.running


def test_an_answer_that_is_not_200_is_not_healthy(tmp_path: pathlib.Path) -> None:
    """A server that is up but says no is waited for still."""
    port = free_ports(1)[0]
    with Child("web", python(SERVER, str(port)), tmp_path / "web.log") as one:
        one.wait_healthy(f"http://127.0.0.1:{port}/", 20)
        with pytest.raises(ChildFailed):
            one.wait_healthy(f"http://127.0.0.1:{port}/no-such-file", 0.3)


def test_waiting_can_be_given_up(tmp_path: pathlib.Path) -> None:
    """Who is told to stop does not wait for health; the child is stopped by leaving the block."""
    with Child("slow", python("import time; time.sleep(60)"), tmp_path / "slow.log") as one:
        one.wait_healthy(f"http://127.0.0.1:{free_ports(1)[0]}/", 60, lambda: True)
    assert not one.running


def test_a_deaf_child_is_killed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignoring SIGTERM helps for a while only."""
    monkeypatch.setattr(module, "KILL_AFTER_S", 0.2)
    port = free_ports(1)[0]
    text = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVER
    with Child("deaf", python(text, str(port)), tmp_path / "deaf.log") as one:
        one.wait_healthy(f"http://127.0.0.1:{port}/", 20)
        assert one.stop() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="unproven: the kernel ends a child whose owner was killed (Linux alone does)")
def test_a_child_does_not_outlive_an_owner_that_was_killed(tmp_path: pathlib.Path) -> None:
    """No engine is left behind by a quick start that was killed."""
    text = (
        "import pathlib, sys, time\n"
        "from harness.fleet.child import Child\n"
        "one = Child('inner', [sys.executable, '-c', 'import time; time.sleep(120)'], pathlib.Path(sys.argv[1]))\n"
        "print(one.pid, flush=True)\n"
        "time.sleep(120)\n"
    )
    with subprocess.Popen(python(text, str(tmp_path / "inner.log")), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        inner = int(owner.stdout.readline())
        os.kill(inner, 0)
        owner.kill()
        owner.wait()
    until_s = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until_s:
            os.kill(inner, 0)
            if _is_zombie(inner):
                return
            time.sleep(0.02)
        pytest.fail("the child outlived its owner")


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
