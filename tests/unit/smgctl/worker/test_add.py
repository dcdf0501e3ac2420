import json

import pytest

from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


def test_a_worker_is_added(smgctl: Smgctl, plane: ControlPlane) -> None:
    """Only what was given is sent; the gateway's defaults hold for the rest."""
    result = smgctl("worker", "add", "http://a:1")
    assert (result.exit_code, result.output, result.errors) == (0, "added http://a:1 as w1\n", "")
    assert plane.asked[0].json == {"url": "http://a:1"}


def test_every_setting_is_sent(smgctl: Smgctl, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags become the keys of a worker in the configuration; the token comes from this shell's environment."""
    monkeypatch.setenv("ENGINE_KEY", "token")
    result = smgctl(
        "worker", "add", "https://a", "--model", "m", "--model", "n", "--engine", "sglang", "--priority", "80", "--cost", "2.5",
        "--label", "zone=a", "--label", "note=x=y", "--worker-key-env", "ENGINE_KEY",
    )  # fmt: skip
    assert result.exit_code == 0
    assert plane.asked[0].json == {
        "url": "https://a",
        "models": ["m", "n"],
        "engine": "sglang",
        "priority": 80,
        "cost": 2.5,
        "labels": {"zone": "a", "note": "x=y"},
        "api_key": "token",
    }


def test_it_waits_until_the_worker_is_ready(smgctl: Smgctl, plane: ControlPlane) -> None:
    """With --wait the command ends when requests can go there."""
    plane.after_each = lambda: [worker.update(status="ready") for worker in plane.workers]
    result = smgctl("worker", "add", "http://a:1", "--wait", "60")
    assert (result.exit_code, result.output) == (0, "added http://a:1 as w1: ready\n")


def test_a_worker_that_does_not_become_ready_is_1(smgctl: Smgctl, plane: ControlPlane) -> None:
    """It stays in the list, and the reason is said."""
    plane.after_each = lambda: [worker.update(status="failed", reason="connection refused") for worker in plane.workers]
    result = smgctl("worker", "add", "http://a:1", "--wait", "60")
    assert (result.exit_code, result.output) == (1, "added http://a:1 as w1: failed\n")
    assert result.errors == "error: http://a:1 is not ready after 60 s: connection refused\n"
    pending = Smgctl()("worker", "add", "http://a:1", "--wait", "0")
    assert (pending.exit_code, pending.errors) == (1, "error: http://a:1 is not ready after 0 s: it is pending\n")


def test_a_worker_that_exists_is_1(smgctl: Smgctl, plane: ControlPlane) -> None:
    """The gateway refuses a second one with the same URL."""
    plane.add("http://a:1")
    result = smgctl("worker", "add", "http://a:1")
    assert (result.exit_code, result.errors) == (1, "error: the worker http://a:1 exists already (WORKER_ALREADY_EXISTS)\n")


def test_the_answer_is_printed_as_json(smgctl: Smgctl) -> None:
    """Scripts get the id."""
    assert json.loads(smgctl("worker", "add", "http://a:1", "--json").output)["worker_id"] == "w1"


@pytest.mark.parametrize("label", ["zone", "=a", ""])
def test_a_label_is_key_and_value(smgctl: Smgctl, plane: ControlPlane, label: str) -> None:
    """Anything else is wrong usage, and nothing is sent."""
    result = smgctl("worker", "add", "http://a:1", "--label", label)
    assert (result.exit_code, plane.asked) == (2, [])
    assert "is not KEY=VALUE" in result.errors


def test_a_variable_that_is_not_set_is_2(smgctl: Smgctl, plane: ControlPlane) -> None:
    """A worker without its token would only be refused there."""
    result = smgctl("worker", "add", "http://a:1", "--worker-key-env", "NO_SUCH_VARIABLE")
    assert (result.exit_code, plane.asked) == (2, [])
    assert result.errors == "error: the environment variable NO_SUCH_VARIABLE is not set\n"
