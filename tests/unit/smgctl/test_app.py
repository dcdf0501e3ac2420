import subprocess
import sys

import httpx
import pytest

from gateway.errors import ConfigError
from smgctl.app import DEFECT, explain
from smgctl.output import Output
from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


def test_without_arguments_the_help_is_shown(smgctl: Smgctl) -> None:
    """A newcomer sees what there is, and what to type first."""
    result = smgctl()
    shown = smgctl("--help")
    assert shown.exit_code == 0
    assert (result.output + result.errors).strip() == shown.output.strip()
    for said in ("serve", "status", "worker", "config", "Examples:", "smgctl serve --worker-url http://127.0.0.1:8000"):
        assert said in shown.output


def test_the_version_is_printed(smgctl: Smgctl) -> None:
    """`--version` says name and version."""
    result = smgctl("--version")
    assert (result.exit_code, result.output.split()[0]) == (0, "smgctl")


@pytest.mark.parametrize("args", [("nonsense",), ("worker", "lst"), ("worker", "show"), ("serve", "--port", "many"), ("status", "--nope")])
def test_wrong_usage_is_2(smgctl: Smgctl, args: tuple[str, ...]) -> None:
    """What is not understood goes to stderr, with exit code 2."""
    result = smgctl(*args)
    assert (result.exit_code, result.output) == (2, "")
    assert "Usage: smgctl" in result.errors


def test_a_mistyped_command_is_suggested(smgctl: Smgctl) -> None:
    """The nearest command is named."""
    assert "'list'" in smgctl("worker", "lst").errors


def test_no_gateway_is_3() -> None:
    """What to do stands beside what happened."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    result = Smgctl(transport=httpx.MockTransport(refuse))("status", "--url", "http://10.0.0.1:1")
    assert (result.exit_code, result.output) == (3, "")
    assert result.errors == (
        "error: cannot reach the gateway at http://10.0.0.1:1: connection refused\n"
        "hint: start one with `smgctl serve`, or name another with --url or SMG_URL\n"
    )


def test_the_url_and_the_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """SMG_URL and SMG_API_KEY are what --url and --api-key are."""
    monkeypatch.setenv("SMG_API_KEY", "secret")
    monkeypatch.setenv("SMG_URL", "http://elsewhere:7")
    smgctl = Smgctl(ControlPlane(api_key="secret"))
    assert smgctl("worker", "list").exit_code == 0
    assert smgctl.plane.asked[0].headers["host"] == "elsewhere:7"


def test_a_key_that_does_not_fit_is_2() -> None:
    """A refused key is a matter of configuration, and the hint says where it goes."""
    result = Smgctl(ControlPlane(api_key="secret"))("worker", "list", "--api-key", "wrong")
    assert result.exit_code == 2
    assert result.errors == (
        "error: give a key with the role view or admin (unauthenticated)\nhint: give a key with --api-key or SMG_API_KEY\n"
    )


def test_what_is_no_url_is_2(smgctl: Smgctl) -> None:
    """A URL that cannot be one is refused before anything is sent."""
    result = smgctl("status", "--url", "127.0.0.1:30000")
    assert result.exit_code == 2
    assert result.errors == "error: the url of the gateway must begin with http:// or https://, not '127.0.0.1:30000'\n"


def test_a_defect_is_told_from_everything_else(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that nobody foresaw is shown with its lines, and has a code of its own."""
    assert explain(KeyError("x"), Output()) == DEFECT
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "KeyError: 'x'\nerror: this is a defect of smgctl; please report it with the lines above\n"


def test_a_configuration_error_without_problems_says_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Some mistakes are found when the gateway starts, one at a time."""
    assert explain(ConfigError("port 30000 is taken"), Output()) == 2
    assert capsys.readouterr().err == "error: port 30000 is taken\n"


def test_help_is_quick() -> None:
    """No command's work is imported before the command runs."""
    code = (
        "import sys; from smgctl.app import run; run(['--help']); "
        "sys.exit(sum(name in sys.modules for name in ('httpx', 'pydantic', 'gateway.app', 'uvicorn', 'gateway.config.model', 'yaml')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=60, check=False).returncode == 0
