import json

from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


def test_workers_are_listed(smgctl: Smgctl, plane: ControlPlane) -> None:
    """A line a worker, aligned."""
    plane.add("http://127.0.0.1:8000", load=3)
    plane.add(
        "https://engine.internal", status="not_ready", engine="sglang", models=[], breaker="open", priority=80, cost=2.5,
        reason="3 checks failed: connection refused",
    )  # fmt: skip
    result = smgctl("worker", "list")
    assert result.exit_code == 0
    assert result.output == (
        "URL                      STATUS     ENGINE  MODELS  LOAD  PRIORITY  COST  BREAKER  ID  REASON\n"
        "http://127.0.0.1:8000    ready      vllm    m       3     50        1     closed   w1  -\n"
        "https://engine.internal  not_ready  sglang  -       0     80        2.5   open     w2  3 checks failed: connection refused\n"
    )


def test_an_engine_is_not_named_before_it_is_known(smgctl: Smgctl, plane: ControlPlane) -> None:
    """A worker that has never answered is shown without an engine, though the gateway reports its fallback."""
    plane.add("http://a:1", status="pending", engine="openai", version="", models=[])
    plane.add("http://b:1", status="ready", engine="openai", models=[])
    assert [line.split()[2] for line in smgctl("worker", "list").output.splitlines()[1:]] == ["-", "openai"]
    assert "engine:   -" in smgctl("worker", "show", "http://a:1").output


def test_only_the_workers_of_a_model(smgctl: Smgctl, plane: ControlPlane) -> None:
    """The gateway is asked for one model."""
    plane.add("http://a:1")
    plane.add("http://b:1", models=[{"name": "other"}])
    result = smgctl("worker", "list", "--model", "other")
    assert [line.split()[0] for line in result.output.splitlines()] == ["URL", "http://b:1"]
    assert smgctl("worker", "list", "--model", "none").output == "no worker serves none\n"


def test_no_workers(smgctl: Smgctl) -> None:
    """An empty list says so in words, and as JSON is an empty list."""
    assert smgctl("worker", "list").output == "no workers\n"
    assert json.loads(smgctl("worker", "list", "--json").output) == {"workers": [], "total": 0, "stats": {"ready": 0}}


def test_workers_are_printed_as_json(smgctl: Smgctl, plane: ControlPlane) -> None:
    """The list of the gateway, for other programs."""
    plane.add("http://a:1", labels={"zone": "a"})
    shown = json.loads(smgctl("worker", "list", "--json").output)
    assert (shown["total"], shown["workers"][0]["url"], shown["workers"][0]["labels"]) == (1, "http://a:1", {"zone": "a"})
