"""The page of the command line: every command with its arguments, options and examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
import typer.main

from docs.pages.markdown import NOTE, code, table
from smgctl.app import app
from smgctl.context import ExitCode

_MEANING = {
    ExitCode.OK: "it worked",
    ExitCode.CHECK_FAILED: "a check failed, or the gateway refused",
    ExitCode.USAGE: "the command line or a configuration is wrong",
    ExitCode.UNREACHABLE: "no gateway answered",
}


def page() -> str:
    """Write the page."""
    parts = [
        NOTE,
        "# The command line\n",
        "`smgctl COMMAND --help` says the same in a terminal. Every list takes `--json`.\n",
        "| exit code | means |\n|---|---|\n" + "".join(f"| {code:d} | {_MEANING[code]} |\n" for code in ExitCode),
    ]
    parts += [_command(command, path) for path, command in walk(root_of(app), "smgctl")]
    return "\n".join(parts)


def root_of(app: typer.Typer) -> Any:
    """Return the tree of commands that an app stands for."""
    return typer.main.get_command(app)


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Go through a command and all below it, groups before their commands."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from walk(below, f"{path} {name}")


def _command(command: Any, path: str) -> str:
    context = typer.Context(command, info_name=path)
    parts = [f"## {path}\n", f"{(command.help or '').strip()}\n"]
    below = getattr(command, "commands", None)
    if below:
        parts.append(table(["command", "does"], [(f"`{path} {name}`", _first_line(one.help or "")) for name, one in below.items()]))
    else:
        parts.append(f"```text\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```\n")
    rows = [
        record for param in command.params if not getattr(param, "hidden", False) for record in [param.get_help_record(context)] if record
    ]
    if rows:
        parts.append(table(["option", "means"], [(code(_plain(name)), _plain(text)) for name, text in rows]))
    examples = [line for line in (command.epilog or "").split("\n\n")[1:] if line]
    if examples:
        parts.append("```text\n" + "\n".join(examples) + "\n```\n")
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Take out the type that is of no use to a reader, and what would be read as HTML."""
    text = text.replace(" <str>", "").replace("\b", "")
    return re.sub(r"<([^>]*)>", lambda found: found[1].upper() if "|" not in found[1] else found[1], text)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
