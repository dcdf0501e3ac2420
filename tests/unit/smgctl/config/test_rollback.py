import json

from gateway.config.load import ConfigSource
from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


def test_the_configuration_before_comes_back(smgctl: Smgctl, plane: ControlPlane) -> None:
    """As a new version, with the difference."""
    plane.versions.append(ConfigSource().load_text("retry: {max_attempts: 2}"))
    result = smgctl("config", "rollback")
    assert (result.exit_code, result.output) == (
        0,
        "PATH                BEFORE  AFTER\nretry.max_attempts  2       4\n\napplied as version 3\n",
    )


def test_without_a_version_before_it_is_1(smgctl: Smgctl) -> None:
    """The gateway refuses."""
    result = smgctl("config", "rollback")
    assert (result.exit_code, result.errors) == (1, "error: there is no version before 1 to go back to (conflict)\n")


def test_the_result_is_printed_as_json(smgctl: Smgctl, plane: ControlPlane) -> None:
    """Version and changes."""
    plane.versions.append(ConfigSource().load_text("retry: {max_attempts: 2}"))
    assert json.loads(smgctl("config", "rollback", "--json").output)["version"] == 3
