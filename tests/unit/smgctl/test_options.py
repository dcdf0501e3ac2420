import types

import pytest
import typer

from smgctl.config import app as config_app
from smgctl.options import complete_worker, examples
from smgctl.serve import complete_level, complete_policy
from smgctl.worker import app as worker_app


def test_examples_stand_a_line_each() -> None:
    """The help shows one command a line."""
    assert examples("a", "b") == "Examples:\n\na\n\nb"


@pytest.mark.parametrize("app", [worker_app, config_app])
def test_every_command_has_an_example(app: typer.Typer) -> None:
    """A newcomer can copy a line from each help."""
    assert all(command.epilog and command.epilog.startswith("Examples:\n\nsmgctl ") for command in app.registered_commands)


def test_policies_and_levels_are_completed() -> None:
    """What was typed narrows the list."""
    assert complete_policy("p") == ["power_of_two", "prefix_hash", "passthrough"]
    assert len(complete_policy("")) == 10
    assert complete_level("w") == ["warning"]


def test_completing_a_worker_without_a_gateway_gives_nothing() -> None:
    """A shell that completes neither hangs nor shows an error."""
    context = types.SimpleNamespace(params={"url": "http://127.0.0.1:9"})
    assert complete_worker(context, "") == []  # type: ignore[arg-type]
    assert complete_worker(types.SimpleNamespace(params={"url": "nonsense"}), "") == []  # type: ignore[arg-type]
