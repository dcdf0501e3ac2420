import json
import pathlib

import pytest

from tests.support.cli import Smgctl


@pytest.fixture
def good(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "smg.yaml"
    path.write_text("workers: [{url: 'http://a:1'}, {url: 'http://b:1'}]\ndiscovery: [{kind: file, path: w.yaml}]\n")
    return str(path)


def test_a_right_configuration_is_0(smgctl: Smgctl, good: str) -> None:
    """One line says what it would start."""
    result = smgctl("config", "check", good)
    assert (result.exit_code, result.errors) == (0, "")
    assert result.output == f"{good}: ok, 2 workers, 1 discovery source, policy cache_aware, listens on 127.0.0.1:30000\n"


def test_every_mistake_is_named_and_the_code_is_2(smgctl: Smgctl, tmp_path: pathlib.Path) -> None:
    """Lines are those of the file; the count comes last."""
    path = tmp_path / "smg.yaml"
    path.write_text("server:\n  prot: 1\n  port: 70000\nworkers:\n  - url: http://a\n  - url: http://a\n")
    result = smgctl("config", "check", str(path))
    assert (result.exit_code, result.output) == (2, "")
    assert result.errors.splitlines() == [
        f"{path}:2: server.prot: unknown key; did you mean `port`?",
        f"{path}:3: server.port: must be less than or equal to 65535, not 70000",
        f"{path}:6: workers[1].url: is the same worker as workers[0]",
        "error: 3 mistakes in the configuration",
    ]


def test_hints_do_not_fail_the_check(smgctl: Smgctl, tmp_path: pathlib.Path) -> None:
    """What works but is probably not meant goes to stderr."""
    path = tmp_path / "smg.yaml"
    path.write_text("server: {port: 1}\n")
    result = smgctl("config", "check", str(path))
    assert (result.exit_code, result.output) == (
        0,
        f"{path}: ok, 0 workers, 0 discovery sources, policy cache_aware, listens on 127.0.0.1:1\n",
    )
    assert result.errors == "hint: there is no worker and no discovery; add workers with `smgctl worker add URL`\n"


def test_standard_input_is_checked(smgctl: Smgctl) -> None:
    """Mistakes call it stdin."""
    assert smgctl("config", "check", "-", stdin="workers: [{url: 'http://a'}]").output.startswith("stdin: ok, 1 worker, ")
    result = smgctl("config", "check", "-", stdin="workers: [{url: a}]")
    assert (result.exit_code, result.errors.splitlines()[0]) == (2, "stdin:1: workers[0].url: has no scheme; did you mean http://a?")


def test_the_verdict_is_printed_as_json(smgctl: Smgctl, good: str, tmp_path: pathlib.Path) -> None:
    """The exit code is the same as without --json."""
    assert json.loads(smgctl("config", "check", good, "--json").output) == {"ok": True, "problems": [], "hints": []}
    path = tmp_path / "bad.yaml"
    path.write_text("a: 1\n")
    result = smgctl("config", "check", str(path), "--json")
    assert (result.exit_code, result.errors) == (2, "")
    shown = json.loads(result.output)
    assert (shown["ok"], len(shown["problems"])) == (False, 1)


def test_a_missing_file_is_2(smgctl: Smgctl) -> None:
    """There is nothing to check."""
    result = smgctl("config", "check", "/nonexistent.yaml")
    assert (result.exit_code, result.errors.splitlines()[0]) == (2, "/nonexistent.yaml: no such file")
