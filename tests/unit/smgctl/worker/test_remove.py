import json

from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


def test_a_worker_is_removed(smgctl: Smgctl, plane: ControlPlane) -> None:
    """It drains first; the command does not wait unless asked to."""
    plane.add("http://a:1", load=2)
    result = smgctl("worker", "remove", "a:1")
    assert (result.exit_code, result.output) == (0, "http://a:1 drains and leaves, 2 in flight\n")
    assert (plane.asked[-1].method, plane.asked[-1].path) == ("DELETE", "/workers/w1")


def test_it_waits_until_the_worker_has_left(smgctl: Smgctl, plane: ControlPlane) -> None:
    """With --wait the command ends when the worker is gone."""
    plane.add("http://a:1")
    plane.after_each = lambda: plane.workers.clear() if plane.asked[-1].method == "DELETE" else None
    result = smgctl("worker", "remove", "w1", "--wait", "60")
    assert (result.exit_code, result.output) == (0, "removed http://a:1\n")


def test_a_worker_that_does_not_leave_is_1(smgctl: Smgctl, plane: ControlPlane) -> None:
    """It goes on draining, and the command says what it waits for."""
    plane.add("http://a:1", load=5)
    result = smgctl("worker", "remove", "w1", "--wait", "0")
    assert (result.exit_code, result.output) == (1, "http://a:1 drains and leaves, 5 in flight\n")
    assert result.errors == "error: http://a:1 has not left after 0 s: 5 in flight\n"


def test_the_answer_is_printed_as_json(smgctl: Smgctl, plane: ControlPlane) -> None:
    """What the gateway accepted."""
    plane.add("http://a:1")
    assert json.loads(smgctl("worker", "remove", "w1", "--json").output)["worker_id"] == "w1"
