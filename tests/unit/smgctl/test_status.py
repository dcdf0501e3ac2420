import json

from smgctl.status import moment
from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


def test_the_state_is_shown(smgctl: Smgctl, plane: ControlPlane) -> None:
    """The gateway first, then a line for each process."""
    plane.add("http://a:1")
    result = smgctl("status")
    assert result.exit_code == 0
    assert result.output == (
        "state:         serving\n"
        "started:       2023-11-14 22:13:20Z\n"
        "configuration: version 1 from start\n"
        "workers:       1 ready\n"
        "last error:    -\n"
        "\n"
        "PROCESS     PID  STATE       RESTARTS  CONFIG  SINCE                 REASON\n"
        "supervisor  100  ready       0         1       2023-11-14 22:13:20Z  -\n"
        "0           101  restarting  2         1       -                     killed\n"
    )


def test_the_state_is_printed_as_json(smgctl: Smgctl) -> None:
    """Every field is there for other programs."""
    shown = json.loads(smgctl("status", "--json").output)
    assert (shown["state"], shown["config_version"], shown["processes"][1]["restarts"]) == ("serving", 1, 2)


def test_a_moment_is_written_in_utc() -> None:
    """Unknown times are empty."""
    assert (moment(0), moment(1_700_000_000.9)) == ("", "2023-11-14 22:13:20Z")
