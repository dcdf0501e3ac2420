import json

import pytest

from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


@pytest.mark.parametrize("worker", ["w1", "http://a:1", "a:1"])
def test_a_worker_is_shown(smgctl: Smgctl, plane: ControlPlane, worker: str) -> None:
    """By id, by URL, or by URL without the scheme."""
    plane.add("http://a:1", labels={"zone": "a", "tier": "gold"}, models=[{"name": "m"}, {"name": "lora", "parent": "m"}])
    result = smgctl("worker", "show", worker)
    assert result.exit_code == 0
    assert result.output == (
        "id:       w1\n"
        "url:      http://a:1\n"
        "status:   ready\n"
        "reason:   -\n"
        "engine:   vllm 0.32.0\n"
        "models:   m,lora\n"
        "load:     0\n"
        "breaker:  closed\n"
        "priority: 50\n"
        "cost:     1\n"
        "labels:   zone=a,tier=gold\n"
        "source:   config\n"
    )


def test_a_worker_is_printed_as_json(smgctl: Smgctl, plane: ControlPlane) -> None:
    """One object with every field."""
    plane.add("http://a:1")
    assert json.loads(smgctl("worker", "show", "w1", "--json").output)["models"] == [{"name": "m", "context_length": 8192}]


def test_a_worker_that_is_not_there_is_1(smgctl: Smgctl) -> None:
    """The gateway was asked and says no."""
    result = smgctl("worker", "show", "http://a:1")
    assert (result.exit_code, result.output) == (1, "")
    assert result.errors == "error: no worker has the id or url http://a:1 (worker_not_found)\n"
