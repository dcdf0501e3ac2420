import json
import pathlib

import pytest

from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


@pytest.fixture
def file(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "smg.yaml"
    path.write_text("workers: [{url: 'http://a:1', cost: 2}]\nrouting: {policy: random}\n")
    return str(path)


CHANGES = (
    "PATH            BEFORE       AFTER\n"
    "workers[0]      -            url=http://a:1 cost=2.0\n"
    "routing.policy  cache_aware  random\n"
)  # fmt: skip


def test_a_configuration_is_applied(smgctl: Smgctl, plane: ControlPlane, file: str) -> None:
    """The difference is shown, then the version that is in force now."""
    result = smgctl("config", "apply", file)
    assert (result.exit_code, result.output) == (0, f"{CHANGES}\napplied as version 2\n")
    assert plane.versions[-1].routing.policy == "random"


def test_a_dry_run_changes_nothing(smgctl: Smgctl, plane: ControlPlane, file: str) -> None:
    """The difference alone."""
    result = smgctl("config", "apply", file, "--dry-run")
    assert (result.exit_code, result.output) == (0, f"{CHANGES}\nnothing was changed, version 1 stays\n")
    assert len(plane.versions) == 1


def test_the_same_configuration_again_changes_nothing(smgctl: Smgctl, file: str) -> None:
    """There is no new version then."""
    smgctl("config", "apply", file)
    assert smgctl("config", "apply", file).output == "nothing to change, version 2 stays\n"


def test_a_mistake_is_2_and_named(smgctl: Smgctl, plane: ControlPlane) -> None:
    """The gateway's list of mistakes is shown, a line each."""
    result = smgctl("config", "apply", "-", stdin="a: 1\nretry: {max_attempts: 0}\n")
    assert (result.exit_code, result.output, len(plane.versions)) == (2, "", 1)
    shown = result.errors.splitlines()
    assert shown[0].startswith("stdin:1: a: unknown key")
    assert shown[1] == "stdin:2: retry.max_attempts: must be greater than or equal to 1, not 0"
    assert shown[2] == "error: 2 mistakes in the configuration"


def test_a_mistake_is_named_with_its_file(smgctl: Smgctl, file: str) -> None:
    """The gateway does not know the file's name; the command does."""
    pathlib.Path(file).write_text("routing: {polcy: random}\n")
    assert smgctl("config", "apply", file).errors.startswith(f"{file}:1: routing.polcy: unknown key")


def test_the_result_is_printed_as_json(smgctl: Smgctl, file: str) -> None:
    """Version, whether it was applied, and the changes."""
    shown = json.loads(smgctl("config", "apply", file, "--json").output)
    assert (shown["version"], shown["applied"], [change["path"] for change in shown["changes"]]) == (
        2,
        True,
        ["workers[0]", "routing.policy"],
    )


def test_a_file_that_cannot_be_read_is_2(smgctl: Smgctl, plane: ControlPlane, tmp_path: pathlib.Path) -> None:
    """Nothing is sent then."""
    result = smgctl("config", "apply", "/nonexistent.yaml")
    assert (result.exit_code, result.errors) == (2, "error: cannot read /nonexistent.yaml: no such file or directory\n")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"\xe9")
    assert smgctl("config", "apply", str(path)).errors == f"error: {path} is not UTF-8\n"
    assert plane.asked == []
