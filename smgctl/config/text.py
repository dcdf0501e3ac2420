"""Reads the configuration text that a command was given: a file, or `-` for standard input."""

from __future__ import annotations

import pathlib
import sys
from typing import Annotated

import typer

from smgctl.context import ExitCode, SmgContext

File = Annotated[str, typer.Argument(metavar="FILE", help="Configuration file (YAML); - for standard input.")]

NAME_OF_STDIN = "stdin"


def read_text(context: SmgContext, file: str) -> str:
    """Return the text, or end the command where it cannot be read."""
    try:
        if file == "-":
            return sys.stdin.read()
        return pathlib.Path(file).read_text("utf-8-sig")
    except UnicodeDecodeError:
        context.abort(f"{file} is not UTF-8", ExitCode.USAGE)
    except OSError as error:
        context.abort(f"cannot read {file}: {(error.strerror or str(error)).lower()}", ExitCode.USAGE)
