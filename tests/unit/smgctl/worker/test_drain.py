import json

from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


def test_a_worker_drains(smgctl: Smgctl, plane: ControlPlane) -> None:
    """It is found by URL and drained by id."""
    plane.add("http://a:1", load=4)
    result = smgctl("worker", "drain", "http://a:1")
    assert (result.exit_code, result.output) == (0, "http://a:1 drains, 4 in flight\n")
    assert (plane.asked[-1].method, plane.asked[-1].path) == ("POST", "/workers/w1/drain")
    assert plane.workers[0]["status"] == "draining"


def test_the_answer_is_printed_as_json(smgctl: Smgctl, plane: ControlPlane) -> None:
    """What the gateway accepted."""
    plane.add("http://a:1")
    assert json.loads(smgctl("worker", "drain", "w1", "--json").output)["status"] == "accepted"


def test_a_worker_that_is_not_there_is_1(smgctl: Smgctl, plane: ControlPlane) -> None:
    """Nothing is drained then."""
    result = smgctl("worker", "drain", "w9")
    assert (result.exit_code, result.errors) == (1, "error: no worker has the id or url w9 (worker_not_found)\n")
    assert [asked.method for asked in plane.asked] == ["GET"]
