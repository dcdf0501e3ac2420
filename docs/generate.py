"""Writes the reference from the code: `python -m docs.generate`, or with `--check` only says what is out of date.

A new page is a function that returns its text, and a line in `PAGES`.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Mapping

from docs.pages import cli, config, errors
from gateway.telemetry.reference import metrics_page

FOLDER = pathlib.Path(__file__).parent / "reference"

PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli.page,
    "config.md": config.page,
    "config.schema.json": config.schema,
    "errors.md": errors.page,
    "metrics.md": metrics_page,
}
"""File in `docs/reference` -> what writes it."""


def stale() -> list[str]:
    """Name the files that differ from what the code says."""
    return [name for name, page in PAGES.items() if not _is_current(FOLDER / name, page())]


def main(arguments: list[str]) -> int:
    """Write all pages, or check them; 1 where a check fails."""
    old = stale()
    if "--check" in arguments:
        sys.stderr.write("".join(f"docs/reference/{name} is out of date; run python -m docs.generate\n" for name in old))
        return int(bool(old))
    FOLDER.mkdir(exist_ok=True)
    for name in old:
        (FOLDER / name).write_text(PAGES[name](), "utf-8")
        sys.stderr.write(f"wrote docs/reference/{name}\n")
    return 0


def _is_current(path: pathlib.Path, text: str) -> bool:
    return path.exists() and path.read_text("utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
