"""The files that belong to the project: those that git tracks, or all but the made ones where there is no git."""

from __future__ import annotations

import functools
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
_MADE = {".git", ".venv", ".nox", ".run", "build", "dist", "__pycache__", "node_modules"}


@functools.cache
def files() -> tuple[pathlib.Path, ...]:
    """Every file of the project, by its path from the root."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        names = [name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file() and not _MADE & set(path.parts)]
    return tuple(path for name in sorted(names) if (ROOT / (path := pathlib.Path(name))).is_file())


def texts(*patterns: str) -> list[tuple[pathlib.Path, str]]:
    """Path and text of every file that matches one of the patterns and is text."""
    found = []
    for path in files():
        if any(path.match(pattern) for pattern in patterns):
            try:
                found.append((path, (ROOT / path).read_text("utf-8")))
            except UnicodeDecodeError:
                continue
    return found


def pages() -> list[tuple[pathlib.Path, str]]:
    """Every page of documentation."""
    return texts("*.md")
