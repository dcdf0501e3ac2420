"""What a serving process is started with."""

import os

import pytest

from gateway.errors import Code, GatewayError
from gateway.processes.spawn import MemberArguments, die_with_parent

ARGUMENTS = MemberArguments(index=1, rows=4, table_fd=5, link_fd=6, listen_fd=7, supervisor_pid=42)


def test_arguments_come_back_from_their_command_line() -> None:
    """to_argv and from_argv are inverse."""
    assert MemberArguments.from_argv(ARGUMENTS.to_argv()) == ARGUMENTS
    assert ARGUMENTS.fds == (5, 6, 7)


@pytest.mark.parametrize(
    "argv", [[], ["--member", "1"], [*ARGUMENTS.to_argv()[:4], "--fds", "1,2", "--supervisor", "1"], ["--member", "x"]]
)
def test_a_wrong_command_line_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A person who starts it by hand hears what is wrong."""
    with pytest.raises(SystemExit) as caught:
        MemberArguments.from_argv(argv)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_process_whose_supervisor_died_before_it_began_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would ever end it."""
    monkeypatch.setattr("sys.platform", "other")
    with pytest.raises(GatewayError) as caught:
        die_with_parent(os.getppid() + 1)
    assert caught.value.code is Code.DRAINING
