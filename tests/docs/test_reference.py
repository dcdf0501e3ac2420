"""What is written about the gateway is what the code says."""

import json
import pathlib
import re

import pytest

from docs.generate import FOLDER, PAGES, main, stale
from docs.pages import cli, errors
from gateway.config import env
from gateway.config.model import GatewayConfig
from gateway.config.schema import json_schema
from gateway.errors import Code
from smgctl.app import app

ROOT = pathlib.Path(__file__).parents[2]
COMMANDS = list(cli.walk(cli.root_of(app), "smgctl"))


def page(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def test_the_reference_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody changed the code without `python -m docs.generate`."""
    assert stale() == []
    assert main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_else_lies_there() -> None:
    """A page that no longer has a writer is noticed."""
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_every_command_and_flag_is_described(path: str, command: object) -> None:
    """Each command has a section with all that it takes, and a sentence of help for each."""
    (section,) = re.findall(rf"^## {re.escape(path)}\n(.*?)(?=^## |\Z)", page("cli.md"), re.M | re.S)
    assert command.help  # type: ignore[attr-defined]
    for param in command.params:  # type: ignore[attr-defined]
        if param.param_type_name == "option" and param.name != "help":
            assert param.help, f"{path} {param.opts} has no help"
            assert all(f"{name} " in section or f"{name}`" in section or f"{name}," in section for name in param.opts), param.opts


def test_the_fixed_commands_and_flags_exist() -> None:
    """Scripts and benchmarks use these names; they do not change."""
    commands = dict(COMMANDS)
    assert {
        "smgctl serve", "smgctl worker list", "smgctl worker show", "smgctl worker add", "smgctl worker remove", "smgctl worker drain",
        "smgctl config check", "smgctl config show", "smgctl config schema", "smgctl config apply",
    } <= set(commands)  # fmt: skip
    flags = {name for param in commands["smgctl serve"].params for name in param.opts}
    assert {
        "--config", "-c", "--worker-url", "--policy", "--host", "--port", "--metrics-port", "--processes", "--model-path", "--log-level",
        "--log-json", "--api-key",
    } <= flags  # fmt: skip
    assert all(
        "--json" in [name for param in commands[path].params for name in param.opts]
        for path in ("smgctl worker list", "smgctl worker show", "smgctl status", "smgctl config show")
    )


def test_every_key_is_described() -> None:
    """Each key of each section stands in the page with a sentence."""
    text = page("config.md")
    for name, section in {"": GatewayConfig.model_json_schema(), **json_schema()["$defs"]}.items():
        for key, node in section.get("properties", {}).items():
            assert f"| `{key}` |" in text, f"{name}.{key}"
            assert node.get("description") or "$ref" in node or name in ("", "WorkerTemplate"), f"{name}.{key} says nothing"
    assert "|  |\n" not in text.replace("| variable | key | means |", ""), "a key without a sentence"


def test_every_variable_is_described() -> None:
    """Each `SMG_*` variable stands in the page."""
    text = page("config.md")
    assert [name for name in [*env.variables(), *env.OTHER] if f"`{name}`" not in text] == []


def test_every_code_is_described() -> None:
    """Each error code has a sentence under it in the code, and so in the page."""
    assert set(errors.docstrings()) == {code.name for code in Code}
    assert all(f"| `{code.value}` | " in page("errors.md") for code in Code)


def test_the_schema_is_that_of_the_gateway() -> None:
    """Editors that use the file from the repository see the same."""
    assert json.loads(page("config.schema.json")) == json_schema()


@pytest.mark.parametrize("path", [path for path, command in COMMANDS if not getattr(command, "commands", None)])
def test_the_path_of_a_command_is_the_path_of_its_file(path: str) -> None:
    """`smgctl worker list` is smgctl/worker/list.py, and its tests are where they are looked for."""
    *groups, name = path.replace("-", "_").split()[1:]
    assert ROOT.joinpath("smgctl", *groups, f"{name}.py").exists()
    tests = ROOT.joinpath("tests", "unit", "smgctl", *groups, f"test_{name}.py")
    assert tests.exists() or groups == ["sim"], "simulated engines are tested as processes, in tests/integration/harness/sim"
