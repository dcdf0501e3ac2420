"""The only code that prints: lines, tables, fields, YAML and JSON on stdout; errors and hints on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_COLOURS = {"ready": "green", "pending": "yellow", "draining": "yellow", "not_ready": "red", "failed": "red"}
_WIDE = 100_000
"""Columns of an output that is no terminal: nothing is cut or folded there."""


class Output:
    """Where a command writes. What is no terminal gets plain text, so that other programs can read it."""

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        """Take the two streams; those of the process unless given."""
        self._stdout = stdout if stdout is not None else sys.stdout
        self._stderr = stderr if stderr is not None else sys.stderr

    def line(self, text: str) -> None:
        """Write a line."""
        print(_clean(text), file=self._stdout)

    def text(self, text: str) -> None:
        """Write a text as it is."""
        self._stdout.write(text)

    def json(self, value: Any) -> None:
        """Write a value as JSON: msgspec's structs and everything that JSON has."""
        import msgspec

        print(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False), file=self._stdout)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write a table with a heading."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        terminal = self._stdout.isatty()
        table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=not terminal)
        for row in rows:
            table.add_row(*(Text(_clean(_cell(value)), style=_COLOURS.get(str(value), "")) for value in row))
        if terminal:
            Console(file=self._stdout).print(table)
            return
        console = Console(width=_WIDE, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(table)
        for line in capture.get().splitlines():
            print(line.rstrip(), file=self._stdout)

    def fields(self, values: Mapping[str, Any]) -> None:
        """Write names and values, one a line."""
        width = max(map(len, values), default=0) + 1
        for name, value in values.items():
            print(f"{name + ':':<{width}} {_clean(_cell(value))}".rstrip(), file=self._stdout)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show on stderr how far long work is: a bar on a terminal that goes away again, a line for each step elsewhere."""
        if not self._stderr.isatty():
            yield Progress(self._stderr, None)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(file=self._stderr), transient=True) as bar:
            yield Progress(self._stderr, bar)

    def error(self, message: str) -> None:
        """Say on stderr what went wrong."""
        print(f"error: {_clean(message)}", file=self._stderr)

    def problem(self, message: str) -> None:
        """Name one mistake on stderr, the way compilers do, so that editors find the line."""
        print(_clean(message), file=self._stderr)

    def hint(self, message: str) -> None:
        """Say on stderr what may not be meant."""
        print(f"hint: {_clean(message)}", file=self._stderr)


class Progress:
    """How far long work is. Made by `Output.progress`."""

    def __init__(self, stderr: TextIO, bar: Bar | None) -> None:
        """Take where lines go, and the bar on a terminal."""
        self._stderr = stderr
        self._bar = bar
        self._task = bar.add_task("", total=None) if bar is not None else None

    def begin(self, steps: int) -> None:
        """Say how many steps follow."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=steps)

    def say(self, text: str) -> None:
        """Say what happens now."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=_clean(text))

    def step(self, text: str) -> None:
        """Say that a step is done, and with what result."""
        if self._bar is not None and self._task is not None:
            self._bar.console.print(_clean(text), markup=False, highlight=False)
            self._bar.advance(self._task)
        else:
            print(_clean(text), file=self._stderr, flush=True)


def _clean(text: str) -> str:
    """Take out what would steer a terminal: much of what is shown was sent by somebody else."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}" for character in text)


def _cell(value: Any) -> str:
    if value is None or value in ("", [], (), {}):
        return "-"
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case dict():
            return ",".join(f"{key}={item}" for key, item in value.items())
        case list() | tuple():
            return ",".join(map(str, value))
    return str(value)
