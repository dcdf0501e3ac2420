import json
import pathlib

import pytest

from gateway.config.load import ConfigSource
from gateway.config.mask import MASK, masked
from gateway.config.show import to_yaml
from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


def test_the_configuration_of_a_gateway_is_shown(smgctl: Smgctl, plane: ControlPlane) -> None:
    """Every key with its value, and above them the version in force."""
    plane.versions.append(ConfigSource().load_text("workers: [{url: 'http://a', api_key: secret}]"))
    result = smgctl("config", "show")
    assert result.exit_code == 0
    assert result.output == f"# version 2, from start\n{to_yaml(plane.versions[-1])}"
    assert "secret" not in result.output
    assert MASK in result.output


def test_the_version_is_part_of_the_json(smgctl: Smgctl, plane: ControlPlane) -> None:
    """Version, source and configuration, for other programs."""
    shown = json.loads(smgctl("config", "show", "--json").output)
    assert (shown["version"], shown["source"], shown["config"]) == (1, "start", masked(plane.versions[0]))


def test_what_a_file_would_bring_is_shown(smgctl: Smgctl, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment and defaults together; no gateway is asked."""
    path = tmp_path / "smg.yaml"
    path.write_text("server: {port: 1}\n")
    monkeypatch.setenv("SMG_HOST", "127.0.0.9")
    result = smgctl("config", "show", "--config", str(path))
    assert (result.exit_code, smgctl.plane.asked) == (0, [])
    assert result.output.startswith("server:\n  host: 127.0.0.9\n  port: 1\n  metrics_host: null\n  metrics_port: 29000\n")
    shown = json.loads(smgctl("config", "show", "-c", str(path), "--json").output)
    assert (shown["server"]["port"], shown["retry"]["max_attempts"]) == (1, 4)


def test_a_file_with_a_mistake_is_2(smgctl: Smgctl, tmp_path: pathlib.Path) -> None:
    """What would not start is not shown."""
    path = tmp_path / "smg.yaml"
    path.write_text("server: {port: x}\n")
    result = smgctl("config", "show", "--config", str(path))
    assert (result.exit_code, result.output) == (2, "")
